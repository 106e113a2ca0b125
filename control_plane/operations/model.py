"""What an operation is made of: frozen records of a change, of its steps and of how a step can end.

Advanced by `transitions` alone; kept by an `OperationStore` (`ports`).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import NewType

from control_plane.error_kinds import ErrorKind
from control_plane.state import DeploymentName, ModelName, ServerId

OperationId = NewType("OperationId", str)

NO_DEPLOYMENT = DeploymentName("")
NO_SERVER = ServerId("")


class OperationKind(StrEnum):
    """What was asked for, or found necessary."""

    DEPLOY = "deploy"
    REDEPLOY = "redeploy"
    SCALE = "scale"
    ROLLBACK = "rollback"
    UNDEPLOY = "undeploy"
    DRAIN = "drain"
    HEAL = "heal"


class OperationState(StrEnum):
    """How far an operation is. Waiting: only for retries that are not due."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED})
"""States that an operation never leaves."""


class StepState(StrEnum):
    """How far a step is. Failed and skipped ones are queued again where they are planned again, waiting ones too."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


_OPEN = frozenset({StepState.QUEUED, StepState.RUNNING, StepState.WAITING})


class StepAction(StrEnum):
    """What a step does to its server."""

    LOAD = "load"
    RELOAD = "reload"
    SCALE = "scale"
    UNLOAD = "unload"
    DRAIN = "drain"
    RESTART = "restart"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, order=True)
class StepKey:
    """What makes two planned steps the same one."""

    server: ServerId
    model: ModelName
    version: int
    action: StepAction


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that a plan holds, and why."""

    key: StepKey
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing on one server. `number` counts from 1 in its operation; `version` is NO_VERSION where there is none.

    `cause` is Triton's own reason, or the log's, of the last attempt that failed; it stays while the step is tried
    again. `started_at` is of the last attempt, `ended_at` of what ended the step; `retry_at` is set while it waits.
    """

    number: int
    server: ServerId
    model: ModelName
    version: int
    action: StepAction
    reason: str
    state: StepState = StepState.QUEUED
    attempts: int = 0
    cause: str = ""
    error_kind: ErrorKind | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_at: datetime | None = None

    @property
    def key(self) -> StepKey:
        """Return what makes another planned step the same as this one."""
        return StepKey(self.server, self.model, self.version, self.action)

    def is_of(self, key: StepKey) -> bool:
        """Tell whether `key` is this step's; makes no key, for an operation is searched at every step of a fleet."""
        same = self.server == key.server and self.model == key.model
        return same and self.version == key.version and self.action is key.action

    @property
    def is_open(self) -> bool:
        """Whether something is still to come of it."""
        return self.state in _OPEN


@dataclass(frozen=True, slots=True)
class Operation:
    """A change and what became of it. It is about a deployment's `revision`, or about a `server` as a whole.

    `cause` says why it failed or was cancelled. `cancel_asked`: nothing more is begun, and it is cancelled once what
    runs has ended, for a load cannot be taken back from a server that is at it.
    """

    id: OperationId
    kind: OperationKind
    deployment: DeploymentName
    revision: int
    server: ServerId
    state: OperationState
    created_at: datetime
    updated_at: datetime
    steps: tuple[Step, ...] = ()
    cause: str = ""
    cancel_asked: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether it will never change again."""
        return self.state in FINISHED

    def step(self, key: StepKey) -> Step | None:
        """Return the last step of `key`, or None: the only one of them that may be open."""
        return next((step for step in reversed(self.steps) if step.is_of(key)), None)


@dataclass(frozen=True, slots=True)
class StepDone:
    """It took effect. `cause` says how that is known where no attempt told so."""

    cause: str = ""


@dataclass(frozen=True, slots=True)
class StepFailed:
    """An attempt failed. With `retry_at` the step waits for its next one."""

    cause: str
    error_kind: ErrorKind
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """It was not tried, because of what `cause` says."""

    cause: str


StepOutcome = StepDone | StepFailed | StepSkipped


def operation_id(kind: OperationKind, subject: str, revision: int, now: datetime) -> OperationId:
    """Derive an id that fits an URL from what the operation is about (a deployment or a server) and when."""
    text = "\n".join((kind, subject, str(revision), now.isoformat()))
    return OperationId(f"{kind}-{sha256(text.encode()).hexdigest()[:12]}")
