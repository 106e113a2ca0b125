"""Frozen state: what is desired, what is published, what was observed. Pure data, no behaviour but derived values.

`planning` compares these; `adapters` and `embedded` produce the observed half; `api` shows them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from builders.manifest import ManifestTarget
from builders.model_config import ModelConfig
from builders.targets import Precision
from control_plane.wanted import EVERYWHERE, Needs

ServerId = NewType("ServerId", str)
ModelName = NewType("ModelName", str)
DeploymentName = NewType("DeploymentName", str)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where one Triton listens, as `host:port` each (no scheme)."""

    http: str
    grpc: str
    metrics: str


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a GpuInstance (MIG slice) that a server runs on. `mig_profile` is empty for a whole GPU."""

    uuid: str
    product: str = ""
    compute_capability: str = ""
    memory_bytes: int = 0
    mig_profile: str = ""


DEFAULT_POOL = "default"


class Source(StrEnum):
    """Where a server comes from: who says that it is there, and so who can say that it is there no more."""

    EMBEDDED = "embedded"
    REGISTERED = "registered"
    FILE = "file"
    DISCOVERED = "discovered"


@dataclass(frozen=True, slots=True)
class Server:
    """One tritonserver process that the control plane may command.

    `admin_key` is the secret of its restricted APIs (header `triton-admin-key`; gRPC metadata
    `triton-grpc-protocol-admin-key`), or None where the server restricts nothing. It never appears in `repr`.

    The rest is what whoever registers it says of it: the compute capabilities of its GPUs ("8.9"; none on a CPU), its
    backends, and the versions of runtimes that do not come with its Triton, by name (`onnxruntime`, `tensorrt_rtx`).
    Which Triton it is, it says itself (`ObservedServer.triton_version`). `devices` are one MIG slice, or whole GPUs;
    none on a CPU. `memory_bytes` is what models may take of it, 0 where nobody said. `repository` is the folder that
    its versions are copied to; empty where it reads the model repository itself. `reserved_for` names the deployment
    that alone may be there, where its slice was cut for one. `source` is said by no one: it follows from how the server
    came here.
    """

    id: ServerId
    endpoints: Endpoints
    admin_key: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    backends: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    memory_bytes: int = 0
    pool: str = DEFAULT_POOL
    labels: Mapping[str, str] = field(default_factory=dict)
    repository: str = ""
    source: Source = Source.REGISTERED
    reserved_for: str = ""

    def __repr__(self) -> str:
        """Like the generated one, without the secret."""
        return f"Server(id={self.id!r}, endpoints={self.endpoints!r}, admin_key={'***' if self.admin_key else None})"


class ModelState(StrEnum):
    """State of one model version in Triton's repository index (Triton's own words)."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    UNLOADING = "UNLOADING"


NO_MODEL = ModelName("")
"""Stands for "none": the model of what is about a whole server."""

NO_VERSION = 0
"""Stands for "none", as in the record of an unload; Triton's versions begin at 1."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One model held at one version."""

    model: ModelName
    version: int


@dataclass(frozen=True, slots=True)
class ObservedModel:
    """One row of a server's repository index. `reason` is Triton's, empty where it gives none.

    `filename` is the file that a READY version was loaded from, as the config says that Triton runs it with
    (`default_model_filename`); empty where it says none, or Triton did not answer that. `instances` likewise is the sum
    of its instance groups' counts (0 where not known), and `generation` the number in its parameter GENERATION: a load
    with another one replaces what is ready and broken.

    `succeeded` and `failed` count inference requests since the model was loaded, as Triton's statistics have them.
    `backend` is the one that runs it; empty where Triton did not answer that.
    """

    name: ModelName
    version: int
    state: ModelState
    reason: str = ""
    filename: str = ""
    instances: int = 0
    generation: int = 0
    succeeded: int = 0
    failed: int = 0
    backend: str = ""


GENERATION = "tritonfleet_generation"
"""Parameter of a config that changes nothing but the config: Triton takes a load with another value for a reload."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that a model must answer, as KServe v2's JSON has its tensors.

    With `outputs` it is golden: these are the values to come back, within a small tolerance. Without, any answer of the
    model will do, a refusal of these inputs included; only a model that cannot answer at all fails it.
    """

    model: ModelName
    version: int
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of a probe. `broken` says in a sentence why the model serves nobody; empty where it works.

    `unsure` says why nothing can be told (the server did not answer, say); then `broken` is empty.
    """

    probe: Probe
    broken: str = ""
    unsure: str = ""


class ServerCondition(StrEnum):
    """What may be said of a server honestly. A draining one is healthy, and is to hold nothing any more."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"
    DRAINING = "draining"


