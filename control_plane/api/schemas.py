"""The bodies of the REST API. Pydantic, strict, refusing unknown fields. `views` fills the answers in."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from builders.targets import Precision
from control_plane.api.wanted_schemas import MOST_INSTANCES, MOST_REPLICAS, NAME, WantedBody
from control_plane.error_kinds import ErrorKind
from control_plane.operations import OperationKind, OperationState, StepAction, StepState
from control_plane.planning import DeploymentState
from control_plane.state import ModelState, ServerCondition, Source

DEPLOYMENT_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
LARGEST_VERSION = 2**31 - 1


def _different(precisions: list[Precision]) -> list[Precision]:
    if len(set(precisions)) < len(precisions):
        raise ValueError("a precision is named twice")
    return precisions


Precisions = Annotated[
    list[Precision],
    AfterValidator(_different),
    Field(max_length=5, description="Precisions that will do, best first; none is each version's most precise."),
]
AllowUnproven = Annotated[bool, Field(description="Whether artifacts that were never run may be loaded.")]


class Body(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)


Version = Annotated[int, Field(ge=1, le=LARGEST_VERSION)]


class VersionShare(Body):
    """A version (null: the newest that is published now) and its share of the traffic, in percent."""

    version: Version | None = None
    share: Annotated[int, Field(ge=1, le=100)] = 100


def _whole(versions: list[VersionShare]) -> list[VersionShare]:
    if sum(it.share for it in versions) != 100:  # noqa: PLR2004 - percent
        raise ValueError("the shares do not add up to 100")
    if len({it.version for it in versions}) < len(versions):
        raise ValueError("a version is named twice")
    return versions


Versions = (
    Annotated[
        list[VersionShare],
        Field(min_length=1, max_length=8, description="Several versions at once, each on servers of its own."),
        AfterValidator(_whole),
    ]
    | None
)


class NewDeployment(WantedBody):
    """What should serve. Left out, `version` is the newest one that is published now; later ones are not picked up."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "embeddings", "model": "text_embedding"},
                {
                    "name": "embeddings",
                    "model": "text_embedding",
                    "replicas": {"min": 2},
                    "instances": 2,
                    "owner": "search",
                },
            ]
        },
    )

    name: Annotated[str, Field(pattern=DEPLOYMENT_NAME)]
    model: Annotated[str, Field(pattern=MODEL_NAME)]
    version: Version | None = None
    versions: Versions = None
    precisions: Precisions = Field(default_factory=list)
    allow_unproven: AllowUnproven = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.version is not None and self.versions is not None:
            raise ValueError("give version or versions, not both")
        return self


class Redeployment(WantedBody):
    """What changes with a redeploy beside the versions. What is left out, or null, stays as it is."""

    precisions: Precisions | None = None
    allow_unproven: AllowUnproven | None = None


class DeploymentPatch(Redeployment):
    """What changes. Versions are pinned anew only where they are given; what is left out, or null, stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"replicas": {"min": 3}, "priority": 10}]})

    versions: Versions = None


class Scale(Body):
    """How many replicas, how many instances on each; what is left out, or null, stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instances": 4}]})

    replicas: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] | None = None
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.replicas is None and self.instances is None:
            raise ValueError("give replicas, instances or both")
        return self


class Rollback(Body):
    """The revision to return to; null is the one before the present one."""

    revision: Annotated[int, Field(ge=1, le=LARGEST_VERSION)] | None = None


class PinBody(Body):
    """A model held at one version."""

    model: str
    version: int


class ModelOnServer(Body):
    """A pinned model on one server: Triton's own state and reason. `state` is null where its index has no such row.

    `target` is the one of the version's targets that serves; empty where none does, or the version has none.
    """

    model: str
    version: int
    state: ModelState | None
    reason: str
    target: str


class DeploymentOnServer(Body):
    """How far one server is; `reason` is empty when it serves."""

    server: str
    state: DeploymentState
    reason: str
    models: list[ModelOnServer]


class DeploymentStatusBody(Body):
    """How far all servers are; `reasons` are those that concern all of them."""

    state: DeploymentState
    reasons: list[str]
    servers: list[DeploymentOnServer]


class TrackBody(Body):
    """One of the versions: what was asked for (null: the newest then), its pins, its percentage of the traffic."""

    version: int | None
    share: int
    pins: list[PinBody]


