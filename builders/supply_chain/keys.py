"""Keys: EC P-256 key pairs in PEM files, or a private key in the environment. `signing` and `attestation` use them.

Importing this raises MissingExtraError without the extra `signing`, so callers import it where they use it.
No message and no representation of anything here holds a private key's text or a password.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builders.errors import MissingExtraError, PermanentBuildError

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as exc:
    raise MissingExtraError("cryptography", "signing") from exc

KEY_PATH_VARIABLE = "TRITONFLEET_SIGNING_KEY"
KEY_TEXT_VARIABLE = "TRITONFLEET_SIGNING_KEY_PEM"
KEY_PASSWORD_VARIABLE = "TRITONFLEET_SIGNING_KEY_PASSWORD"  # noqa: S105 - a variable's name
PRIVATE_KEY_FILENAME = "tritonfleet.key"
PUBLIC_KEY_FILENAME = "tritonfleet.pub"

_CURVE = "secp256r1"
_LARGEST_KEY_FILE = 64 * 1024
_NOT_OURS_ALONE = stat.S_IRWXO | stat.S_IWGRP


class KeyFileError(PermanentBuildError):
    """A key cannot be read, is not an EC P-256 key, or may be read by others. Never holds any of its text."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What signatures are verified with. `fingerprint` is the SHA-256, in hex, of the key's PEM text."""

    fingerprint: str
    pem: bytes = field(repr=False)
    key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Signer:
    """What signs: a private key in memory, with the public key that belongs to it."""

    public_key: PublicKey
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Of the public key: what a signature names its signer by."""
        return self.public_key.fingerprint

    def private_pem(self) -> bytes:
        """Return the private key as PEM without a password: for handing on in memory, never for writing down."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a new key pair was written."""

    private: Path
    public: Path
    fingerprint: str


def read_signer(path: Path, password: str | None = None) -> Signer:
    """Return the signer of the private key in the PEM file `path`. Raises KeyFileError.

    A file that others than its owner and group may read, or that its group may write, is refused.
    """
    text, mode = _read(path, "private key")
    if mode & _NOT_OURS_ALONE:
        raise KeyFileError(
            f"{path}: the private key is open to other users (mode {stat.S_IMODE(mode):04o}); run chmod 600 on it, "
            "or mount the secret with defaultMode 0400"
        )
    return _signer(text, password, str(path))


def signer_from_environment(environment: Mapping[str, str]) -> Signer | None:
    """Return the signer that `environment` names by path or holds as text; None where it does neither.

    Raises KeyFileError.
    """
    path, text = environment.get(KEY_PATH_VARIABLE, ""), environment.get(KEY_TEXT_VARIABLE, "")
    password = environment.get(KEY_PASSWORD_VARIABLE) or None
    if path and text:
        raise KeyFileError(f"both {KEY_PATH_VARIABLE} and {KEY_TEXT_VARIABLE} are set; set the one that is meant")
    if path:
        return read_signer(Path(path), password)
    return _signer(text.encode(), password, KEY_TEXT_VARIABLE) if text else None


def read_public_key(path: Path) -> PublicKey:
    """Return the public key in the PEM file `path`. Raises KeyFileError."""
    text, _ = _read(path, "public key")
    if b"PRIVATE KEY-----" in text:
        raise KeyFileError(f"{path}: this is a private key; keep it secret and name the public one beside it (.pub)")
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise KeyFileError(f"{path}: not a public key in PEM form; `tritonfleet key new` makes a pair") from exc
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != _CURVE:
        raise KeyFileError(f"{path}: not an EC P-256 key; `tritonfleet key new` makes one")
    return _public(key)


def generate_key(folder: Path, password: str | None = None) -> KeyPair:
    """Write a new key pair into `folder`, which is made where it is missing; return where it lies.

    The private key is its owner's alone, and encrypted where there is a password. Nothing is ever overwritten.
    Raises KeyFileError.
    """
    private, public = folder / PRIVATE_KEY_FILENAME, folder / PUBLIC_KEY_FILENAME
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (private, public):
            if path.is_symlink() or path.exists():
                raise KeyFileError(f"{path} already exists; a key is never overwritten, so name another folder")
        _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
        try:
            _write_new(public, _public(key.public_key()).pem, 0o644)
        except OSError:
            private.unlink()
            raise
    except OSError as exc:
        raise KeyFileError(f"{folder}: no key can be written there: {exc.strerror or exc}") from exc
    return KeyPair(private, public, _public(key.public_key()).fingerprint)


def _signer(text: bytes, password: str | None, where: str) -> Signer:
    if b"-----BEGIN PUBLIC KEY-----" in text:
        raise KeyFileError(f"{where}: this is a public key; signing needs the private one")
    try:
        key = load_pem_private_key(text, None if password is None else password.encode())
    except TypeError:  # a password is missing, or there is one for a key that has none
        if password is None:
            raise KeyFileError(f"{where}: the private key is encrypted; set {KEY_PASSWORD_VARIABLE}") from None
        raise KeyFileError(f"{where}: the private key has no password; unset {KEY_PASSWORD_VARIABLE}") from None
    except (ValueError, UnsupportedAlgorithm):
        if password is not None and b"ENCRYPTED" in text:
            raise KeyFileError(
                f"{where}: the private key does not open with the password in {KEY_PASSWORD_VARIABLE}"
            ) from None
        raise KeyFileError(f"{where}: not a private key in PEM form; `tritonfleet key new` makes a pair") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE:
        raise KeyFileError(f"{where}: not an EC P-256 key; `tritonfleet key new` makes one")
    return Signer(_public(key.public_key()), key)


def _public(key: ec.EllipticCurvePublicKey) -> PublicKey:
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(pem).hexdigest(), pem, key)


def _read(path: Path, what: str) -> tuple[bytes, int]:
    """Return a key file's bytes and mode. Opened without waiting, so a pipe that nobody writes cannot hold us up."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{path}: not a file; a {what} is expected there")
            if status.st_size > _LARGEST_KEY_FILE:
                raise KeyFileError(f"{path}: too large for a {what}")
            return stream.read(), status.st_mode
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path}: no such file; a {what} is expected there") from exc
    except OSError as exc:
        raise KeyFileError(f"{path}: the {what} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:  # a path that no file can have
        raise KeyFileError(f"{str(path)!r}: no path of a file; a {what} is expected there") from exc


def _write_new(path: Path, text: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
