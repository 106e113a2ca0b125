"""Signs a version's folder and verifies it, with OpenSSF's `model-signing`: one sigstore bundle beside the files.

The signature covers every file of the folder but itself, `manifest.json` included. What the library lets pass (a folder
under another name, empty folders, files that git has to do with) is held against the manifest. `publish` signs;
`tritonfleet verify-signature` and the control plane verify.
"""

import base64
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builders.digests import tree_digests
from builders.errors import MissingExtraError, PermanentBuildError
from builders.manifest import MANIFEST_FILENAME, SIGNATURE_FILENAME, Manifest, read_manifest
from builders.supply_chain.keys import PublicKey, Signer

if TYPE_CHECKING:
    from model_signing import hashing

SignatureState = Literal["signed", "unsigned", "altered", "wrong key", "no signature", "unreadable"]

_LARGEST_SIGNATURE = 16 * 1024 * 1024
_UNLISTED = frozenset({MANIFEST_FILENAME, SIGNATURE_FILENAME})


class SigningError(PermanentBuildError):
    """A version's folder is not fit to be signed."""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """`problem` is one sentence, empty where the version is signed and whole.

    `signed_by` is the fingerprint that the signature names, whoever it is; "" where it names none. `state` "no
    signature" means that the file is there and is none.
    """

    state: SignatureState
    problem: str = ""
    signed_by: str = ""

    @property
    def ok(self) -> bool:
        """Whether the version is exactly what the key's owner signed."""
        return self.state == "signed"


def sign_version(content: Path, signer: Signer) -> None:
    """Write `signature.json` into the version's folder `content`, which holds its manifest and is complete.

    The folder may still have another name. Raises SigningError where it holds what its manifest does not list, or the
    other way round, and MissingExtraError.
    """
    if (content / SIGNATURE_FILENAME).exists():
        raise SigningError(f"{content} already holds a {SIGNATURE_FILENAME}; a version is signed once")
    manifest = read_manifest(content)
    if manifest is None:
        raise SigningError(f"{content} has no {MANIFEST_FILENAME} that can be read; it is written before the signature")
    problem = _content_problem(content, manifest)
    if problem:
        raise SigningError(f"{content} cannot be signed: {problem}")
    try:
        from model_signing import signing  # noqa: PLC0415 - an optional extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("model-signing", "signing") from exc
    with _in_memory(signer.private_pem()) as key:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    config.set_hashing_config(_hashing()).sign(content, content / SIGNATURE_FILENAME)


def verify_version(version: Path, public_key: PublicKey) -> VerificationResult:
    """Return whether the folder `version` (`<package>/<number>`) is what the key's owner signed under that name.

    Reads every file of it. Whatever lies in the folder, this raises nothing but MissingExtraError.
    """
    try:
        return _verify(version.absolute(), public_key)
    except OSError as exc:
        where = exc.filename or version
        return VerificationResult("unreadable", f"{where} cannot be read: {exc.strerror or exc}; nothing was verified")


def _verify(version: Path, public_key: PublicKey) -> VerificationResult:
    path = version / SIGNATURE_FILENAME
    if path.is_symlink() or not path.exists():
        problem = f"{version} is not signed: it has no {SIGNATURE_FILENAME} of its own"
        return VerificationResult("unsigned", problem)
    named = _read_signature(path)
    if named is None:
        problem = f"{path} is not a signature; publish the version again, signed, or take it from its origin"
        return VerificationResult("no signature", problem)
    signed_by, statement = named
    if signed_by != public_key.fingerprint:
        problem = f"{version} is signed with another key: {signed_by[:16]}, not {public_key.fingerprint[:16]}"
        return VerificationResult("wrong key", problem, signed_by)
    problem = _signature_problem(version, public_key, statement) or _manifest_problem(version)
    if problem:
        return VerificationResult("altered", f"{version} is not as it was signed: {problem}", signed_by)
    return VerificationResult("signed", signed_by=signed_by)


