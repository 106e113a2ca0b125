"""The bodies of operations and their steps."""

from datetime import datetime

from control_plane.api.bodies import Body
from control_plane.error_kinds import ErrorKind
from control_plane.operations import OperationKind, OperationState, StepAction, StepState


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
