"""How operations advance, one case each; `tests/property/test_operations.py` has the laws."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control_plane.error_kinds import ErrorKind
from control_plane.operations import (
    INTERRUPTED,
    Cursor,
    Operation,
    OperationId,
    OperationKind,
    OperationState,
    StepAction,
    StepDone,
    StepFailed,
    StepSkipped,
    StepState,
    cancelled,
    interrupted,
    kept,
    operation_id,
    settled,
    step_ended,
    step_started,
    superseded,
    with_cancel_asked,
    with_planned,
)
from tests.fakes.operations import a_key, after, an_operation, planned

ONE, TWO = a_key("s0"), a_key("s1")
FAILED = StepFailed("no such file", ErrorKind.ARTIFACT)
RETRIED = StepFailed("did not answer", ErrorKind.INFRASTRUCTURE, after(9))
PLANNED = with_planned(an_operation(), planned(ONE, TWO), after(1))
RUNNING = step_started(PLANNED, ONE, after(2))
DONE = step_ended(RUNNING, ONE, StepDone(), after(3))


def states(operation: Operation) -> list[StepState]:
    return [step.state for step in operation.steps]


def test_planned_steps_are_numbered_and_queued() -> None:
    first, second = PLANNED.steps
    assert (first.number, first.key, first.reason, first.attempts) == (1, ONE, "It is needed.", 0)
    assert (second.number, second.key, second.state) == (2, TWO, StepState.QUEUED)
    assert (PLANNED.state, PLANNED.created_at, PLANNED.updated_at) == (OperationState.QUEUED, after(0), after(1))


def test_planning_the_same_again_changes_nothing() -> None:
    assert with_planned(PLANNED, planned(TWO, ONE), after(5)) is PLANNED
    assert with_planned(RUNNING, planned(ONE), after(5)) is RUNNING


def test_another_action_or_version_is_another_step() -> None:
    more = planned(a_key("s0", version=2), a_key("s0", action=StepAction.RELOAD), a_key("s0", "other"))
    assert len(with_planned(PLANNED, more, after(5)).steps) == 5


def test_what_is_done_and_planned_once_more_is_a_new_step() -> None:
    again = with_planned(DONE, planned(ONE), after(4))
    assert states(again) == [StepState.DONE, StepState.QUEUED, StepState.QUEUED]
    assert again.steps[0] is DONE.steps[0]
    assert again.step(ONE) == again.steps[2]


def test_a_step_runs_once_at_a_time() -> None:
    step = RUNNING.steps[0]
    assert (step.state, step.attempts, step.started_at, step.ended_at) == (StepState.RUNNING, 1, after(2), None)
    assert RUNNING.state is OperationState.RUNNING
    assert step_started(RUNNING, ONE, after(3)) is RUNNING
    assert step_started(DONE, ONE, after(4)) is DONE
    assert step_started(RUNNING, a_key("elsewhere"), after(3)) is RUNNING


def test_a_step_that_took_effect() -> None:
    assert (DONE.steps[0].state, DONE.steps[0].ended_at, DONE.steps[0].cause) == (StepState.DONE, after(3), "")
    assert DONE.state is OperationState.RUNNING


def test_a_step_that_fails_and_is_planned_again_keeps_its_attempts() -> None:
    failed = step_ended(RUNNING, ONE, FAILED, after(3))
    step = failed.steps[0]
    assert (step.state, step.cause, step.error_kind) == (StepState.FAILED, "no such file", ErrorKind.ARTIFACT)
    again = with_planned(failed, planned(ONE, TWO), after(4))
    assert states(again) == [StepState.QUEUED, StepState.QUEUED]
    assert (again.steps[0].attempts, again.steps[0].cause, again.steps[0].ended_at) == (1, "no such file", None)
    done = step_ended(step_started(again, ONE, after(5)), ONE, StepDone(), after(6))
    assert (done.steps[0].attempts, done.steps[0].cause, done.steps[0].error_kind) == (2, "", None)


def test_a_step_that_waits_for_its_retry() -> None:
    waiting = step_ended(RUNNING, ONE, RETRIED, after(3))
    assert (waiting.steps[0].state, waiting.steps[0].retry_at) == (StepState.WAITING, after(9))
    assert waiting.state is OperationState.RUNNING, "the other step can go on"
    only = step_ended(waiting, TWO, StepDone(), after(4))
    assert only.state is OperationState.WAITING
    again = step_started(only, ONE, after(9))
    assert (again.steps[0].state, again.steps[0].attempts, again.steps[0].retry_at) == (StepState.RUNNING, 2, None)


def test_only_what_runs_can_fail_and_only_what_does_not_can_be_skipped() -> None:
    assert step_ended(PLANNED, ONE, FAILED, after(3)) is PLANNED
    assert step_ended(RUNNING, ONE, StepSkipped("no"), after(3)) is RUNNING
    skipped = step_ended(PLANNED, TWO, StepSkipped("Its member failed."), after(3))
    assert (skipped.steps[1].state, skipped.steps[1].cause) == (StepState.SKIPPED, "Its member failed.")
    assert states(with_planned(skipped, planned(TWO), after(4))) == [StepState.QUEUED, StepState.QUEUED]


def test_after_a_restart_what_ran_is_queued_and_may_turn_out_to_be_done() -> None:
    found = interrupted(RUNNING, after(5))
    step = found.steps[0]
    assert (step.state, step.attempts, step.cause) == (StepState.QUEUED, 1, INTERRUPTED)
    assert found.state is OperationState.QUEUED
    done = step_ended(found, ONE, StepDone("seen to be ready"), after(6))
    assert (done.steps[0].state, done.steps[0].cause) == (StepState.DONE, "seen to be ready")
    assert interrupted(PLANNED, after(5)) is PLANNED


def test_settling_what_serves() -> None:
    done = settled(DONE, after(7), serves=True)
    assert (done.state, done.cause, done.updated_at) == (OperationState.DONE, "", after(7))
    assert states(done) == [StepState.DONE, StepState.SKIPPED]


def test_settling_waits_for_what_runs() -> None:
    assert settled(RUNNING, after(7), serves=True) is RUNNING
    assert settled(RUNNING, after(7), serves=False) is RUNNING


def test_settling_what_does_not_serve_tells_the_first_reason() -> None:
    waiting = step_ended(RUNNING, ONE, RETRIED, after(3))
    failed = settled(waiting, after(7), serves=False)
    assert (failed.state, failed.cause) == (OperationState.FAILED, "did not answer")
    first, second = failed.steps
    assert (first.state, first.cause, first.error_kind) == (
        StepState.FAILED, "did not answer", ErrorKind.INFRASTRUCTURE,
    )  # fmt: skip
    assert (second.state, second.cause) == (StepState.SKIPPED, "did not answer")
    assert settled(waiting, after(7), serves=False, cause="no room").cause == "no room"


def test_settling_by_the_steps_alone() -> None:
    assert settled(DONE, after(7), serves=None) is DONE
    both = step_ended(step_started(DONE, TWO, after(4)), TWO, StepDone(), after(5))
    assert settled(both, after(7), serves=None).state is OperationState.DONE
    one = step_ended(step_started(DONE, TWO, after(4)), TWO, FAILED, after(5))
    assert (settled(one, after(7), serves=None).state, settled(one, after(7), serves=None).cause) == (
        OperationState.FAILED,
        "no such file",
    )


def test_a_cancel_waits_for_what_runs() -> None:
    asked = with_cancel_asked(RUNNING, after(4), "changed my mind")
    assert (asked.state, asked.cancel_asked) == (OperationState.RUNNING, True)
    assert states(asked) == [StepState.RUNNING, StepState.CANCELLED]
    assert with_planned(asked, planned(a_key("s2")), after(5)) is asked
    ended = step_ended(asked, ONE, StepDone(), after(6))
    assert (ended.state, ended.cause) == (OperationState.CANCELLED, "changed my mind")
    assert states(ended) == [StepState.DONE, StepState.CANCELLED]


def test_a_cancel_of_what_waits_is_at_once() -> None:
    at_once = with_cancel_asked(PLANNED, after(4), "changed my mind")
    assert (at_once.state, at_once.steps[0].cause) == (OperationState.CANCELLED, "changed my mind")
    asked = with_cancel_asked(RUNNING, after(4))
    for ended in (
        step_ended(asked, ONE, RETRIED, after(5)),
        interrupted(asked, after(5)),
        cancelled(asked, after(5)),
    ):
        assert (ended.state, ended.steps[0].state) == (OperationState.CANCELLED, StepState.CANCELLED)


def test_a_cancel_keeps_what_the_last_attempt_said() -> None:
    waiting = step_ended(RUNNING, ONE, RETRIED, after(3))
    assert with_cancel_asked(waiting, after(4), "changed my mind").steps[0].cause == "did not answer"


def test_a_newer_revision_supersedes_an_older_one() -> None:
    newer = an_operation("newer", revision=2)
    ended = superseded(PLANNED, newer, after(5))
    assert ended.state is OperationState.CANCELLED
    assert ended.cause == "revision 2 of 'd' took its place (operation newer)"
    assert superseded(RUNNING, newer, after(5)).cancel_asked
    for other in (an_operation("same"), an_operation("older", revision=0), an_operation("o2", 0, "another", 2)):
        assert superseded(PLANNED, other, after(5)) is PLANNED
    drain = an_operation("drain", 0, "", 1, "s0")
    assert superseded(drain, replace(drain, revision=2), after(5)) is drain


def test_a_finished_operation_stays_as_it_is() -> None:
    done = settled(DONE, after(7), serves=True)
    newer = an_operation("newer", revision=2)
    assert with_planned(done, planned(a_key("s2")), after(8)) is done
    assert step_started(done, TWO, after(8)) is done
    assert step_ended(done, ONE, FAILED, after(8)) is done
    assert settled(done, after(8), serves=False) is done
    assert with_cancel_asked(done, after(8)) is done
    assert cancelled(done, after(8)) is done
    assert superseded(done, newer, after(8)) is done
    assert interrupted(done, after(8)) is done


def test_what_a_store_keeps() -> None:
    done = settled(DONE, after(7), serves=True)
    assert kept(done, DONE) is done
    assert kept(PLANNED, DONE) is DONE
    fewer = replace(DONE, steps=DONE.steps[:1])
    assert kept(PLANNED, fewer).steps == (DONE.steps[0], PLANNED.steps[1])


def test_ids_follow_from_what_they_are_of() -> None:
    one = operation_id(OperationKind.DEPLOY, "d", 1, after(0))
    assert one == operation_id(OperationKind.DEPLOY, "d", 1, after(0))
    others = [
        operation_id(OperationKind.SCALE, "d", 1, after(0)),
        operation_id(OperationKind.DEPLOY, "e", 1, after(0)),
        operation_id(OperationKind.DEPLOY, "d", 2, after(0)),
        operation_id(OperationKind.DEPLOY, "d", 1, after(1)),
    ]
    assert len({one, *others}) == 5
    assert one.startswith("deploy-")


def test_a_cursor_is_read_back() -> None:
    cursor = Cursor(datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC), OperationId("deploy-1.2"))
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", ".", "1.", ".x", "x.y", "-1.x", "1", "٣.x", "9" * 30 + ".x", "9" * 5000 + ".x"])
def test_what_is_no_cursor(text: str) -> None:
    assert Cursor.parse(text) is None
