"""The bodies of the REST API. Pydantic, strict, refusing unknown fields. `views` fills the answers in."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from builders.targets import Precision
from control_plane.planning import DeploymentState
from control_plane.state import ModelState, ServerCondition

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


class NewDeployment(Body):
    """What should serve. Left out, `version` is the newest one that is published now; later ones are not picked up."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "embeddings", "model": "text_embedding"}]},
    )

    name: Annotated[str, Field(pattern=DEPLOYMENT_NAME)]
    model: Annotated[str, Field(pattern=MODEL_NAME)]
    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)] | None = None
    precisions: Precisions = []
    allow_unproven: AllowUnproven = False


class Redeployment(Body):
    """What changes with a redeploy beside the versions. What is left out, or null, stays as it is."""

    precisions: Precisions | None = None
    allow_unproven: AllowUnproven | None = None


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


class DeploymentBody(Body):
    """A deployment, with the versions it was pinned to (members first) and where it stands."""

    name: str
    model: str
    version: int | None
    pins: list[PinBody]
    precisions: list[Precision]
    allow_unproven: bool
    revision: int
    created_at: datetime
    updated_at: datetime
    status: DeploymentStatusBody


class DeploymentList(Body):
    """Every deployment, by name."""

    deployments: list[DeploymentBody]


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
    """One row of a server's repository index."""

    name: str
    version: int
    state: ModelState
    reason: str


class ServerBody(Body):
    """A server as it was last observed; `detail` says why it is not healthy."""

    id: str
    condition: ServerCondition
    detail: str
    endpoints: EndpointsBody
    models: list[ModelRow]


class ServerList(Body):
    """Every registered server. `observed_at` is null until the first look ended."""

    observed_at: datetime | None
    servers: list[ServerBody]


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


class ActionBody(Body):
    """One step on one server; a lower `stage` comes first, the same stage is independent. Unloads have no version.

    `target` is the one to load; empty where the version has none.
    """

    kind: Literal["load", "unload"]
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


class PlanBody(Body):
    """What the loop would do now."""

    actions: list[ActionBody]
    waiting: list[WaitingBody]
    infeasible: list[InfeasibleBody]


class Live(Body):
    """The process answers."""

    live: Literal[True] = True


class Health(Body):
    """Whether the loop runs, and what it sees."""

    ready: bool
    reason: str
    passes: int
    last_pass_age_s: float | None
    last_error: str
    servers: dict[ServerCondition, int]
