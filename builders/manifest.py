"""Manifest: what one published version consists of and how it came to be. Read and written as `manifest.json`.

`plan` reads it; `publish` writes it last, so a version with a manifest is a whole one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from builders.digests import file_digest

MANIFEST_FILENAME = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ParityResult:
    """How far an artifact is from its source over `sentences` golden sentences."""

    sentences: int
    min_cosine: float
    max_abs_error: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """`build_key` is the digest of everything the version was made from: equal keys, equal version."""

    package: str
    version: int
    build_key: str
    licence: str
    command: str
    toolchain: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    parity: ParityResult | None = None
    schema: int = SCHEMA

    @property
    def total_bytes(self) -> int:
        """Size of the version's files, the manifest itself left out."""
        return sum(entry.bytes for entry in self.files.values())

    def to_json(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def version_numbers(package: Path) -> tuple[int, ...]:
    """Return the versions in a package's folder, ascending: folders with a plain number above 0, as Triton reads them.

    Raises OSError where the folder cannot be read.
    """
    names = [entry.name for entry in package.iterdir() if entry.is_dir()]
    return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit() and not name.startswith("0")))


def read_manifest(version: Path) -> Manifest | None:
    """Return the manifest of a version's folder, or None where there is none that can be read."""
    try:
        data = json.loads((version / MANIFEST_FILENAME).read_text(encoding="utf-8"))
        files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
        parity = data.pop("parity")
        return Manifest(files=files, parity=None if parity is None else ParityResult(**parity), **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def altered_files(version: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the files of a version that are missing or differ from the manifest, sorted."""
    return tuple(
        name
        for name, entry in sorted(manifest.files.items())
        if not (version / name).is_file() or file_digest(version / name) != entry.sha256
    )
