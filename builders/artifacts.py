"""Artifact: what one step of a build made, as the store keeps it. Content-addressed files under a content-derived key.

`plan` computes keys and looks for artifacts; `pipeline` makes them; `store` keeps them; `assemble` puts versions
together from them. An artifact without parity is unproven: it could not be run where it was made.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import geometric_mean

from builders.digests import data_digest
from builders.manifest import FileEntry, OutputParity, Parity, parse_parity

__all__ = ["SOURCE", "Artifact", "CandidateResult", "OutputParity", "Parity", "parse_artifact", "toolchain_id"]

SCHEMA = 1

SOURCE = "plain"
"""The candidate that is the export as it is: what every other is compared with."""


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One way to make a target's artifact: seconds per call by batch size, parity, and why it was not taken."""

    name: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    min_cosine: float | None = None
    max_abs_error: float | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """`key` says what it was made from, `toolchain` with what; together they identify it. `target` is "" for an export.

    `failed` says why it can never be made from this by these tools (an operator that the compiler lacks, parity below
    tolerance): such a record has no files, and keeps the next build from trying again. `made` holds what is worth
    telling later: host, commands and the like.
    """

    key: str
    target: str
    toolchain: Mapping[str, str]
    files: Mapping[str, FileEntry]
    parity: Parity | None = None
    unproven: str = ""
    failed: str = ""
    chosen: str = ""
    candidates: tuple[CandidateResult, ...] = ()
    seconds: float = 0.0
    made: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """Digest of the toolchain: the artifact's name under its key."""
        return toolchain_id(self.toolchain)

    @property
    def total_bytes(self) -> int:
        """Size of all its files."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def speed_up(self) -> float | None:
        """How much faster than the plain fp32 graph, timed beside it: mean over the batch sizes; None if not timed."""
        seconds = {candidate.name: candidate.seconds for candidate in self.candidates}
        plain, own = seconds.get(SOURCE, {}), seconds.get(self.chosen, {})
        ratios = [plain[batch] / own[batch] for batch in own if batch in plain]
        return geometric_mean(ratios) if ratios else None

    def to_json(self) -> str:
        """Return the record's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def toolchain_id(toolchain: Mapping[str, str]) -> str:
    """Return the digest of tool versions by name."""
    return data_digest(dict(toolchain))


def parse_artifact(text: str | bytes) -> Artifact | None:
    """Return the artifact in a record's text, or None where it is none (written by another version, or damaged)."""
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            return None
        files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
        parity = parse_parity(data.pop("parity"))
        candidates = tuple(CandidateResult(**entry) for entry in data.pop("candidates"))
        return Artifact(files=files, parity=parity, candidates=candidates, **data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
