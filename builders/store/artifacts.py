"""Artifacts of all builders in one store: files by content, records by key. `objects` is where they lie.

`objects/<2 hex>/<sha256>` holds a file, `artifacts/<key>/<artifact.id>.json` a record, `attestations/<digest>/<name>`
what was proven later about a published version. A record is written after its files, and the first one of its name
stays, so that builders who meet agree. What is read is checked against its digest: a torn or altered object is found.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from builders.artifacts import Artifact, parse_artifact
from builders.digests import file_digest
from builders.manifest import FileEntry
from builders.store.errors import DamagedArtifactError, StoreError, translated_disk
from builders.store.objects import ObjectStore, checked_name

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_AT_ONCE = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


def default_store(repository: Path) -> str:
    """Return the address of the store of a model repository where none is said: a hidden folder beside it."""
    resolved = repository.resolve()
    return str(resolved.parent / f".{resolved.name}.artifacts")


class ArtifactStore:
    """Every method raises StoreError where the store cannot be used. Safe for many builders at once."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def add_files(self, folder: Path, names: Iterable[str]) -> Mapping[str, FileEntry]:
        """Keep files of `folder`, named relative to it with `/`; return their digests and sizes.

        An object that is there and whole is kept; one that is damaged is written again.
        """
        return {name: self._add_file(folder, checked_filename(name)) for name in sorted(set(names))}

    def _add_file(self, folder: Path, name: str) -> FileEntry:
        path = folder / name
        with translated_disk(f"read {path}"):
            entry = FileEntry(file_digest(path), path.stat().st_size)
        where = _object_name(entry)
        if self.objects.size(where) != entry.bytes or self.objects.digest(where) != entry:
            self.objects.replace(where, path)
        else:
            self.objects.flush(where)
        return entry

    def add(self, artifact: Artifact) -> Artifact:
        """Record an artifact whose files are in the store; return the record that stands: the first one that is whole.

        A record of a failure gives way to an artifact, for whoever made one, and an unproven artifact to a proven one.
        Raises StoreError where a file of `artifact` is not in the store.
        """
        if missing := self._missing(artifact):
            raise StoreError(f"{_described(artifact)} cannot be recorded: the store has no {missing}; build it again")
        name = _record_name(artifact)
        content = artifact.to_json().encode()
        if self.objects.create(name, content):
            return artifact
        first = self._record(name)
        if first is not None and not self._missing(first) and _standing(first) >= _standing(artifact):
            return first
        self.objects.replace(name, content)
        return artifact

    def find(self, key: str) -> tuple[Artifact, ...]:
        """Return the artifacts recorded under a key, sorted by id. A record that cannot be read is none."""
        names = self.objects.names(checked_name(f"artifacts/{key}"))
        records = (self._record(name) for name in names)
        return tuple(sorted((record for record in records if record is not None), key=lambda record: record.id))

    def find_many(self, keys: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
        """Return `find` of every key."""
        asked = sorted(set(keys))
        return dict(zip(asked, _at_once(self.find, asked), strict=True))

    def fetch(self, artifact: Artifact, folder: Path, names: Iterable[str] | None = None) -> None:
        """Write files of an artifact, all or `names`, into `folder`. What is written is what was recorded.

        Raises DamagedArtifactError where a file is missing from the store or altered; KeyError for a name that the
        artifact does not have.
        """
        for name in sorted(artifact.files if names is None else set(names)):
            entry = artifact.files[name]
            target = folder / checked_filename(name)
            with translated_disk(f"make {target.parent}"):
                target.parent.mkdir(parents=True, exist_ok=True)
            found = self.objects.fetch(_object_name(entry), target, entry)
            if found != entry:
                problem = "is missing from" if found is None else "was altered in"
                raise DamagedArtifactError(
                    f"{name} of {_described(artifact)} {problem} the artifact store {self.objects.where} "
                    f"({_object_name(entry)}); build it again, which replaces what is damaged"
                )

    def discard(self, artifact: Artifact) -> tuple[str, ...]:
        """Remove an artifact's record and those of its objects that are damaged, so that the next build makes it again.

        Returns the names of the damaged files. Whole objects stay: another artifact may consist of them.
        """
        self.objects.delete(_record_name(artifact))
        damaged = self.damaged(artifact)
        for name in damaged:
            self.objects.delete(_object_name(artifact.files[name]))
        return damaged

    def damaged(self, artifact: Artifact) -> tuple[str, ...]:
        """Return the names of the files that are not in the store as they were recorded, sorted; reads all of them."""
        return tuple(
            name for name, entry in sorted(artifact.files.items()) if self.objects.digest(_object_name(entry)) != entry
        )

    def add_attestation(self, digest: str, name: str, content: bytes, stands: Callable[[bytes], bool]) -> bool:
        """Keep what was proven about the file with this digest; False where one of that name is there and `stands`.

        One that does not stand is replaced: whatever lies under the name must not keep a proof out.
        """
        where = f"attestations/{digest}/{name}"
        if self.objects.create(where, content):
            return True
        there = self.objects.read(where)
        if there is not None and stands(there):
            return False
        self.objects.replace(where, content)
        return True

    def attestations(self, digest: str) -> Mapping[str, bytes]:
        """Return the attestations of a version by name. Signatures are for the caller to check."""
        prefix = f"attestations/{digest}"
        names = self.objects.names(prefix)
        contents = _at_once(self.objects.read, names)
        found = zip(names, contents, strict=True)
        return {name.removeprefix(f"{prefix}/"): content for name, content in found if content is not None}

    def _record(self, name: str) -> Artifact | None:
        """Return the artifact that a record holds, or None where it is none or belongs elsewhere."""
        content = self.objects.read(name)
        artifact = None if content is None else parse_artifact(content)
        return artifact if artifact is not None and _is_sound(artifact, name) else None

    def _missing(self, artifact: Artifact) -> str | None:
        """Return the first file whose object is not there in its full size."""
        for name, entry in sorted(artifact.files.items()):
            if self.objects.size(_object_name(entry)) != entry.bytes:
                return name
        return None


def _standing(artifact: Artifact) -> int:
    """Return how much a record is worth: a failure least, then what is unproven."""
    return 0 if artifact.failed else 1 if artifact.unproven else 2


def checked_filename(name: str) -> str:
    """Return a file's name inside an artifact, or raise ValueError where it could leave the folder it is written to."""
    if not _is_filename(name):
        raise ValueError(f"{name!r} is not the name of an artifact's file")
    return name


def _is_filename(name: object) -> bool:
    if not isinstance(name, str) or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def _is_sound(artifact: Artifact, record: str) -> bool:
    """Whether a parsed record is one that this class would write under this name: parsing checks no types."""
    try:
        named = all(_is_filename(name) and _is_entry(entry) for name, entry in artifact.files.items())
        return named and _record_name(artifact) == record
    except (ValueError, TypeError, AttributeError):
        return False


def _is_entry(entry: FileEntry) -> bool:
    return _SHA256.fullmatch(entry.sha256) is not None and entry.bytes >= 0


def _object_name(entry: FileEntry) -> str:
    return f"objects/{entry.sha256[:2]}/{entry.sha256}"


def _record_name(artifact: Artifact) -> str:
    return checked_name(f"artifacts/{artifact.key}/{artifact.id}.json")


def _described(artifact: Artifact) -> str:
    return f"the artifact {artifact.target or 'export'} {artifact.key[:12]}"


def _at_once(ask: Callable[[Asked], Answer], each: list[Asked]) -> Iterator[Answer]:
    """Ask for each, several at a time: every answer is a round trip to the store."""
    with ThreadPoolExecutor(max(1, min(_AT_ONCE, len(each)))) as pool:
        return iter(list(pool.map(ask, each)))
