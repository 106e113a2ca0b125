"""The build plan of one package. Pure: from what is there and what was asked, the ordered steps and their reasons.

`observe` finds out what is there, `pipeline` carries out. Every step has a key, a digest of all it is made from; the
store is asked for what was made under that key before. A version has a key too: while the newest one has it and is as
it was published, there is nothing to do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from builders.artifacts import Artifact, toolchain_id
from builders.digests import data_digest
from builders.releases import version_parts
from builders.spec import BuildSpec, EnsembleSource, TargetSpec, TritonModelSource
from builders.targets import Host, Target, why_not_built_here, why_not_run_here

FORMAT = 1
"""Part of every version's key: to be raised when versions are put together in another way."""


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version found in the repository. `sources` is empty and `build_key` None where it has no readable manifest."""

    version: int
    build_key: str | None = None
    sources: Mapping[str, str] | None = None
    altered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedPackage:
    """What a build would be made from now, what this machine can, and what was made before.

    `sources` has the digest of every source by name, `recipes` those of our own code by runtime ("" for the export).
    `toolchains` likewise has tool versions. `export_lacks` is what this machine lacks to export at all. `artifacts` has
    what the store holds, by key. `config_differs`: the package's `config.pbtxt` is not the newest version's.
    """

    spec: BuildSpec
    sources: Mapping[str, str]
    recipes: Mapping[str, str] = field(default_factory=dict)
    toolchains: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    export_lacks: str | None = None
    host: Host = field(default_factory=Host)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    versions: tuple[PublishedVersion, ...] = ()
    config_differs: bool = False


@dataclass(frozen=True, slots=True)
class Cached:
    """Made before; nothing to do."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class ToDo:
    """To be made here; `reason` says why it is not cached."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Cannot be made here, and nobody has made it; `reason` is what this machine lacks."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Was tried with these tools and cannot be made by them."""

    reason: str


State = Cached | ToDo | Pending | Failed


@dataclass(frozen=True, slots=True)
class ExportStep:
    """Make what every target is made from: the ONNX forms of a graph, or the files of any other package."""

    key: str
    state: State
    toolchain: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TargetStep:
    """Make one target's artifact from the export. `unproven` is why it could not be run here, "" where it can."""

    spec: TargetSpec
    key: str
    state: State
    toolchain: Mapping[str, str]
    unproven: str
    others: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Steps in order. `version` is the one to publish or, where `publish` is None, the newest there is (0: none).

    `publish` is why a version is to be published. `missing` are targets that it lacks and why; where a required one
    is among them (`blocked`), it cannot be published.
    """

    package: str
    build_key: str
    version: int
    export: ExportStep | None
    targets: tuple[TargetStep, ...]
    publish: str | None
    missing: Mapping[str, str]
    blocked: tuple[str, ...]
    restore_config: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """What would be done, in order, as words; empty where all is done."""
        if self.publish is None:
            return ("restore config.pbtxt",) if self.restore_config else ()
        made = [f"build {step.spec.target}" for step in self.targets if isinstance(step.state, ToDo)]
        needed = self.export is not None and isinstance(self.export.state, ToDo)
        export = ["export"] if needed else []
        publish = [] if self.blocked else [f"publish {self.version}"]
        return (*export, *made, *publish)

    @property
    def reason(self) -> str:
        """Why a version is to be made, or that none is."""
        return self.publish or "up to date"


def plan_build(observed: ObservedPackage, make: frozenset[Target] | None = None) -> BuildPlan:
    """Return what has to be done for the package to have a version made from its present sources.

    `make` restricts the targets that are made; None: all that can be. A version is then published without the others.
    """
    if isinstance(observed.spec.source, TritonModelSource):
        return _plan_imported(observed)
    export = _export_held_back(plan_export(observed), make)
    planned = (_plan_target(observed, spec, export) for spec in observed.spec.graph_targets)
    targets = tuple(_held_back(step, make, observed.artifacts.get(step.key, ())) for step in planned)
    included = dict(_identities(export, targets))
    key = data_digest(
        {
            "format": FORMAT,
            "package": _package_digest(observed),
            "artifacts": {name: [*included[name]] for name in included},
        }
    )
    missing = {
        str(step.spec.target): _why_missing(step) for step in targets if not isinstance(step.state, Cached | ToDo)
    }
    nothing = len(missing) == len(targets)  # a version needs a target, even where none of them is required
    blocked = tuple(
        str(step.spec.target)
        for step in targets
        if (step.spec.required or nothing) and str(step.spec.target) in missing
    )
    if export is not None and isinstance(export.state, Pending | Failed):
        blocked = ("export", *blocked)
        missing = {"export": export.state.reason, **missing}
    newest = max(observed.versions, key=lambda published: published.version, default=None)
    why = _why_publish(newest, key, observed)
    version = 0 if newest is None else newest.version
    if why is None:
        return BuildPlan(
            observed.spec.name, key, version, None, targets, None, missing, (), restore_config=observed.config_differs
        )
    return BuildPlan(observed.spec.name, key, version + 1, export, targets, why, missing, blocked)


def _plan_imported(observed: ObservedPackage) -> BuildPlan:
    """Return a plan without steps: an imported package is complete as it was imported."""
    newest = max((published.version for published in observed.versions), default=0)
    missing = {} if newest else {"version": "an imported package has its versions from 'tritonfleet import' alone"}
    return BuildPlan(observed.spec.name, "", newest, None, (), None, missing, tuple(missing))


def _export_held_back(step: ExportStep | None, make: frozenset[Target] | None) -> ExportStep | None:
    """Hold an export back where nothing is to be made; one without tools is a copy of the package's own files."""
    if step is None or make is None or make or not step.toolchain or not isinstance(step.state, ToDo):
        return step
    return replace(step, state=Pending("not built yet"))


