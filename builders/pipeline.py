"""Carries a build plan out: export, one artifact for each target, a version assembled from them, published.

The only module that joins the pure plan with the steps' code. Everything made goes into the artifact store at once, so
a build that is killed goes on from there. Progress goes to a callback, so that the CLI can draw it.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builders.artifacts import Artifact
from builders.assemble import Assembly, assemble, target_config
from builders.digests import tree_digests
from builders.errors import BuildError, MachineError, MissingTargetError, SourceError, TargetError
from builders.exporting import write_export
from builders.forms import load_forms
from builders.making import Made, Making, form_name, make_artifact
from builders.manifest import Manifest, read_manifest
from builders.observe import observe_package
from builders.parity import Run
from builders.plan import BuildPlan, Cached, ExportStep, ObservedPackage, TargetStep, ToDo, plan_build
from builders.publish import logs_folder, publish, restore_config, staging, timing_cache_folder
from builders.store.artifacts import ArtifactStore, default_store
from builders.store.errors import DamagedArtifactError, StoreError
from builders.store.objects import open_objects
from builders.targets import Target

if TYPE_CHECKING:
    from builders.supply_chain.keys import PublicKey

ReportBuild = Callable[["Progress"], None]
TargetErrors = tuple[tuple[str, BuildError], ...]
"""Targets that could not be made, and why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a build is doing: `done` of `total` units of a step (both 0 where it cannot be counted)."""

    package: str
    step: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build ended with. `made` are the steps carried out, `errors` why targets could not be made.

    `manifest` and `path` are those of the version published now or kept, None where there is none that serves.
    """

    plan: BuildPlan
    manifest: Manifest | None
    path: Path | None
    built: bool
    seconds: float
    made: tuple[str, ...] = ()
    errors: TargetErrors = ()


@dataclass(frozen=True, slots=True)
class Builder:
    """Where versions go and artifacts come from.

    `sign` signs a version's folder before it is published. `engine_runner` returns what runs a TensorRT engine on this
    machine's GPU. An artifact that an attestation under the key `trusted` proves counts as proven.
    """

    repository: Path
    store: ArtifactStore
    report: ReportBuild = field(default=lambda _progress: None)
    sign: Callable[[Path], None] | None = None
    engine_runner: Callable[[Path], Run] | None = None
    trusted: "PublicKey | None" = None

    def observe(self, package: str) -> ObservedPackage:
        """Return what a build of `package` would be made from now. Raises BuildError."""
        return observe_package(self.repository, package, self.store, self.trusted)


def builder_of(repository: Path, store: str | None = None) -> Builder:
    """Return a Builder with the store at the address `store`, beside the repository where none is given."""
    return Builder(repository, ArtifactStore(open_objects(store or default_store(repository))))


def build(
    builder: Builder, package: str, make: frozenset[Target] | None = None, *, release: bool = True
) -> BuildResult:
    """Make what this machine can of `package`, and publish a version of it where nothing that is required is missing.

    `make` restricts the targets; without `release` nothing is published. A target that cannot be made does not keep the
    others from it: its error is in the result. Raises BuildError for all else; whatever it is, nothing is
    half-published. Killed at any instant, the next run goes on from what is in the store.
    """
    started = time.monotonic()
    try:
        return _build(builder, package, make, started, release=release)
    except DamagedArtifactError:
        if make == frozenset() or not _discard_damaged(builder, package):
            raise
    return _build(builder, package, make, started, release=release)


def _build(
    builder: Builder, package: str, make: frozenset[Target] | None, started: float, *, release: bool
) -> BuildResult:
    builder.report(Progress(package, "observe"))
    plan = plan_build(builder.observe(package), make)
    if not plan.steps:  # needs no lock, so a read-only repository will do
        return _result(builder, plan, started)
    with staging(builder.repository) as staged:
        builder.store.objects.sweep()
        work = _Work(builder, package, staged)
        observed = builder.observe(package)  # another build may have been faster
        made, errors = work.make(observed, plan_build(observed, make), wants_export=release)
        again = builder.observe(package)
        if again.sources != observed.sources:
            raise SourceError(f"{builder.repository / package}: a source changed while it was built; build again")
        plan = _with_reasons(plan_build(again, frozenset()), errors)  # what could not be made now is missing from it
        if release and plan.publish and not plan.blocked:
            work.publish(again, plan)
            return _result(builder, plan, started, (*made, f"publish {plan.version}"), errors, built=True)
        if plan.restore_config:
            restore_config(builder.repository / package, plan.version, staged)
    return _result(builder, plan, started, made, errors)


def _with_reasons(plan: BuildPlan, errors: TargetErrors) -> BuildPlan:
    """Return the plan with what just went wrong as the reason why a target is missing."""
    return replace(plan, missing={**plan.missing, **{target: str(error) for target, error in errors}})


def _discard_damaged(builder: Builder, package: str) -> bool:
    """Remove what the store does not hold as it was recorded, so that it is made again; return whether anything was."""
    stored = [artifact for found in builder.observe(package).artifacts.values() for artifact in found]
    damaged = [artifact for artifact in stored if builder.store.damaged(artifact)]
    for artifact in damaged:
        builder.report(Progress(package, f"discard the damaged {artifact.target or 'export'}"))
        builder.store.discard(artifact)
    return bool(damaged)


def publish_package(builder: Builder, package: str) -> BuildResult:
    """Publish a version of `package` from what is in the store; make nothing.

    Raises MissingTargetError where a required target is missing, and BuildError for all else.
    """
    result = build(builder, package, frozenset())
    blocked = result.plan.blocked
    if blocked:
        reasons = "; ".join(f"{name}: {result.plan.missing[name]}" for name in blocked)
        raise MissingTargetError(f"{package} cannot be published, since what it requires is missing: {reasons}")
    return result


