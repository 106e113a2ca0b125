"""Objects by name, in a folder or in S3: one thin class over `obstore`. `artifacts` keeps artifacts in it.

A write is seen whole or not at all on every kind of store: a folder's object is written beside its name and linked or
renamed there, S3 does it by itself. obstore does not flush a folder's files, so this class does, object and folders,
before a write returns: a power cut takes nothing that was acknowledged, though an object may be seen a moment before
it is flushed. A writer killed with -9 leaves at most a file `<name>#<n>` beside the name, which is never listed or
read; `sweep` removes old ones. Nothing here trusts content: whoever reads it checks digests.

A folder's filesystem needs hard links. obstore works in threads of its own, which a forked child does not have and
waits for without end: start child processes by `spawn` or by command.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, MemoryStore, S3Store

from builders.manifest import FileEntry
from builders.store.errors import StoreAddressError, is_no_bucket, translated, translated_disk
from builders.store.s3 import Deadlines, s3_store

if TYPE_CHECKING:
    from obstore import GetResult

PART_BYTES = 16 * 1024 * 1024
"""Large objects travel in parts of this size, each with the deadline of one request."""
_PARTS_AT_ONCE = 4
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LEFTOVER = re.compile(r".+#\d+")


def open_objects(url: str, deadlines: Deadlines | None = None) -> "ObjectStore":
    """Return the store at a folder's path, `file://<path>`, `s3://<bucket>/<prefix>` or `memory://` (a new, empty one).

    S3 takes its credentials, region and endpoint from the usual AWS_* variables; an `http://` endpoint is taken as it
    is. Nothing is read or made yet: a folder is made by the first write. Raises StoreAddressError.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise StoreAddressError("the artifact store's address is empty; give a folder or s3://<bucket>/<prefix>")
        return ObjectStore(url, Path(url).absolute())
    match scheme:
        case "file":
            return ObjectStore(url, Path(unquote(rest)))
        case "memory":
            return ObjectStore(url, MemoryStore())
        case "s3":
            return ObjectStore(url, s3_store(url, deadlines or Deadlines()))
        case _:
            raise StoreAddressError(f"{url}: an artifact store is a folder or s3://<bucket>/<prefix>, not {scheme}://")