class RevisionBody(Body):
    """A deployment as it was written once, with the versions it was pinned to (members first)."""

    name: str
    model: str
    version: int | None
    pins: list[PinBody]
    others: list[TrackBody]
    precisions: list[Precision]
    allow_unproven: bool
    needs: WantedBody
    revision: int
    created_at: datetime
    updated_at: datetime


class DeploymentBody(RevisionBody):
    """A deployment and where it stands."""

    status: DeploymentStatusBody


class DeploymentList(Body):
    """Deployments, by name. `next` is what to give as `after` for the rest; null where there is none."""

    deployments: list[DeploymentBody]
    next: str | None = None


class RevisionList(Body):
    """Every revision of a deployment that is kept, the newest first."""

    revisions: list[RevisionBody]


class EndpointBody(Body):
    """A server that serves a version now, and the part of the traffic that it should get (all together 1)."""

    server: str
    http: str
    grpc: str
    deployment: str
    version: int
    weight: float


class EndpointList(Body):
    """Where clients of a model are to go, as the control plane saw it last."""

    model: str
    endpoints: list[EndpointBody]


class ReplicaExplained(Body):
    """A replica and why it is where it is; `state` and `reason` are those of the server's status."""

    server: str
    version: int
    why_here: str
    state: DeploymentState
    reason: str


class Explanation(Body):
    """A deployment in words: its replicas, what has no place and why, what waits and why."""

    deployment: str
    summary: str
    replicas: list[ReplicaExplained]
    missing: list[str]
    waiting: list[str]


class Released(Body):
    """A deployment that is gone, and the models that only it needed which some server still holds."""

    name: str
    still_loaded: list[str]


class EndpointsBody(Body):
    """Where a server listens, as host:port."""

    http: str
    grpc: str
    metrics: str


class ModelRow(Body):
    """One row of a server's repository index. `instances` is 0 where it is not known."""

    name: str
    version: int
    state: ModelState
    reason: str
    instances: int


class DeviceBody(Body):
    """A GPU or a MIG slice; `mig_profile` is empty for a whole GPU."""

    uuid: Annotated[str, Field(min_length=1, max_length=128)]
    product: Annotated[str, Field(max_length=128)] = ""
    compute_capability: Annotated[str, Field(pattern=r"^(\d{1,2}\.\d)?$")] = ""
    memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    mig_profile: Annotated[str, Field(pattern=r"^[a-z0-9.+]{0,32}$")] = ""


_Address = Annotated[str, Field(pattern=r"^[^\s/:]+:\d{1,5}$|^\[[0-9A-Fa-f:.]+\]:\d{1,5}$", max_length=300)]
_Word = Annotated[str, Field(pattern=NAME)]