def _result(
    builder: Builder,
    plan: BuildPlan,
    started: float,
    made: tuple[str, ...] = (),
    errors: TargetErrors = (),
    *,
    built: bool = False,
) -> BuildResult:
    serves = plan.version if built or plan.publish is None else 0
    path = builder.repository / plan.package / str(serves) if serves else None
    manifest = None if path is None else read_manifest(path)
    return BuildResult(plan, manifest, path, built, time.monotonic() - started, made, errors)


@dataclass(frozen=True, slots=True)
class _Work:
    """One build of one package, in its staging folder."""

    builder: Builder
    package: str
    staged: Path

    def make(
        self, observed: ObservedPackage, plan: BuildPlan, *, wants_export: bool
    ) -> tuple[tuple[str, ...], TargetErrors]:
        """Carry the plan's export and targets out; return what was made, and why targets could not be."""
        made: list[str] = []
        errors: list[tuple[str, BuildError]] = []
        to_do = [step for step in plan.targets if isinstance(step.state, ToDo)]
        export = plan.export
        wanted = wants_export or not plan.targets  # an export is all there is to make of a package without targets
        if export is None or not (to_do or (wanted and plan.publish and isinstance(export.state, ToDo))):
            return (), ()
        folder = self._folder("export")
        if isinstance(export.state, ToDo):
            self._export(observed, export, folder)
            made.append("export")
        elif to_do and isinstance(export.state, Cached):
            self._report("fetch the export")
            self.builder.store.fetch(export.state.artifact, folder)
        if to_do:
            self._check_configs(observed, plan, folder)
        for step in to_do:
            try:
                self._target(observed, step, folder)
            except StoreError:  # without a store there is nothing that could be made
                raise
            except BuildError as exc:
                errors.append((str(step.spec.target), exc))
            else:
                made.append(f"build {step.spec.target}")
        return tuple(made), tuple(errors)

    def publish(self, observed: ObservedPackage, plan: BuildPlan) -> None:
        """Assemble the plan's version and rename it into the repository."""
        self._report("publish")
        content, folder = self._folder("content"), self.builder.repository / self.package
        assembly = Assembly(observed, plan, self.builder.store, folder, content, self._folder("assembly"))
        publish(self.staged, self.builder.repository, assemble(assembly), self.builder.sign)
        if plan.targets:
            restore_config(folder, plan.version, self.staged)

    def _export(self, observed: ObservedPackage, export: ExportStep, folder: Path) -> None:
        started = time.monotonic()
        write_export(observed.spec, self.builder.repository / self.package, folder, self._report)
        files = self.builder.store.add_files(folder, tree_digests(folder))
        seconds = time.monotonic() - started
        self.builder.store.add(Artifact(export.key, "", export.toolchain, files, seconds=seconds))

    def _check_configs(self, observed: ObservedPackage, plan: BuildPlan, export: Path) -> None:
        """Raise ConfigError where the overrides of any target are wrong: told before minutes are spent, not after."""
        forms = load_forms(export)
        for step in plan.targets:
            form = forms[form_name(step, tuple(forms))]
            target_config(observed.spec, step, form, str(step.spec.target), export)

    def _target(self, observed: ObservedPackage, step: TargetStep, export: Path) -> None:
        """Make one target's artifact. That it cannot be made is recorded too, so that it is not tried again."""
        started = time.monotonic()
        target, store = str(step.spec.target), self.builder.store
        work, forms = self._folder(target), load_forms(export)
        form = forms[form_name(step, tuple(forms))]

        def report(doing: str, done: int, total: int) -> None:
            self._report(f"{target}: {doing}", done, total)

        timings = timing_cache_folder(self.builder.repository)
        try:
            made = make_artifact(
                Making(observed.spec, step, export, form, work, report, timings, self.builder.engine_runner)
            )
        except (TargetError, MachineError) as exc:
            told = type(exc)(self._with_kept_log(str(exc), work, target))
            if isinstance(told, TargetError):
                store.add(Artifact(step.key, target, step.toolchain, {}, failed=str(told)))
            raise told from exc
        else:
            store.add(_artifact(step, made, work, store, observed.host.cpu, time.monotonic() - started))
        finally:
            shutil.rmtree(work)  # candidates are as large as the model, and there are many

    def _with_kept_log(self, told: str, work: Path, target: str) -> str:
        """Keep a compiler's log where the user finds it; return `told` naming that place instead of the working one."""
        log = next(iter(work.glob("*.log")), None)
        if log is None:
            return told
        kept = logs_folder(self.builder.repository) / f"{self.package}-{target}.log"
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, kept)
        return told.replace(str(log), str(kept)) if str(log) in told else f"{told} (whole log: {kept})"

    def _folder(self, name: str) -> Path:
        folder = self.staged / name
        folder.mkdir()
        return folder

    def _report(self, step: str, done: int = 0, total: int = 0) -> None:
        self.builder.report(Progress(self.package, step, done, total))


def _artifact(step: TargetStep, made: Made, work: Path, store: ArtifactStore, cpu: str, seconds: float) -> Artifact:
    return Artifact(
        step.key,
        str(step.spec.target),
        step.toolchain,
        store.add_files(work, made.files),
        parity=made.parity,
        unproven=made.unproven,
        chosen=made.chosen,
        candidates=made.candidates,
        seconds=seconds,
        made={**made.made, "cpu": cpu},
    )
