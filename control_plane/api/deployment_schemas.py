"""The bodies of deployments: what is asked for, how it stands on each server, its revisions and endpoints."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from builders.targets import Precision
from control_plane.api.bodies import DEPLOYMENT_NAME, LARGEST_VERSION, MODEL_NAME, Body, Version
from control_plane.api.wanted_schemas import MOST_INSTANCES, MOST_REPLICAS, WantedBody
from control_plane.planning import DeploymentState
from control_plane.state import ModelState


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