class NewServer(Body):
    """A Triton to command. It must be the control plane's own: what no deployment needs is unloaded from it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "gpu-7", "grpc": "10.0.0.7:8001", "http": "10.0.0.7:8000", "metrics": "10.0.0.7:8002"}]
        }
    )

    id: _Word
    grpc: _Address
    http: _Address
    metrics: _Address
    admin_key: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    backends: Annotated[list[_Word], Field(max_length=64)] = ["python", "onnxruntime"]
    devices: Annotated[list[DeviceBody], Field(max_length=64)] = []
    memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    repository: Annotated[str, Field(max_length=4096, pattern=r"^(/.*)?$")] = Field(
        default="",
        description="Folder of this machine that the server loads from, to which versions are copied; empty where it "
        "reads the model repository itself.",
    )
    pool: _Word = "default"
    labels: Annotated[dict[_Word, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = {}

    @model_validator(mode="after")
    def _one_slice(self) -> Self:
        slices = [device for device in self.devices if device.mig_profile]
        if slices and len(self.devices) > 1:
            raise ValueError("a tritonserver sees one MIG slice, or whole GPUs: give one slice and nothing else")
        return self


class DrainBody(Body):
    """Why a server is drained."""

    reason: Annotated[str, Field(max_length=500)] = "an operator drains it"


class ServerBody(Body):
    """A server as it was last observed; `detail` says why it is not healthy, `since` since when it is unreachable.

    `source` is where it comes from: started here, registered through the API, named by the servers file, or one of the
    addresses of a DNS name in that file. Only a registered one can be forgotten through the API.

    `quarantined` are models that are not loaded there any more, and why. `backends` are those that it was registered
    with or runs something by, without those that it said it `lacks`. `memory_used_bytes` is null where nobody tells;
    `memory_missing_bytes` did not come back after unloads and failed loads.
    """

    id: str
    source: Source
    condition: ServerCondition
    detail: str
    since: datetime | None
    pool: str
    labels: dict[str, str]
    devices: list[DeviceBody]
    memory_bytes: int
    memory_used_bytes: int | None
    memory_missing_bytes: int
    backends: list[str]
    lacks: list[str]
    triton_version: str
    endpoints: EndpointsBody
    models: list[ModelRow]
    quarantined: dict[str, str]


class ServerList(Body):
    """Every server. `observed_at` is null until the first look ended.

    `problems` is what is wrong with the servers file and the DNS names in it; what was found last holds meanwhile.
    """

    observed_at: datetime | None
    servers: list[ServerBody]
    problems: list[str]


class StepBody(Body):
    """One thing on one server. `cause` is Triton's own reason, or the log's; it stays while the step is tried again."""

    number: int
    server: str
    model: str
    version: int
    action: StepAction
    reason: str
    state: StepState
    attempts: int
    cause: str
    error_kind: ErrorKind | None
    started_at: datetime | None
    ended_at: datetime | None
    retry_at: datetime | None


class OperationBody(Body):
    """A change: what was asked for, or found necessary (`heal`), and what became of each step."""

    id: str
    kind: OperationKind
    deployment: str
    revision: int
    server: str
    state: OperationState
    cause: str
    cancel_asked: bool
    created_at: datetime
    updated_at: datetime
    steps: list[StepBody]


class OperationList(Body):
    """Operations, the newest first. `next` is what to give as `before` for the rest; null where there is none."""

    operations: list[OperationBody]
    next: str | None


class TensorBody(Body):
    """An input or output, as the model's config has it."""

    name: str
    data_type: str
    dims: list[int]


class ReadyOn(Body):
    """A version that a server has ready, and from which of its targets, where it has any and is deployed."""

    server: str
    version: int
    target: str


class ModelBody(Body):
    """A package of the model repository, as the version that is deployed has it, else the newest.

    `problems` is why no server could load that version, or one built from the package as it is now; empty when nothing
    is wrong. `warnings` are what does not keep it from being loaded.
    """

    name: str
    backend: str
    versions: list[int]
    members: list[str]
    inputs: list[TensorBody]
    outputs: list[TensorBody]
    problems: list[str]
    warnings: list[str]
    ready_on: list[ReadyOn]
    deployments: list[str]


class ModelList(Body):
    """Every package, by name."""

    models: list[ModelBody]


ActionKind = Literal["load", "reload", "scale", "unload", "restart"]


class ActionBody(Body):
    """One step on one server; a lower `stage` comes first, the same stage is independent.

    A `reload` replaces what is ready by one load, and `scale` changes its instances in place. Only loads have a
    version; `target` is the one to load, empty where the version has none. A `restart` has no model.
    """

    kind: ActionKind
    server: str
    model: str
    version: int | None
    target: str
    stage: int
    reason: str


class WaitingBody(Body):
    """A model that is left alone for now, and why."""

    server: str
    model: str
    reason: str


class InfeasibleBody(Body):
    """A deployment that cannot be carried out, and why."""

    deployment: str
    reasons: list[str]


class AssignmentBody(Body):
    """A replica of a deployment on a server, and why there."""

    server: str
    deployment: str
    reason: str


class PlanBody(Body):
    """What the loop would do now, and where every replica is to be."""

    actions: list[ActionBody]
    waiting: list[WaitingBody]
    infeasible: list[InfeasibleBody]
    placement: list[AssignmentBody]


class RehearsalBody(Body):
    """What a change would come to, and nothing was changed. `deployment` is as it would be stored, if it would be."""

    dry_run: Literal[True] = True
    deployment: RevisionBody | None
    plan: PlanBody


class Live(Body):
    """The process answers."""

    live: Literal[True] = True


class Health(Body):
    """Whether the loop runs, and what it sees. `problems` is what is wrong with how servers are found."""

    ready: bool
    reason: str
    passes: int
    last_pass_age_s: float | None
    last_error: str
    servers: dict[ServerCondition, int]
    problems: list[str]
