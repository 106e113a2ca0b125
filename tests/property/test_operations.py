"""Laws of operations, for any series of things that may happen to one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from control_plane.error_kinds import ErrorKind
from control_plane.operations import (
    Operation,
    OperationState,
    Step,
    StepAction,
    StepDone,
    StepFailed,
    StepKey,
    StepOutcome,
    StepSkipped,
    StepState,
    cancelled,
    interrupted,
    settled,
    step_ended,
    step_started,
    superseded,
    with_cancel_asked,
    with_planned,
)
from tests.fakes.operations import a_key, after, an_operation, planned

KEYS = [a_key("s0"), a_key("s1"), a_key("s1", action=StepAction.RELOAD)]
ENDED = {StepState.DONE, StepState.FAILED, StepState.CANCELLED, StepState.SKIPPED}
FINAL = {StepState.DONE, StepState.CANCELLED}


@dataclass(frozen=True)
class Event:
    """Something that happens; only with `starts` may it begin an attempt, and only with `ends` end one."""

    name: str
    change: Callable[[Operation, datetime], Operation]
    starts: bool = False
    ends: bool = False

    def __repr__(self) -> str:
        return self.name


def plan(keys: list[StepKey]) -> Event:
    return Event(f"plan {len(keys)}", lambda operation, now: with_planned(operation, planned(*keys), now))


def start(key: StepKey) -> Event:
    return Event(f"start {key}", lambda operation, now: step_started(operation, key, now), starts=True)


def end(key: StepKey, outcome: StepOutcome) -> Event:
    return Event(f"end {key} {outcome}", lambda operation, now: step_ended(operation, key, outcome, now), ends=True)


def settle(serves: bool | None) -> Event:  # noqa: FBT001 - drawn
    return Event(f"settle {serves}", lambda operation, now: settled(operation, now, serves=serves))


NEWER = an_operation("newer", revision=2)
OUTCOMES = st.sampled_from(
    [
        StepDone(),
        StepFailed("broken", ErrorKind.ARTIFACT),
        StepFailed("away", ErrorKind.INFRASTRUCTURE, after(99)),
        StepSkipped("no"),
    ]
)
USUAL = st.one_of(
    st.builds(plan, st.lists(st.sampled_from(KEYS), min_size=1, max_size=4)),
    st.builds(start, st.sampled_from(KEYS)),
    st.builds(end, st.sampled_from(KEYS), OUTCOMES),
    st.just(Event("restart", interrupted, ends=True)),
)
RARE = st.one_of(
    st.builds(settle, st.sampled_from([True, False, None])),
    st.just(Event("cancel", lambda operation, now: with_cancel_asked(operation, now, "asked"))),
    st.just(Event("cancel at once", lambda operation, now: cancelled(operation, now, "gone"), ends=True)),
    st.just(Event("supersede", lambda operation, now: superseded(operation, NEWER, now))),
)
HISTORIES = st.builds(
    lambda usual, rare, more: [*usual, *rare, *more],
    st.lists(USUAL, min_size=12, max_size=30),
    st.lists(RARE, max_size=2),
    st.lists(USUAL, max_size=5),
)


def check_step(before: Step, now: Step, event: Event) -> None:
    assert (now.number, now.key, now.reason) == (before.number, before.key, before.reason)
    if before.state in FINAL:
        assert now == before
    if before.state is StepState.RUNNING:
        assert event.ends or now == before
    if event.starts and now.state is StepState.RUNNING and before.state is not StepState.RUNNING:
        assert now.attempts == before.attempts + 1
    else:
        assert now.attempts == before.attempts
        assert now.state is not StepState.RUNNING or before.state is StepState.RUNNING


def check_consistent(operation: Operation) -> None:
    states = {step.state for step in operation.steps}
    assert [step.number for step in operation.steps] == list(range(1, len(operation.steps) + 1))
    unsettled = Counter(step.key for step in operation.steps if step.state not in FINAL)
    assert all(count == 1 for count in unsettled.values()), "one step and so one attempt of the same thing at a time"
    for step in operation.steps:
        assert (step.retry_at is not None) == (step.state is StepState.WAITING)
        assert (step.started_at is not None) == (step.attempts > 0)
        assert step.state not in ENDED or step.ended_at is not None
        assert step.state not in (StepState.QUEUED, StepState.RUNNING) or step.ended_at is None
        assert step.state is not StepState.FAILED or (step.cause and step.error_kind is not None)
        assert step.error_kind is None or step.state is not StepState.DONE
    if operation.is_finished:
        assert states <= ENDED
    else:
        assert StepState.RUNNING not in states or operation.state is OperationState.RUNNING
        assert operation.state is not OperationState.WAITING or StepState.WAITING in states
        assert not operation.cancel_asked or StepState.RUNNING in states
    assert operation.state is not OperationState.CANCELLED or operation.cause


@given(HISTORIES)
def test_whatever_happens_the_journal_accounts_for_every_step(history: list[Event]) -> None:
    operation = an_operation()
    for moment, event in enumerate(history, 1):
        after_it = event.change(operation, after(moment))
        if operation.is_finished:
            assert after_it is operation
        assert len(after_it.steps) >= len(operation.steps)
        assert not operation.cancel_asked or len(after_it.steps) == len(operation.steps)
        for before, now in zip(operation.steps, after_it.steps, strict=False):
            check_step(before, now, event)
        if after_it is not operation:
            assert after_it != operation, "another object means a change, and something to save"
            assert after_it.updated_at == after(moment)
        check_consistent(after_it)
        operation = after_it


@given(HISTORIES, st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
def test_every_planned_step_of_an_open_operation_is_queued_or_runs(history: list[Event], keys: list[StepKey]) -> None:
    operation = an_operation()
    for moment, event in enumerate(history, 1):
        operation = event.change(operation, after(moment))
    again = with_planned(operation, planned(*keys), after(90))
    assert with_planned(again, planned(*reversed(keys)), after(91)) is again
    if not operation.is_finished and not operation.cancel_asked:
        for key in keys:
            step = again.step(key)
            assert step is not None
            assert step.state in (StepState.QUEUED, StepState.RUNNING)