def _held_back(step: TargetStep, make: frozenset[Target] | None, stored: Sequence[Artifact]) -> TargetStep:
    """Hold back what is not to be made: what another builder made with its own tools will do then."""
    if make is None or step.spec.target in make or not isinstance(step.state, ToDo):
        return step
    made = _best(stored)
    return replace(step, state=Pending("not built yet") if made is None else Cached(made))


def export_key(observed: ObservedPackage) -> str:
    """Return the key of the package's export: what it is made from, tool versions aside."""
    spec = observed.spec
    asked = spec.model_dump(mode="json", include={"source", "inputs", "golden", "calibration"})
    batches = {"batch_sizes": spec.measure.batch_sizes, "max_batch_size": spec.max_batch_size}
    made_from = {name: digest for name, digest in observed.sources.items() if name not in _NOT_EXPORTED}
    return data_digest(
        {"asked": asked, **batches, "sources": made_from, "recipe": observed.recipes.get("", ""), "kind": "export"}
    )


_NOT_EXPORTED = {"model.toml", "config.pbtxt"}


def plan_export(observed: ObservedPackage) -> ExportStep | None:
    """Return the export's step; None for an ensemble, which has no files of its own."""
    if isinstance(observed.spec.source, EnsembleSource):
        return None
    key, toolchain = export_key(observed), observed.toolchains.get("", {})
    stored = observed.artifacts.get(key, ())
    state = _state(stored, toolchain, observed.export_lacks)
    # Targets are keyed by their export, so builders with unlike tools meet only over one that all of them take.
    made = _best(stored) if isinstance(state, ToDo) else None
    return ExportStep(key, state if made is None else Cached(made), toolchain)


def target_key(observed: ObservedPackage, spec: TargetSpec, export: ExportStep) -> str:
    """Return the key of a target's artifact: which export it is made from, and how."""
    made = export.state.artifact.id if isinstance(export.state, Cached) else toolchain_id(export.toolchain)
    asked = spec.model_dump(mode="json", exclude={"required", "config", "time_limit_s", "memory_limit_mib"})
    asked["tolerance"] = observed.spec.tolerance_of(spec).model_dump(mode="json")
    measured = observed.spec.measure.model_dump(mode="json")
    recipe = observed.recipes.get(spec.runtime, "")
    return data_digest({"export": [export.key, made], "asked": asked, "measure": measured, "recipe": recipe})