ANSWERING = frozenset({ServerCondition.HEALTHY, ServerCondition.DRAINING})
"""Conditions of a server that can be commanded."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Why a server is to hold nothing: an operator drains it, or it was taken out because it kept failing."""

    server: ServerId
    reason: str
    at: datetime
    by_operator: bool = True


@dataclass(frozen=True, slots=True)
class ObservedServer:
    """What one server answered when it was last asked. `detail` says why it is not healthy.

    `triton_version` is the server's own ("2.51.0"), empty where it did not answer. `since` is when an unreachable
    server answered last, or was first asked. `lacks` are the backends that it said it does not have.

    `memory_used_bytes` is what it takes: of its own devices, or of the host where it has none and is ours; None where
    nobody tells. `memory_missing_bytes` did not come back after unloads and failed loads.
    """

    server: Server
    condition: ServerCondition
    models: tuple[ObservedModel, ...] = ()
    detail: str = ""
    triton_version: str = ""
    since: datetime | None = None
    lacks: frozenset[str] = frozenset()
    memory_used_bytes: int | None = None
    memory_missing_bytes: int = 0

    @property
    def backends(self) -> frozenset[str]:
        """Backends that it has: those that it was registered with, or shown by what runs, but for what it lacks."""
        shown = {row.backend for row in self.models if row.state is ModelState.READY and row.backend}
        return (self.server.backends | shown) - self.lacks

    @property
    def answers(self) -> bool:
        """Whether it can be commanded."""
        return self.condition in ANSWERING

    def ready_versions(self, model: ModelName) -> frozenset[int]:
        """Versions of `model` that are READY here."""
        return frozenset(row.version for row in self.models if row.name == model and row.state is ModelState.READY)

    def coming_versions(self, pin: Pin) -> frozenset[int]:
        """Versions that are LOADING here and will take the place of the pinned one."""
        loading = (row.version for row in self.rows_of(pin.model) if row.state is ModelState.LOADING)
        return frozenset(version for version in loading if version != pin.version)

    def ready_file(self, pin: Pin) -> str | None:
        """Return the file that the pinned version serves from: empty where not known, None where it is not READY."""
        rows = (row for row in self.rows_of(pin.model) if row.version == pin.version)
        return next((row.filename for row in rows if row.state is ModelState.READY), None)

    def rows_of(self, model: ModelName) -> tuple[ObservedModel, ...]:
        """Index rows of `model`, by version."""
        return tuple(sorted((row for row in self.models if row.name == model), key=lambda row: row.version))


@dataclass(frozen=True, slots=True)
class Track:
    """One version of a deployment's model with all that it needs pinned, and its share of the traffic in percent."""

    version: int | None
    pins: tuple[Pin, ...]
    share: int

    @property
    def pinned(self) -> int:
        """The version of the deployed model itself."""
        return self.pins[-1].version if self.pins else NO_VERSION