def _read_signature(path: Path) -> tuple[str, dict[str, str] | None] | None:
    """Return the fingerprint that a bundle names, and the digests it states; None where the file is no bundle.

    The digests serve to tell what was altered, and only that: nothing is trusted before the library has verified it.
    """
    if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > _LARGEST_SIGNATURE:
        return None
    try:
        bundle = json.loads(path.read_bytes())
        signed_by = bundle["verificationMaterial"]["publicKey"]["hint"]
        payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
        if not isinstance(signed_by, str) or not signed_by:
            return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    try:
        resources = json.loads(payload)["predicate"]["resources"]
        return signed_by, {str(entry["name"]): str(entry["digest"]) for entry in resources}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return signed_by, None


def _signature_problem(version: Path, public_key: PublicKey, statement: dict[str, str] | None) -> str:
    """Return what the library finds wrong, "" for nothing. Where it does, the statement says which file."""
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as late as what raises it
        from model_signing import verifying  # noqa: PLC0415 - an optional extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("model-signing", "signing") from exc
    odd = _odd_entries(version)
    if odd:
        return odd
    try:
        with _in_memory(public_key.pem) as key:
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
        config.set_hashing_config(_hashing()).verify(version, version / SIGNATURE_FILENAME)
    except (InvalidSignature, ValueError, TypeError, KeyError, IndexError, AttributeError):
        # The latter are what the library raises on a bundle whose parts are missing or of another kind.
        difference = "" if statement is None else _difference(version, statement)
        return difference or f"{SIGNATURE_FILENAME} itself was altered"
    # A bundle may say what it leaves out. Ours leaves nothing out but itself.
    left_out = sorted(_files(version) - {SIGNATURE_FILENAME} - (statement or {}).keys())
    return f"not signed: {', '.join(left_out)}" if left_out else ""


def _difference(version: Path, stated: dict[str, str]) -> str:
    found = tree_digests(version)
    found.pop(SIGNATURE_FILENAME, None)
    altered = sorted(name for name in found.keys() & stated.keys() if found[name] != stated[name])
    told = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("altered", altered),
            ("missing", sorted(stated.keys() - found.keys())),
            ("not signed", sorted(found.keys() - stated.keys())),
        )
        if names
    ]
    if MANIFEST_FILENAME in altered:
        told.append("or the signature is that of another version")
    return "; ".join(told)


def _manifest_problem(version: Path) -> str:
    """Hold a folder whose signature holds against its manifest: what the library does not look at."""
    manifest = read_manifest(version)
    if manifest is None:
        return f"its {MANIFEST_FILENAME} is signed, but cannot be read by this version of Tritonfleet"
    lies, is_for = f"{version.parent.name}/{version.name}", f"{manifest.package}/{manifest.version}"
    if lies != is_for:
        return f"it was signed as {is_for} and lies at {lies}"
    return _content_problem(version, manifest)


def _content_problem(folder: Path, manifest: Manifest) -> str:
    odd = _odd_entries(folder)
    if odd:
        return odd
    found = _files(folder) - _UNLISTED
    listed = set(manifest.files) - _UNLISTED
    told = [
        f"{what}: {', '.join(sorted(names))}"
        for what, names in (
            (f"missing, though {MANIFEST_FILENAME} lists it", listed - found),
            (f"not listed in {MANIFEST_FILENAME}", found - listed),
        )
        if names
    ]
    return "; ".join(told)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _odd_entries(folder: Path) -> str:
    """Return what no version holds: links, pipes and devices, folders without a file below them. "" for nothing."""
    odd: list[str] = []
    filled: set[Path] = set()
    folders: list[Path] = []
    for parent, below, names in os.walk(folder, onerror=_raise):
        here = Path(parent)
        folders += [here / name for name in below if not (here / name).is_symlink()]
        for name in (*below, *names):
            mode = (here / name).lstat().st_mode
            if stat.S_ISREG(mode):
                filled.update((here, *here.parents))
            elif not stat.S_ISDIR(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                odd.append(f"{(here / name).relative_to(folder).as_posix()} is {kind}")
    odd += [f"{path.relative_to(folder).as_posix()} is an empty folder" for path in folders if path not in filled]
    return "; ".join(sorted(odd))


def _raise(error: OSError) -> None:
    raise error


def _hashing() -> "hashing.Config":
    from model_signing import hashing  # noqa: PLC0415 - an optional extra, and slow to import

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILENAME], ignore_git_paths=False)


@contextlib.contextmanager
def _in_memory(text: bytes) -> Iterator[Path]:
    """Give `text` as a file that is on no disk: the library takes keys by path alone, and no password."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
