"""When a failed load is tried again."""

from dataclasses import replace
from datetime import timedelta

from control_plane.planning import held_back, next_retry, quarantined, retry_delay_s
from control_plane.planning.retry import CAP_S, FIRST_DELAY_S, QUARANTINED_AFTER
from control_plane.state import ActionRecord, ModelName, Result, ServerId
from tests.fakes.world import START


def record(model: str, retry_in_s: float | None) -> ActionRecord:
    retry_at = None if retry_in_s is None else START + timedelta(seconds=retry_in_s)
    return ActionRecord(ServerId("s"), ModelName(model), 1, Result.FAILED, "no", START, 1, retry_at)


def test_delays_double_up_to_the_cap() -> None:
    assert [retry_delay_s(failures, 0.0) for failures in (1, 2, 3)] == [FIRST_DELAY_S, 2.0, 4.0]
    assert retry_delay_s(10_000, 0.0) == CAP_S


def test_what_fails_too_often_is_quarantined_with_its_reason() -> None:
    kept = replace(record("m", None), failures=QUARANTINED_AFTER)
    almost = replace(record("n", None), failures=QUARANTINED_AFTER - 1)
    unload = replace(record("u", None), failures=QUARANTINED_AFTER, version=0)
    assert quarantined([kept, almost, unload]) == {
        (kept.server, kept.model): f"{QUARANTINED_AFTER} loads in a row failed or did not last: no"
    }


def test_jitter_takes_away_at_most_half() -> None:
    assert CAP_S / 2 < retry_delay_s(100, 0.999) < retry_delay_s(100, 0.001) < CAP_S


def test_held_back_is_what_is_not_due() -> None:
    records = [record("due", 0), record("later", 5), record("never_failed", None)]
    assert [model for _, model in held_back(records, START)] == ["later"]
    assert next_retry(records, START) == 5.0
    assert next_retry([record("due", 0)], START) is None
