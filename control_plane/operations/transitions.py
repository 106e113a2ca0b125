"""How an operation advances. Each function returns a new one, or the same object where nothing changes.

The rules: a finished operation never changes again; no step is ever dropped; of the same thing on a server there is
one step that is not ended, with at most one attempt at a time. A caller saves what is another object than before.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from control_plane.error_kinds import ErrorKind
from control_plane.operations.model import (
    NO_DEPLOYMENT,
    NO_SERVER,
    Operation,
    OperationId,
    OperationKind,
    OperationState,
    PlannedStep,
    Step,
    StepDone,
    StepFailed,
    StepKey,
    StepOutcome,
    StepSkipped,
    StepState,
)
from control_plane.state import DeploymentName, ServerId

INTERRUPTED = "interrupted by a restart of the control plane"
_FINAL = frozenset({StepState.DONE, StepState.CANCELLED})


def queued(
    id: OperationId,  # noqa: A002 - as the field is called
    kind: OperationKind,
    now: datetime,
    *,
    deployment: DeploymentName = NO_DEPLOYMENT,
    revision: int = 0,
    server: ServerId = NO_SERVER,
) -> Operation:
    """Return a new operation that has no steps yet."""
    return Operation(id, kind, deployment, revision, server, OperationState.QUEUED, now, now)


def with_planned(operation: Operation, planned: Iterable[PlannedStep], now: datetime) -> Operation:
    """Add the planned steps that are new, and queue those again that failed, were skipped or wait.

    What is queued or running stays as it is; what is done, and is planned once more, is a new step.
    """
    if operation.is_finished or operation.cancel_asked:
        return operation
    steps = list(operation.steps)
    last = {step.key: index for index, step in enumerate(steps)}
    changed = False
    for new in planned:
        index = last.get(new.key)
        before = steps[index] if index is not None else None
        if index is None or before is None or before.state in _FINAL:
            last[new.key] = len(steps)
            key = new.key
            steps.append(Step(len(steps) + 1, key.server, key.model, key.version, key.action, new.reason))
        elif before.state not in (StepState.QUEUED, StepState.RUNNING):
            steps[index] = replace(before, state=StepState.QUEUED, ended_at=None, retry_at=None)
        else:
            continue
        changed = True
    return _advanced(operation, tuple(steps), now) if changed else operation


def step_started(operation: Operation, key: StepKey, now: datetime) -> Operation:
    """Begin an attempt of the step `key`, where it is queued or waits."""

    def begin(step: Step) -> Step:
        if step.state not in (StepState.QUEUED, StepState.WAITING):
            return step
        return replace(
            step, state=StepState.RUNNING, attempts=step.attempts + 1, started_at=now, ended_at=None, retry_at=None
        )

    return _with_step(operation, key, begin, now)


def step_ended(operation: Operation, key: StepKey, outcome: StepOutcome, now: datetime) -> Operation:
    """End the step `key`. Only one that runs can fail, and only one that does not can be skipped.

    Done can be any that is open: after a restart an observation may show the effect of an attempt whose answer was
    lost.
    """

    def end(step: Step) -> Step:
        running = step.state is StepState.RUNNING
        match outcome:
            case StepDone() if step.is_open:
                return _closed(step, StepState.DONE, outcome.cause, now)
            case StepFailed() if running and outcome.retry_at is not None:
                waiting = _closed(step, StepState.WAITING, outcome.cause, now)
                return replace(waiting, error_kind=outcome.error_kind, retry_at=outcome.retry_at)
            case StepFailed() if running:
                return replace(_closed(step, StepState.FAILED, outcome.cause, now), error_kind=outcome.error_kind)
            case StepSkipped() if step.is_open and not running:
                return _closed(step, StepState.SKIPPED, outcome.cause, now)
            case StepDone() | StepFailed() | StepSkipped():
                return step
            case _:
                assert_never(outcome)

    return _with_step(operation, key, end, now)


def settled(operation: Operation, now: datetime, *, serves: bool | None, cause: str = "") -> Operation:
    """Finish an operation of which nothing runs: done where what it is for was seen to serve, else failed.

    Without anything to serve (`serves` is None) its steps tell, once all have ended: failed where one of them did.
    Steps that were still to come are skipped; those that waited for another try have failed.
    """
    if operation.is_finished or any(step.state is StepState.RUNNING for step in operation.steps):
        return operation
    if serves is None and any(step.is_open for step in operation.steps):
        return operation
    failures = [step for step in operation.steps if step.state in (StepState.FAILED, StepState.WAITING)]
    if serves or (serves is None and not failures):
        return _finished(operation, OperationState.DONE, "", now)
    first = next((step.cause for step in failures if step.cause), "")
    return _finished(operation, OperationState.FAILED, cause or first, now)


def with_cancel_asked(operation: Operation, now: datetime, cause: str = "") -> Operation:
    """Begin nothing more; it is cancelled at once where nothing runs, else as soon as that has ended."""
    if operation.is_finished or operation.cancel_asked:
        return operation
    steps = tuple(
        step if step.state is StepState.RUNNING else _unless_ended(step, StepState.CANCELLED, cause, now)
        for step in operation.steps
    )
    return _advanced(replace(operation, cancel_asked=True, cause=cause), steps, now)


def cancelled(operation: Operation, now: datetime, cause: str = "") -> Operation:
    """Cancel at once, also what runs: nobody will tell what came of it, as where its server is gone."""
    if operation.is_finished:
        return operation
    return _finished(operation, OperationState.CANCELLED, cause or operation.cause, now)


def superseded(operation: Operation, newer: Operation, now: datetime) -> Operation:
    """Cancel, as `with_cancel_asked`, what a newer revision of the same deployment makes pointless."""
    same = operation.deployment != NO_DEPLOYMENT and operation.deployment == newer.deployment
    if not same or newer.revision <= operation.revision:
        return operation
    cause = f"revision {newer.revision} of '{newer.deployment}' took its place (operation {newer.id})"
    return with_cancel_asked(operation, now, cause)


def interrupted(operation: Operation, now: datetime) -> Operation:
    """Queue again what ran when the control plane ended. Attempts are kept: the server may have done it."""
    if operation.is_finished:
        return operation
    steps = tuple(
        replace(step, state=StepState.QUEUED, cause=INTERRUPTED) if step.state is StepState.RUNNING else step
        for step in operation.steps
    )
    return _advanced(operation, steps, now) if steps != operation.steps else operation


def kept(stored: Operation, given: Operation) -> Operation:
    """Return what a store holds after `given` was saved over `stored`: no end is undone, and no step is dropped."""
    if stored.is_finished:
        return stored
    return replace(given, steps=(*given.steps, *stored.steps[len(given.steps) :])) if _lacks(given, stored) else given


def _lacks(given: Operation, stored: Operation) -> bool:
    return len(given.steps) < len(stored.steps)


def _with_step(operation: Operation, key: StepKey, change: Callable[[Step], Step], now: datetime) -> Operation:
    before = operation.step(key)
    if operation.is_finished or before is None:
        return operation
    after = change(before)
    if after is before:
        return operation
    index = before.number - 1
    return _advanced(operation, (*operation.steps[:index], after, *operation.steps[index + 1 :]), now)


def _advanced(operation: Operation, steps: tuple[Step, ...], now: datetime) -> Operation:
    """Return the operation with these steps, in the state that follows from them."""
    states = frozenset(step.state for step in steps)
    advanced = replace(operation, steps=steps, state=_state(states), updated_at=now)
    if operation.cancel_asked and StepState.RUNNING not in states:
        return _finished(advanced, OperationState.CANCELLED, operation.cause, now)
    return advanced


def _state(states: frozenset[StepState]) -> OperationState:
    if states <= {StepState.QUEUED}:
        return OperationState.QUEUED
    if StepState.WAITING in states and not states & {StepState.QUEUED, StepState.RUNNING}:
        return OperationState.WAITING
    return OperationState.RUNNING


def _finished(operation: Operation, state: OperationState, cause: str, now: datetime) -> Operation:
    was_cancelled = state is OperationState.CANCELLED
    steps = tuple(
        _unless_ended(step, StepState.CANCELLED if was_cancelled else _unfinished(step), cause, now)
        for step in operation.steps
    )
    return replace(operation, steps=steps, state=state, cause=cause, updated_at=now)


def _unfinished(step: Step) -> StepState:
    return StepState.FAILED if step.state is StepState.WAITING else StepState.SKIPPED


def _unless_ended(step: Step, state: StepState, cause: str, now: datetime) -> Step:
    """End an open step with its operation. What its last attempt said is worth more than the operation's cause."""
    return _closed(step, state, step.cause or cause, now, step.error_kind) if step.is_open else step


def _closed(step: Step, state: StepState, cause: str, now: datetime, kind: ErrorKind | None = None) -> Step:
    return replace(step, state=state, cause=cause, error_kind=kind, ended_at=now, retry_at=None)