class ObjectStore:
    """Objects by name: letters, digits, `.`, `_`, `-`, parts separated by `/`. Safe for threads and processes at once.

    Every method raises StoreError, and ValueError for a name that is none.
    """

    def __init__(self, where: str, backing: Path | MemoryStore | S3Store) -> None:
        self.where = where
        self._folder = backing if isinstance(backing, Path) else None
        self._opened: LocalStore | MemoryStore | S3Store | None = None if isinstance(backing, Path) else backing

    def create(self, name: str, content: bytes | Path) -> bool:
        """Write an object that is not there yet; False where it is, whoever was first. It goes in one piece."""
        checked_name(name)
        with translated(self.where, f"write {name}"):
            store = self._for_writing()
            try:
                obstore.put(store, name, content, mode="create")
            except AlreadyExistsError:
                created = False
            else:
                created = True
            self._flush(name)  # another's too: its writer may not have come to that yet
        return created

    def replace(self, name: str, content: bytes | Path) -> None:
        """Write an object, whether or not it is there; a large file goes in parts."""
        checked_name(name)
        with translated(self.where, f"write {name}"):
            store = self._for_writing()
            obstore.put(store, name, content, chunk_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
            self._flush(name)

    def flush(self, name: str) -> None:
        """Put an object of a folder that somebody else wrote onto the disk, before anything refers to it."""
        checked_name(name)
        with translated(self.where, f"flush {name}"):
            self._flush(name)

    def read(self, name: str) -> bytes | None:
        """Return a small object's content, or None where there is no such object."""
        checked_name(name)
        parts = self._parts(name)
        return None if parts is None else b"".join(parts)

    def fetch(self, name: str, target: Path, expected: FileEntry) -> FileEntry | None:
        """Write an object into the file `target` if it is as expected; return what was read, None for no such object.

        Where that is not `expected`, nothing is at `target` that was not there before.
        """
        checked_name(name)
        parts = self._parts(name)
        if parts is None:
            return None
        partial = target.with_name(f"{target.name}.part")
        try:
            with translated_disk(f"write {target}"):
                with partial.open("wb") as stream:
                    entry = _digested(parts, stream.write)
                if entry == expected:
                    partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return entry

    def digest(self, name: str) -> FileEntry | None:
        """Read an object for its digest and size alone; None where it is not."""
        checked_name(name)
        parts = self._parts(name)
        return None if parts is None else _digested(parts, lambda _part: 0)

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes, or None where there is no such object."""
        checked_name(name)
        found = self._found(name)
        return None if found is None else found.meta["size"]

    def exists(self, name: str) -> bool:
        """Say whether there is such an object."""
        return self.size(name) is not None

    def names(self, prefix: str) -> list[str]:
        """Return the names below `prefix`, a name itself, sorted. What this class would not write is left out."""
        checked_name(prefix)
        store = self._for_reading()
        if store is None:
            return []
        with translated(self.where, f"list {prefix}"):
            found = [entry["path"] for entry in obstore.list(store, prefix).collect()]
        return sorted(name for name in found if _NAME.fullmatch(name))

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        checked_name(name)
        store = self._for_reading()
        if store is None:
            return
        with translated(self.where, f"remove {name}"):
            try:
                obstore.delete(store, name)
            except FileNotFoundError as exc:
                if is_no_bucket(exc):
                    raise

    def sweep(self, older_s: float = 86400.0) -> int:
        """Remove what killed writers left in a folder more than `older_s` seconds ago; return how many files.

        In S3 a lifecycle rule for incomplete multipart uploads does this.
        """
        if self._folder is None or not self._folder.is_dir():
            return 0
        before = time.time() - older_s
        removed = 0
        with translated(self.where, "remove leftovers"):
            for path in self._folder.rglob("*#*"):
                if _LEFTOVER.fullmatch(path.name) and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _for_reading(self) -> LocalStore | MemoryStore | S3Store | None:
        """Return obstore's store; None for a folder that is not there yet."""
        if self._opened is None and self._folder is not None and self._folder.exists():
            with translated(self.where, "open the folder"):
                self._opened = LocalStore(self._folder)
        return self._opened

    def _for_writing(self) -> LocalStore | MemoryStore | S3Store:
        if self._folder is not None and not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            _flush_folder(self._folder.parent)
        store = self._for_reading()
        assert store is not None  # noqa: S101 - for mypy: the folder was made above
        return store

    def _flush(self, name: str) -> None:
        """Put an object of a folder, and every folder on the way to it, onto the disk."""
        if self._folder is None:
            return
        path = self._folder / name
        # Another builder may have discarded the object by now; there is nothing to keep then.
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            os.fsync(stream.fileno())
        for folder in path.parents:
            _flush_folder(folder)
            if folder == self._folder:
                break

    def _found(self, name: str) -> "GetResult | None":
        store = self._for_reading()
        if store is None:
            return None
        with translated(self.where, f"read {name}"):
            # Not `head`: its answer has no body, which alone tells a missing bucket from a missing object.
            try:
                return obstore.get(store, name)
            except FileNotFoundError as exc:
                if is_no_bucket(exc):
                    raise
                return None

    def _parts(self, name: str) -> Iterator[bytes] | None:
        """Return an object's content in parts, each asked for by itself beyond the first part's size."""
        found = self._found(name)
        if found is None:
            return None
        return self._read(name, found)

    def _read(self, name: str, found: "GetResult") -> Iterator[bytes]:
        size = found.meta["size"]
        store = self._for_reading()
        assert store is not None  # noqa: S101 - for mypy: something was found in it
        if size <= PART_BYTES:
            with translated(self.where, f"read {name}"):
                content = bytes(found.bytes())
            yield content
            return
        del found
        for start in range(0, size, PART_BYTES):
            with translated(self.where, f"read {name}"):
                part = bytes(obstore.get_range(store, name, start=start, end=min(size, start + PART_BYTES)))
            yield part


def checked_name(name: str) -> str:
    """Return `name`, or raise ValueError where it could leave the store or is not portable."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an object")
    return name


def _digested(parts: Iterator[bytes], write: Callable[[bytes], object]) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        write(part)
        digest.update(part)
        size += len(part)
    return FileEntry(digest.hexdigest(), size)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
