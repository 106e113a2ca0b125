"""The hidden folder beside a server's repository location: staging, a lock, and a ledger of what was put there.

Every sub-folder of a repository is a model to Triton, so nothing of this may be inside it; it is on the same
filesystem, so that what is whole is renamed into place. `server_repository` works in it.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from control_plane.errors import LocationBusyError, LocationError
from control_plane.state import ModelName, Pin

logger = logging.getLogger(__name__)

_BESIDE = "beside"


@dataclass(frozen=True, slots=True)
class Entry:
    """One version in the ledger: the inode of the folder that was put there, and when it was last needed.

    The inode tells our folder from one that somebody put there by hand under the same number.
    """

    inode: int
    last_needed: datetime


class PlacementLedger:
    """The folder `.<name>.placing` beside `location`. Calls that write are made while `held`."""

    def __init__(self, location: Path) -> None:
        self.location = location.resolve()
        self.folder = self.location.parent / f".{self.location.name}.placing"
        self._entries = self.folder / "placed"

    @contextlib.contextmanager
    def held(self, wait_s: float) -> Iterator[None]:
        """Be the only one at work in the location, and take away what a killed one left behind.

        Raises LocationBusyError, LocationError where it is on another filesystem than its parent, OSError.
        """
        if not self.location.is_dir():
            raise LocationError(f"{self.location}: there is no such folder, which its server should load models from")
        if self.location.parent.stat().st_dev != self.location.stat().st_dev:
            raise LocationError(
                f"{self.location} is on another filesystem than the folder above it, so a version cannot be renamed "
                "into it; let the server load from a folder of that filesystem instead of from its root"
            )
        self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as exc:  # an OSError too
            raise LocationBusyError(f"{self.folder / 'lock'} has been held by another for {wait_s:.0f} s") from exc
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def tidy(self) -> None:
        """Take away what a killed one left behind, unless somebody is at work. For calls that need no lock."""
        with contextlib.suppress(OSError, LocationBusyError, LocationError):  # the next that writes will tell
            if self._left_over():
                with self.held(0.0):
                    pass

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give an empty folder in which something is prepared; it is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="copy-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def bury(self, folder: Path) -> Path:
        """Move `folder` out of the location at once and durably; return where it lies until it is deleted.

        Takes no new space: it must work on a full disk.
        """
        grave = folder.rename(self.folder / f"gone-{folder.stat().st_ino}")
        flush_folder(folder.parent)
        return grave

    def entry(self, pin: Pin) -> Entry | None:
        """Return the version's entry, or None where we did not put what lies there, if anything does."""
        path = self._path(pin)
        try:
            inode = json.loads(path.read_text(encoding="ascii"))["inode"]
            needed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            there = (self.location / pin.model / str(pin.version)).stat().st_ino
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Entry(inode, needed) if inode == there else None

    def add(self, pin: Pin, inode: int, now: datetime) -> None:
        """Write, durably, that the folder `inode` which is about to be put there as `pin` is ours."""
        self._write(self._path(pin), {"inode": inode}, now)

    def note_needed(self, pin: Pin, now: datetime) -> None:
        """Note that the version is needed; nothing happens where it is not in the ledger. Needs no lock."""
        # What cannot be noted only looks older than it is; the versions that are needed are kept in any case.
        with contextlib.suppress(OSError):
            os.utime(self._path(pin), (now.timestamp(), now.timestamp()))

    def drop(self, pin: Pin) -> None:
        """Take the version out of the ledger."""
        self._path(pin).unlink(missing_ok=True)

    def beside(self, model: ModelName) -> Mapping[str, str]:
        """Return the digests of the files that were put beside the versions of `model`."""
        try:
            found = json.loads((self._entries / model / _BESIDE).read_text(encoding="utf-8"))
            return {str(name): str(digest) for name, digest in found.items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def set_beside(self, model: ModelName, digests: Mapping[str, str], now: datetime) -> None:
        """Write, durably, which files are about to be put beside the versions of `model`."""
        self._write(self._entries / model / _BESIDE, dict(digests), now)

    def _path(self, pin: Pin) -> Path:
        return self._entries / pin.model / str(pin.version)

    def _write(self, path: Path, data: Mapping[str, object], now: datetime) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.scratch() as scratch:
            draft = scratch / path.name
            with draft.open("w", encoding="utf-8") as stream:
                json.dump(data, stream, sort_keys=True)
                stream.flush()
                os.utime(stream.fileno(), (now.timestamp(), now.timestamp()))
                os.fsync(stream.fileno())
            draft.rename(path)
        for folder in (path.parent, self._entries, self.folder):
            flush_folder(folder)

    def _left_over(self) -> list[Path]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return [path for path in found if path.is_dir() and path != self._entries]

    def _sweep(self) -> None:
        for leftover in self._left_over():
            delete_tree(leftover)
        for model in self._entries.iterdir() if self._entries.is_dir() else ():
            if not (self.location / model.name).is_dir():
                delete_tree(model)
                continue
            for path in model.iterdir():
                if path.name.isdigit() and self.entry(Pin(ModelName(model.name), int(path.name))) is None:
                    path.unlink()


def delete_tree(folder: Path) -> None:
    """Delete a folder that is out of the repository already. What cannot be deleted is told and tried again later."""
    try:
        shutil.rmtree(folder)
    except OSError as exc:
        logger.warning("%s cannot be deleted and takes space for nothing: %s", folder, exc)


def flush_folder(path: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