def _plan_target(observed: ObservedPackage, spec: TargetSpec, export: ExportStep | None) -> TargetStep:
    assert export is not None  # noqa: S101 - only packages with a graph have targets, and those have an export
    key, toolchain = target_key(observed, spec, export), observed.toolchains.get(spec.runtime, {})
    stored = observed.artifacts.get(key, ())
    unproven = why_not_run_here(spec.target, observed.host) or ""
    lacks = why_not_built_here(spec.target, observed.host)
    if lacks is None and isinstance(export.state, Pending | Failed):
        lacks = f"its export: {export.state.reason}"
    proven = tuple(artifact for artifact in stored if not artifact.failed and not artifact.unproven)
    # What this machine could not prove, another may have: that one is better than any made here.
    best = _best(proven)
    state = Cached(best) if unproven and best is not None else _state(stored, toolchain, lacks)
    if lacks is None and not unproven and isinstance(state, Cached) and state.artifact.unproven:
        state = ToDo(f"made where it could not be run ({state.artifact.unproven}); here it is proven and measured")
    others = _other_versions(stored, state) if spec.runtime == "tensorrt" else ()
    return TargetStep(spec, key, state, toolchain, unproven, others)


def _state(stored: Sequence[Artifact], toolchain: Mapping[str, str], lacks: str | None) -> State:
    """Return the state of a step for which `stored` was made before and which lacks `lacks` here."""
    own = next((artifact for artifact in stored if artifact.id == toolchain_id(toolchain)), None)
    made = _best(stored)
    if own is not None:
        if not own.failed:
            return Cached(own)
        return Failed(own.failed) if made is None else Cached(made)
    if lacks is None:
        others = sorted({_tools(artifact.toolchain) for artifact in stored})
        return ToDo(f"made with {'; '.join(others)} before, not with {_tools(toolchain)}" if others else "not made yet")
    return Pending(lacks) if made is None else Cached(made)


def _best(stored: Sequence[Artifact]) -> Artifact | None:
    """Return the artifact to take where none of this machine's tools is there: proven, of the newest tools."""

    def rank(artifact: Artifact) -> tuple[bool, list[tuple[str, list[int]]], str]:
        tools = [(name, list(version_parts(version))) for name, version in sorted(artifact.toolchain.items())]
        return not artifact.unproven, tools, artifact.id

    return max((artifact for artifact in stored if not artifact.failed), key=rank, default=None)


def _other_versions(stored: Sequence[Artifact], state: State) -> tuple[Artifact, ...]:
    """Engines of other TensorRT versions: they serve servers of other Triton releases."""
    kept = state.artifact.id if isinstance(state, Cached) else None
    return tuple(artifact for artifact in stored if not artifact.failed and artifact.id != kept)


def _identities(export: ExportStep | None, targets: Sequence[TargetStep]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and identity of everything a version would hold, whether it is made already or to be made."""
    if export is not None and isinstance(export.state, Cached | ToDo):
        yield "", (export.key, _id(export.state, export.toolchain))
    for step in targets:
        if isinstance(step.state, Cached | ToDo):
            ids = sorted(artifact.id for artifact in step.others)
            unproven = step.state.artifact.unproven if isinstance(step.state, Cached) else step.unproven
            proof = "unproven" if unproven else "proven"
            yield str(step.spec.target), (step.key, _id(step.state, step.toolchain), proof, *ids)


def _id(state: State, toolchain: Mapping[str, str]) -> str:
    return state.artifact.id if isinstance(state, Cached) else toolchain_id(toolchain)


def _package_digest(observed: ObservedPackage) -> str:
    """Digest of what reaches a version beside its artifacts: the spec (which makes the config), a config of its own."""
    config = observed.sources.get("config.pbtxt", "")
    spec = observed.spec.model_dump(mode="json", exclude={"summary"})
    return data_digest({"spec": spec, "config": config})


def _why_missing(step: TargetStep) -> str:
    return step.state.reason if isinstance(step.state, Pending | Failed) else ""


def _tools(toolchain: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(toolchain.items())) or "no tools"


def _why_publish(newest: PublishedVersion | None, key: str, observed: ObservedPackage) -> str | None:
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
    return f"changed: {', '.join(changed)}" if changed else "other artifacts or tools"
