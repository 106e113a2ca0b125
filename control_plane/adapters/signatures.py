"""Whether published versions are signed and whole, remembered for as long as no file of theirs changes.

`repository` asks for every version at every reading; the hashing itself is `builders.supply_chain.signing`.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from builders.errors import BuildError
from builders.errors import MissingExtraError as BuildersMissingExtraError
from control_plane.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from builders.supply_chain.keys import PublicKey

logger = logging.getLogger(__name__)

_Stamp = tuple[tuple[str, int, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Known:
    stamp: _Stamp
    problem: str


class SignatureCheck:
    """Verifies versions with one public key. `required`: one that fails must not be loaded; else it is only told.

    The first reading of a repository hashes all of it (some 100 MB in a third of a second); afterwards a version is
    hashed again when the path, inode, size, mode or a time of one of its files changed. The time of the last change of
    the inode is among them, which no program can set. Safe to call from several threads.
    """

    def __init__(self, public_key: "PublicKey", *, required: bool) -> None:
        self.required = required
        self._key = public_key
        self._known: dict[Path, _Known] = {}
        self._one_at_a_time = Lock()

    def problem(self, version: Path) -> str:
        """Return why the version's folder is not what the key's owner signed, in one sentence; empty where it is."""
        with self._one_at_a_time:
            try:
                stamp = _stamp(version)
            except OSError as exc:
                return f"{version} cannot be read: {exc}; nothing was verified."
            known = self._known.get(version)
            if known is not None and known.stamp == stamp:
                return known.problem
            problem, lasting = self._verify(version)
            if lasting:
                self._known[version] = _Known(stamp, problem)
            if problem:
                logger.warning("%s", problem)
            return problem

    def _verify(self, version: Path) -> tuple[str, bool]:
        """Return the problem, and whether it is there until the folder changes."""
        from builders.supply_chain.signing import verify_version  # noqa: PLC0415 - its extra is looked for at the start

        result = verify_version(version, self._key)
        return f"{result.problem}." if result.problem else "", result.state != "unreadable"


def open_signature_check(public_key: Path, *, required: bool) -> SignatureCheck:
    """Return the check with the key in the PEM file `public_key`.

    Raises SettingsError where that is no public key, MissingExtraError without the extra `signing`.
    """
    try:
        import model_signing  # noqa: F401, PLC0415 - of the extra; better missed now than at the first reading

        from builders.supply_chain.keys import read_public_key  # noqa: PLC0415 - of the extra

        return SignatureCheck(read_public_key(public_key), required=required)
    except (ImportError, BuildersMissingExtraError) as exc:
        raise MissingExtraError("Signatures cannot be verified: install the extra `tritonfleet[signing]`.") from exc
    except BuildError as exc:
        raise SettingsError(f"TRITONFLEET_PUBLIC_KEY: {exc}.") from exc


def _stamp(version: Path) -> _Stamp:
    """Return what changes when anything in the folder does, the folder itself included. Raises OSError."""
    entries = [_entry(str(version))]
    pending = [str(version)]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries.append(_entry(entry.path))
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return tuple(sorted(entries))


def _entry(path: str) -> tuple[str, int, int, int, int, int]:
    status = os.lstat(path)
    return path, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
