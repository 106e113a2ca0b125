"""Carries a build plan out: observe a package, plan, make its version in the staging folder, prove it, publish it.

The only module that joins the pure plan with the steps' code. Progress goes to a callback, so that the CLI can draw it.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from builders.digests import data_digest, file_digest, tree_digests
from builders.errors import ConfigError, SourceError
from builders.manifest import FileEntry, Manifest, ParityResult, altered_files, read_manifest, version_numbers
from builders.onnx import packed
from builders.pbtxt import parse_config
from builders.plan import (
    BuildPlan,
    CopyStage,
    ExportEncoder,
    ObservedPackage,
    ProveParity,
    Publish,
    PublishedVersion,
    Step,
    plan_build,
)
from builders.publish import publish, staging
from builders.sources.checkpoint import read_checkpoint
from builders.sources.distribution import locate, version_of
from builders.sources.stage import stage_files
from builders.spec import (
    CONFIG_FILENAME,
    BuildSpec,
    EnsembleSource,
    HuggingFaceEncoderSource,
    StageSource,
    read_spec,
)
from builders.validate import config_problems
from builders.verify import prove_parity, read_golden

_EXPORT_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a build is doing: `done` of `total` units of a step (both 0 where it cannot be counted)."""

    package: str
    step: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build ended with. `built` is False where the newest version was kept."""

    plan: BuildPlan
    manifest: Manifest
    path: Path
    built: bool
    seconds: float


@dataclass(slots=True)
class _Making:
    """State of one version while it is made."""

    spec: BuildSpec
    repository: Path
    observed: ObservedPackage
    plan: BuildPlan
    staged: Path
    report: Callable[[Progress], None]
    parity: ParityResult | None = field(default=None)

    @property
    def content(self) -> Path:
        return self.staged / "content"


def observe_package(repository: Path, package: str) -> ObservedPackage:
    """Return what a build of `package` would be made from now. Raises SpecError, SourceError or ConfigError."""
    folder = repository / package
    spec = read_spec(folder)
    _check_config(folder)
    sources = _digest_sources(spec, folder)
    tools = _EXPORT_TOOLS if isinstance(spec.source, HuggingFaceEncoderSource) else ()
    return ObservedPackage(spec, sources, {tool: version_of(tool) for tool in tools}, tuple(_published(folder)))


def build(repository: Path, package: str, report: Callable[[Progress], None] = lambda _progress: None) -> BuildResult:
    """Make sure that `package` has a version made from its present sources; return which.

    Raises BuildError; whatever it is, nothing is half-published. Killed at any instant, the next run starts clean.
    """
    started = time.monotonic()
    report(Progress(package, "observe"))
    kept = _up_to_date(repository, observe_package(repository, package), started)
    if kept is not None:
        return kept
    with staging(repository) as staged:
        observed = observe_package(repository, package)  # again: another build may have published while we waited
        kept = _up_to_date(repository, observed, started)
        if kept is not None:
            return kept
        plan = plan_build(observed)
        making = _Making(observed.spec, repository, observed, plan, staged, report)
        making.content.mkdir()
        for step in plan.steps:
            _execute(step, making)
        folder = repository / package
        if _digest_sources(read_spec(folder), folder) != observed.sources:
            raise SourceError(f"{folder}: a source changed while it was built; build again")
        manifest = _manifest(making)
        path = publish(staged, repository, manifest)
    return BuildResult(plan, manifest, path, built=True, seconds=time.monotonic() - started)


def _up_to_date(repository: Path, observed: ObservedPackage, started: float) -> BuildResult | None:
    """Return the newest version where it is what would be built. Needs no lock, so a read-only repository will do."""
    plan = plan_build(observed)
    path = repository / plan.package / str(plan.version)
    manifest = None if plan.steps else read_manifest(path)
    if manifest is None:
        return None
    return BuildResult(plan, manifest, path, built=False, seconds=time.monotonic() - started)


def _execute(step: Step, making: _Making) -> None:
    match step:
        case ExportEncoder(checkpoint=checkpoint, filename=filename):
            making.report(Progress(making.spec.name, "export"))
            packed.export_packed_encoder(read_checkpoint(locate(checkpoint)), making.content / filename)
        case ProveParity():
            making.parity = _prove(making, step)
        case CopyStage(source=source):
            making.report(Progress(making.spec.name, "copy"))
            _copy_stage(source, making.content)
        case Publish():
            making.report(Progress(making.spec.name, "publish"))
            shutil.copyfile(making.repository / making.spec.name / CONFIG_FILENAME, making.content / CONFIG_FILENAME)
        case other:
            assert_never(other)


def _prove(making: _Making, step: ProveParity) -> ParityResult:
    name = making.spec.name
    return prove_parity(
        making.content / step.filename,
        read_checkpoint(locate(step.checkpoint)),
        read_golden(making.repository / name / step.parity.golden),
        step.parity,
        lambda done, total: making.report(Progress(name, "prove parity", done, total)),
    )


def _copy_stage(source: StageSource, content: Path) -> None:
    for name, text in stage_files(source.stage).items():
        path = content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    for name, origin in source.files.items():
        shutil.copyfile(locate(origin), content / name)


def _manifest(making: _Making) -> Manifest:
    return Manifest(
        package=making.spec.name,
        version=making.plan.version,
        build_key=making.plan.build_key,
        licence=making.spec.licence,
        command=f"tritonfleet build {making.spec.name}",
        toolchain=making.observed.toolchain,
        sources=making.observed.sources,
        files={
            name: FileEntry(digest, (making.content / name).stat().st_size)
            for name, digest in tree_digests(making.content).items()
        },
        parity=making.parity,
    )


def _digest_sources(spec: BuildSpec, folder: Path) -> dict[str, str]:
    """Return the digest of everything a version is made from, by name. Raises SourceError."""
    try:
        return {
            "model.toml": data_digest(spec.model_dump(mode="json", exclude={"summary"})),
            CONFIG_FILENAME: file_digest(folder / CONFIG_FILENAME),
            **dict(_source_digests(spec, folder)),
        }
    except (OSError, ValueError) as exc:  # ValueError: a path that no file can have
        raise SourceError(f"{folder}: a source cannot be read: {exc}") from exc


def _source_digests(spec: BuildSpec, folder: Path) -> Iterator[tuple[str, str]]:
    match spec.source:
        case HuggingFaceEncoderSource(checkpoint=checkpoint, parity=parity):
            for name, digest in tree_digests(locate(checkpoint)).items():
                yield f"checkpoint/{name}", digest
            for module in (Path(packed.__file__), Path(packed.__file__).with_name("packed_module.py")):
                yield f"builders/onnx/{module.name}", file_digest(module)
            yield parity.golden, file_digest(folder / parity.golden)
        case StageSource(stage=stage, files=files):
            for name, content in stage_files(stage).items():
                yield f"stage/{name}", data_digest({"content": content.decode()})
            for name, origin in sorted(files.items()):
                yield f"files/{name}", file_digest(locate(origin))
        case EnsembleSource():
            return
        case other:
            assert_never(other)


def _check_config(folder: Path) -> None:
    """Refuse a config that Triton would refuse without saying why."""
    path = folder / CONFIG_FILENAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(str(path), "no such file; every package has a ModelConfig") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), f"cannot be read: {exc}") from exc
    problems = config_problems(parse_config(text, path=str(path)), package=folder.name)
    if problems:
        raise ConfigError(str(path), "; ".join(problems))


def _published(folder: Path) -> Iterator[PublishedVersion]:
    """Find what is published. Only the newest is held against its digests: no plan looks at another's content."""
    versions = version_numbers(folder)
    for version in versions:
        path = folder / str(version)
        manifest = read_manifest(path)
        if manifest is None:
            yield PublishedVersion(version)
        else:
            altered = altered_files(path, manifest) if version == versions[-1] else ()
            yield PublishedVersion(version, manifest.build_key, manifest.sources, altered)
