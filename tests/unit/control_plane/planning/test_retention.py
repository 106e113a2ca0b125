"""Which versions go off a server's disk: cases, and laws for whatever lies there."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.planning.retention import RECENT, Installed, RetentionPlan, plan_retention
from control_plane.state import ModelName, Pin

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def a_pin(model: str, version: int) -> Pin:
    return Pin(ModelName(model), version)


def lying(model: str, version: int, ago: timedelta | None = DAY, size: int = 10, *, ours: bool = True) -> Installed:
    return Installed(a_pin(model, version), size, ours, None if ago is None else NOW - ago)


def removed(plan: RetentionPlan) -> list[tuple[str, int]]:
    return [(it.pin.model, it.pin.version) for it in plan.removals]


def test_each_model_keeps_its_newest_unused_versions() -> None:
    there = [lying("a", version, DAY * (10 - version)) for version in range(1, 6)] + [lying("b", 1)]
    plan = plan_retention(there, {a_pin("a", 5)}, NOW)
    assert removed(plan) == [("a", 1), ("a", 2)]
    assert {it.reason for it in plan.removals} == {"not used, and older than the 2 newest unused ones"}
    assert removed(plan_retention(there, {a_pin("a", 1)}, NOW, keep=1)) == [("a", 2), ("a", 3), ("a", 4)]


def test_what_was_needed_within_the_hour_and_what_is_not_ours_stays() -> None:
    there = [
        lying("a", 1, RECENT - timedelta(seconds=1)),
        lying("a", 2, RECENT),
        lying("a", 3, None),
        lying("a", 4, ours=False),
    ]
    assert removed(plan_retention(there, (), NOW, keep=0)) == [("a", 3), ("a", 2)]
    assert removed(plan_retention(there, (), NOW, keep=0, bytes_short=1000)) == [("a", 3), ("a", 2)]


def test_short_of_space_the_one_unused_longest_goes_first_until_there_is_enough() -> None:
    there = [lying("a", 1, DAY), lying("b", 1, DAY * 3), lying("c", 1, timedelta(minutes=1)), lying("d", 1, DAY * 9)]
    needed = {a_pin("d", 1)}
    assert plan_retention(there, needed, NOW) == RetentionPlan()
    assert removed(plan_retention(there, needed, NOW, bytes_short=10)) == [("b", 1)]
    assert removed(plan_retention(there, needed, NOW, bytes_short=11)) == [("b", 1), ("a", 1)]
    assert removed(plan_retention(there, needed, NOW, bytes_short=30)) == [("b", 1), ("a", 1), ("c", 1)]


def test_a_shortage_that_cannot_be_met_costs_no_spare_version() -> None:
    there = [lying("a", version) for version in (1, 2, 3)]
    plan = plan_retention(there, (), NOW, bytes_short=37)
    assert (removed(plan), plan.still_short) == ([("a", 1)], 7)


INSTALLED = st.lists(
    st.builds(
        lying,
        st.sampled_from("abc"),
        st.integers(1, 6),
        st.none() | st.timedeltas(-DAY, DAY * 9),
        st.integers(0, 50),
        ours=st.booleans(),
    ),
    unique_by=lambda it: it.pin,
    max_size=18,
)
NEEDED = st.sets(st.builds(a_pin, st.sampled_from("abc"), st.integers(1, 6)), max_size=6)


@given(INSTALLED, NEEDED, st.integers(0, 4), st.integers(0, 400), st.randoms(use_true_random=False))
def test_laws(there: list[Installed], needed: set[Pin], keep: int, short: int, dice: random.Random) -> None:
    plan = plan_retention(there, needed, NOW, keep, short)
    gone = {it.pin for it in plan.removals}
    assert len(gone) == len(plan.removals)
    assert not gone & needed
    assert gone <= {it.pin for it in there if it.ours}
    shuffled = dice.sample(there, len(there))
    assert plan_retention(shuffled, needed, NOW, keep, short) == plan
    freed = sum(it.bytes for it in plan.removals)
    unused = sum(it.bytes for it in there if it.ours and it.pin not in needed)
    assert (freed >= short) if not plan.still_short else (unused + plan.still_short == short)
    left = [it for it in there if it.pin not in gone]
    assert plan_retention(left, needed, NOW, keep) == RetentionPlan()


@given(INSTALLED, NEEDED, st.integers(0, 4), st.integers(1, 400))
def test_a_shortage_takes_no_more_than_it_must(there: list[Installed], needed: set[Pin], keep: int, short: int) -> None:
    ordinary = plan_retention(there, needed, NOW, keep).removals
    plan = plan_retention(there, needed, NOW, keep, short)
    assert plan.removals[: len(ordinary)] == ordinary
    for_space = plan.removals[len(ordinary) :]
    if for_space:
        assert sum(it.bytes for it in plan.removals[:-1]) < short
    for model in "abc":
        unused = [it for it in there if it.ours and it.pin.model == model and it.pin not in needed]
        newest = sorted((it.pin for it in unused), key=lambda pin: pin.version, reverse=True)[:keep]
        assert not {it.pin for it in ordinary} & set(newest)
