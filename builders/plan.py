"""The build plan of one package. Pure: from what is there and what was asked, the ordered steps and their reason.

`pipeline` observes and carries out. A version is identified by its build key, a digest of everything it is made from;
while the newest version has that key and is as it was published, there is nothing to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from builders.digests import data_digest
from builders.spec import (
    BuildSpec,
    DistributionFile,
    EnsembleSource,
    HuggingFaceEncoderSource,
    Parity,
    StageSource,
)


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version found in the repository. `sources` is empty and `build_key` None where it has no readable manifest."""

    version: int
    build_key: str | None = None
    sources: Mapping[str, str] | None = None
    altered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedPackage:
    """What a build would be made from now: digests of every source by name, tool versions, and what is published."""

    spec: BuildSpec
    sources: Mapping[str, str]
    toolchain: Mapping[str, str]
    versions: tuple[PublishedVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportEncoder:
    """Export the checkpoint to one ONNX file of the version."""

    checkpoint: DistributionFile
    filename: str = "model.onnx"


@dataclass(frozen=True, slots=True)
class ProveParity:
    """Compare the exported file with the PyTorch original on the golden set."""

    checkpoint: DistributionFile
    parity: Parity
    filename: str = "model.onnx"


@dataclass(frozen=True, slots=True)
class CopyStage:
    """Copy a stage's modules, its entry point and its files into the version."""

    source: StageSource


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the manifest and rename the version into the repository."""

    version: int


Step = ExportEncoder | ProveParity | CopyStage | Publish


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Steps in order; none where the newest version is what would be built. `version` is the one made or kept."""

    package: str
    build_key: str
    version: int
    steps: tuple[Step, ...]
    reason: str


def plan_build(observed: ObservedPackage) -> BuildPlan:
    """Return what has to be done for the package to have a version made from its present sources."""
    key = build_key(observed)
    newest = max(observed.versions, key=lambda published: published.version, default=None)
    reason = _why_not(newest, key, observed)
    if newest is not None and reason is None:
        return BuildPlan(observed.spec.name, key, newest.version, (), "up to date")
    version = 1 if newest is None else newest.version + 1
    steps = (*_making(observed.spec), Publish(version))
    return BuildPlan(observed.spec.name, key, version, steps, reason or "no version yet")


def build_key(observed: ObservedPackage) -> str:
    """Return the digest of everything a version is made from."""
    return data_digest({"sources": dict(observed.sources), "toolchain": dict(observed.toolchain)})


def _making(spec: BuildSpec) -> tuple[Step, ...]:
    match spec.source:
        case HuggingFaceEncoderSource(checkpoint=checkpoint, parity=parity):
            return (ExportEncoder(checkpoint), ProveParity(checkpoint, parity))
        case StageSource() as source:
            return (CopyStage(source),)
        case EnsembleSource():
            return ()
        case other:
            assert_never(other)


def _why_not(newest: PublishedVersion | None, key: str, observed: ObservedPackage) -> str | None:
    """Why the newest version does not serve; None where it does."""
    if newest is None:
        return "no version yet"
    if newest.build_key is None or newest.sources is None:
        return f"version {newest.version} has no manifest"
    if newest.altered:
        return f"version {newest.version} was altered after it was published: {', '.join(newest.altered)}"
    if newest.build_key == key:
        return None
    before, now = newest.sources, observed.sources
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return f"changed: {', '.join(changed)}" if changed else "another toolchain"
