"""Whether versions can be trusted, asked again and again: each is read once, and again only when something touched it.

For the control plane, which asks before every load. `signing` does the reading.
"""

import os
import threading
from pathlib import Path

from builders.supply_chain.keys import PublicKey
from builders.supply_chain.signing import VerificationResult, verify_version

_Touched = tuple[tuple[str, int, int, int, int], ...]


class TrustedVersions:
    """Verifies versions against one public key, and remembers the answer for as long as their files stay untouched.

    "Untouched" means inode, size, time of change and mode of every entry: a change of content alters the time of
    change (ctime), which nobody but root can set back. Safe to use from several threads; one version is read by one.
    """

    def __init__(self, public_key: PublicKey) -> None:
        self._public_key = public_key
        self._known: dict[Path, tuple[_Touched, VerificationResult]] = {}
        self._reading = threading.Lock()

    def verify(self, version: Path) -> VerificationResult:
        """Return what `verify_version` says of the folder `version`. Raises MissingExtraError."""
        with self._reading:
            before = _touched(version)
            known = self._known.get(version)
            if known is not None and before and known[0] == before:
                return known[1]
            result = verify_version(version, self._public_key)
            # Only what stayed as it was while it was read is remembered, and no failure to read.
            if result.state != "unreadable" and before == _touched(version):
                self._known[version] = (before, result)
            else:
                self._known.pop(version, None)
            return result


def _touched(version: Path) -> _Touched:
    """Return what changes when anything below `version` does; empty where it cannot be told."""
    found = []
    try:
        for parent, folders, names in os.walk(version, onerror=_raise):
            for path in (parent, *(os.path.join(parent, name) for name in (*folders, *names))):  # noqa: PTH118 - hot
                status = os.lstat(path)
                found.append((path, status.st_ino, status.st_size, status.st_ctime_ns, status.st_mode))
    except OSError:
        return ()
    return tuple(sorted(found))


def _raise(error: OSError) -> None:
    raise error
