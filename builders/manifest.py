"""Manifest: what one published version consists of and how it came to be. Read and written as `manifest.json`.

`plan` reads it; `publish` writes it last, so a version with a manifest is a whole one. `artifacts` has what a target's
part is made of; `selection` decides with `targets` which server may load which of them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from builders.digests import file_digest

MANIFEST_FILENAME = "manifest.json"
SIGNATURE_FILENAME = "signature.json"
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a version."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class OutputParity:
    """How far one output tensor is from the source's over all cases.

    `top1` is the share of items whose largest element agrees, where that means something (an output of classes).
    """

    max_abs_error: float
    mean_abs_error: float
    min_cosine: float
    top1: float | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """Proof that an artifact gives its source's answers: per output, over `items` items of `cases` cases.

    `score` is the golden set's own score of the artifact (accuracy against its labels), `source_score` the source's.
    """

    cases: int
    items: int
    outputs: Mapping[str, OutputParity]
    score: float | None = None
    source_score: float | None = None

    @property
    def min_cosine(self) -> float:
        """The lowest cosine of all outputs."""
        return min((output.min_cosine for output in self.outputs.values()), default=1.0)

    @property
    def max_abs_error(self) -> float:
        """The largest error of all outputs."""
        return max((output.max_abs_error for output in self.outputs.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class ManifestTarget:
    """One target of a version: the file Triton opens, the config that serves it, and whether it is proven.

    `unproven` is why it could not be run where it was built; such an artifact is loaded only where a deployment allows
    it. `options` decide where it can be loaded: the compiler's (`version_compatible`, `hardware_compatible`), or the
    graph's `opset` and `ir_version`. `form` and `tolerance` are what it is proven with.
    """

    filename: str
    config: str
    toolchain: Mapping[str, str]
    chosen: str = ""
    parity: Parity | None = None
    unproven: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    form: str = "model"
    tolerance: Mapping[str, float] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether it has been run and held against its source."""
        return not self.unproven


@dataclass(frozen=True, slots=True)
class Manifest:
    """`build_key` is the digest of everything the version was made from: equal keys, equal version.

    `targets` is empty for a package without a graph: its files serve on every device. `missing` are targets that the
    package names and the version lacks, and why. `export` is the `key` and `id` of the export it was made from, whose
    reference sets stay in the artifact store. `unproven` is why a version without targets could not be run where it was
    built; that of a target is its own. `toolchain` has every tool of the export and the targets; where they were made
    with several versions of one, all of these, with commas between them.
    """

    package: str
    version: int
    build_key: str
    licence: str
    command: str
    summary: str = ""
    toolchain: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    targets: Mapping[str, ManifestTarget] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    export: Mapping[str, str] = field(default_factory=dict)
    unproven: str = ""
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
        if data["schema"] != SCHEMA:
            return None
        files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
        targets = {name: _target(entry) for name, entry in data.pop("targets").items()}
        return Manifest(files=files, targets=targets, **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def parse_parity(data: Any) -> Parity | None:  # noqa: ANN401 - parsed JSON
    """Return the Parity in parsed JSON; None stays None. Raises TypeError, KeyError or AttributeError otherwise."""
    if data is None:
        return None
    outputs = {name: OutputParity(**entry) for name, entry in data["outputs"].items()}
    return Parity(**{**data, "outputs": outputs})


def _target(data: Mapping[str, Any]) -> ManifestTarget:
    return ManifestTarget(**{**data, "parity": parse_parity(data["parity"])})


def altered_files(version: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the files of a version that are missing or differ from the manifest, sorted."""
    return tuple(
        name
        for name, entry in sorted(manifest.files.items())
        if not (version / name).is_file() or file_digest(version / name) != entry.sha256
    )
