"""The bodies of `/v1/placement`: GPUs, their slices, who is on them, and what would change."""

from typing import Literal

from pydantic import Field

from control_plane.api.bodies import Body


class SliceBody(Body):
    """A slice: where it is, and who has it. `state` says what is known of it, `reason` why it is given up."""

    profile: str
    start: int = Field(description="The first memory slice.")
    memory_slices: int
    server: str
    replica: str
    deployment: str
    state: Literal["running", "being_made", "leaving", "foreign", "empty"]
    reason: str = ""


class GpuBody(Body):
    """A GPU of the fleet. `unusable` says why nothing may be put there; empty where something may."""

    uuid: str
    product: str
    compute_capability: str
    node: str
    zone: str
    unusable: str
    slices: list[SliceBody]
    free: list[str] = Field(description="Profiles that still fit, the largest first.")
    drawing: str = Field(description="All of it as a line of text.")


class RejectedBody(Body):
    """A replica without a slice, why, and the smallest change that would give it one."""

    replica: str
    reason: str
    remedy: str


class CostBody(Body):
    """What an assignment comes to, weighed."""

    rejection: float
    gpus: float
    moves: float
    risk: float
    fragmentation: float
    total: float


class PlacementBody(Body):
    """Every GPU, and who has no slice. `problems` are by server, `away` by node."""

    gpus: list[GpuBody]
    rejected: list[RejectedBody]
    problems: dict[str, str]
    away: dict[str, str]
    moves_left: int
    cost: CostBody


class StepBody(Body):
    """A step: `create`, `place`, `remove` or `destroy`."""

    step: str
    gpu: str
    profile: str
    start: int
    replica: str
    reason: str


class GeometryBody(Body):
    """A GPU before and after a plan, each as a line of text."""

    gpu: str
    before: str
    after: str


class SlicePlanBody(Body):
    """Steps in their order. `bound` is the least that any plan can cost, where one was looked for."""

    steps: list[StepBody]
    moved: list[str]
    rejected: list[RejectedBody]
    geometries: list[GeometryBody] = Field(description="The GPUs that change.")
    cost: CostBody
    bound: float | None = None
    gap: float | None = None


class RoomBody(Body):
    """How many slices of a profile would fit at a time, before and after."""

    product: str
    profile: str
    before: int
    after: int


class DefragmentationBody(Body):
    """What tidying up would free, and the plan for it; without steps it is not worth its moves."""

    empty_before: int
    empty_after: int
    room: list[RoomBody]
    plan: SlicePlanBody


class AppliedBody(Body):
    """A plan that is carried out now: how many slices are given out or up by it."""

    changed: int
    plan: SlicePlanBody


class ElsewhereBody(Body):
    """A GPU that a replica is not on, and why."""

    gpu: str
    reason: str


class ReplicaExplainedBody(Body):
    """Where a replica is (null: nowhere), why, why nowhere else, and what would give it a place."""

    replica: str
    gpu: str | None
    profile: str
    start: int | None
    reason: str
    elsewhere: list[ElsewhereBody]
    remedy: str


class ReplicasExplained(Body):
    """Every replica of a deployment that wants a slice."""

    deployment: str
    replicas: list[ReplicaExplainedBody]
    impossible: list[str] = Field(description="Why no slice of the fleet can hold it; empty where one can.")