@dataclass(frozen=True, slots=True)
class Deployment:
    """What should serve: `model`, at versions that were chosen when it was written, where `needs` says.

    `pins` holds the model and every member below it, members before the ensembles that call them, so a version that is
    published later is not picked up by itself. `version` is what was asked for; None is "the newest at that time".
    Each rewrite raises `revision`.

    Of a version with several targets, each server gets the one that fits it: of the precision wished most
    (`precisions`, best first; none is the most precise), and one that was never run only with `allow_unproven`.

    `others` are further versions that get a share of the traffic each; `version` and `pins` have what is left of it.
    Two versions never share a server.
    """

    name: DeploymentName
    model: ModelName
    version: int | None
    pins: tuple[Pin, ...]
    revision: int
    created_at: datetime
    updated_at: datetime
    precisions: tuple[Precision, ...] = ()
    allow_unproven: bool = False
    others: tuple[Track, ...] = ()
    needs: Needs = EVERYWHERE

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Every version with its share of the traffic; the shares add up to 100."""
        rest = 100 - sum(track.share for track in self.others)
        return (Track(self.version, self.pins, rest), *self.others)

    @property
    def all_pins(self) -> tuple[Pin, ...]:
        """The pins of every track, each once."""
        return tuple(dict.fromkeys(pin for track in self.tracks for pin in track.pins))


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """A `config.pbtxt` as it was read. `problems` is why no server could load a model with it, in words.

    `config` is None where the file is missing or does not parse; `problems` then says so. `warnings` are what is wrong
    and does not keep it from being loaded.
    """

    config: ModelConfig | None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[ModelName, ...]:
        """Models an ensemble calls, sorted; empty for any other model."""
        return tuple(ModelName(name) for name in self.config.members) if self.config is not None else ()

    @property
    def is_ensemble(self) -> bool:
        """Whether this is known to be an ensemble."""
        return self.config is not None and self.config.is_ensemble


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One package of the model repository: its own config, which the next build takes, and its versions.

    A build puts the config it was made with into the version (`own`), so that an edit of the package changes nothing
    that serves. A version made by hand has none; it goes by the package's. `targets` are those of the versions that
    hold an artifact for each of several kinds of servers, by name; the others are the same everywhere. `unproven` are
    those of the latter that nobody could run yet, and why.
    """

    name: ModelName
    draft: PublishedConfig
    versions: tuple[int, ...] = ()
    own: Mapping[int, PublishedConfig] = field(default_factory=dict)
    targets: Mapping[int, Mapping[str, ManifestTarget]] = field(default_factory=dict)
    unproven: Mapping[int, str] = field(default_factory=dict)

    def at(self, version: int) -> PublishedConfig:
        """Return the config that `version` is served with."""
        return self.own.get(version, self.draft)

    @property
    def newest(self) -> int:
        """The newest version, NO_VERSION where nothing is built."""
        return max(self.versions, default=NO_VERSION)


@dataclass(frozen=True, slots=True)
class MeasuredLatency:
    """The least p99 that a version was measured to have on a slice ("" for a whole GPU) of a compute capability."""

    compute_capability: str
    mig_profile: str
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Published:
    """The model repository as it was read at one moment.

    `memory` is what an instance of a pinned version was measured to take of a server's memory, in bytes; `latencies`
    are those that were measured on GPUs.
    """

    models: Mapping[ModelName, PublishedModel] = field(default_factory=dict)
    memory: Mapping[Pin, int] = field(default_factory=dict)
    latencies: Mapping[Pin, tuple[MeasuredLatency, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[PublishedModel]:
        """Every package, by name."""
        return iter(self.models[name] for name in sorted(self.models))

    def get(self, name: ModelName) -> PublishedModel | None:
        """Return the package `name`, or None."""
        return self.models.get(name)

    def memory_of(self, pin: Pin, instances: int) -> int:
        """Return the memory that so many instances take; 0 where nobody measured it."""
        return self.memory.get(pin, 0) * instances

    def p99_ms_on(self, pin: Pin, compute_capability: str, mig_profile: str) -> float | None:
        """Return the least p99 that was measured on such a device; None where nobody measured it there."""
        found = self.latencies.get(pin, ())
        same = (it for it in found if (it.compute_capability, it.mig_profile) == (compute_capability, mig_profile))
        return min((it.p99_ms for it in same), default=None)

    def unproven_of(self, pin: Pin) -> str:
        """Return why a pinned version without targets is unproven; empty where it is not."""
        package = self.models.get(pin.model)
        return package.unproven.get(pin.version, "") if package is not None else ""

    def targets_of(self, pin: Pin) -> Mapping[str, ManifestTarget]:
        """Return the targets of a pinned version, by name; empty where it has none or is not here."""
        package = self.models.get(pin.model)
        return package.targets.get(pin.version, {}) if package is not None else {}


class Result(StrEnum):
    """How the last action on a model ended on a server."""

    LOADED = "loaded"
    UNLOADED = "unloaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """The last thing done with a model on a server, kept over restarts.

    `failures` counts in a row the loads that failed, or that did not last; the next one is not tried before `retry_at`.
    """

    server: ServerId
    model: ModelName
    version: int
    result: Result
    reason: str
    at: datetime
    failures: int = 0
    retry_at: datetime | None = None
