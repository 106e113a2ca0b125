"""Laws of discovery, for any answers of DNS in any order, with failures between them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.planning.discovery import MOST_PER_NAME, Answer, Entry, Known, plan_servers, take_answer
from tests.fakes.world import START, a_discovered, a_named

GRACE = timedelta(seconds=30)
FAILED = Answer(problem="No answer.")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.10", "fd00::1", "fd00::2")

an_answer = st.one_of(st.just(FAILED), st.frozensets(st.sampled_from(ADDRESSES)).map(Answer))
a_step = st.tuples(an_answer, st.integers(1, 60))
histories = st.lists(a_step, max_size=12)
entry_lists = st.permutations(
    (a_discovered("a", "x"), a_discovered("b", "y"), a_discovered("c", "x"), a_named("n", 1), a_named("m", 1))
)


def fold(history: Sequence[tuple[Answer, int]]) -> Known:
    known, now = Known(), START
    for answer, seconds in history:
        now += timedelta(seconds=seconds)
        known = take_answer(known, answer, now, GRACE)
    return known


@given(histories)
def test_what_the_last_answer_has_is_there_and_what_no_answer_had_is_not(history: list[tuple[Answer, int]]) -> None:
    known = fold(history)
    answers = [answer for answer, _ in history if not answer.problem]
    if answers:
        assert answers[-1].addresses <= known.missing_since.keys()
    assert known.missing_since.keys() <= {address for answer in answers for address in answer.addresses}


@given(histories)
def test_an_address_leaves_only_once_answers_lacked_it_for_the_grace(history: list[tuple[Answer, int]]) -> None:
    known, now = Known(), START
    lacked_since: dict[str, datetime] = {}
    for answer, seconds in history:
        now += timedelta(seconds=seconds)
        stay = {*known.missing_since, *answer.addresses}
        if not answer.problem:
            lacked_since = {it: lacked_since.get(it, now) for it in stay if it not in answer.addresses}
            stay = {it for it in stay if it not in lacked_since or now - lacked_since[it] < GRACE}
        known = take_answer(known, answer, now, GRACE)
        assert known.missing_since.keys() == stay
        lacked_since = {it: at for it, at in lacked_since.items() if it in stay}


@given(histories)
def test_a_failure_removes_nothing_and_is_told(history: list[tuple[Answer, int]]) -> None:
    before = fold(history)
    after = take_answer(before, FAILED, START + timedelta(days=9), GRACE)
    assert after == replace(before, problem=FAILED.problem)
    assert plan_servers([a_discovered("a", "x")], {"x": after}).problems[0].startswith(FAILED.problem)


@given(entry_lists, histories, histories)
def test_ids_and_addresses_are_unique_and_the_first_entry_wins(
    entries: list[Entry], first: list[tuple[Answer, int]], second: list[tuple[Answer, int]]
) -> None:
    known = {"x": fold(first), "y": fold(second)}
    found = plan_servers(entries, known)
    ids = [server.id for server in found.servers]
    grpc = [server.endpoints.grpc for server in found.servers]
    assert len(set(ids)) == len(ids)
    assert len(set(grpc)) == len(grpc)
    assert plan_servers(entries, known) == found
    for count in range(len(entries)):  # what comes later takes nothing from what comes before
        earlier = plan_servers(entries[:count], known)
        assert found.servers[: len(earlier.servers)] == earlier.servers


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=6))
def test_one_name_gives_a_bounded_number(ranges: list[tuple[int, int]]) -> None:
    known = Known()
    for step, (begin, length) in enumerate(ranges):
        there = frozenset(f"10.0.{it // 250}.{it % 250}" for it in range(begin, begin + length))
        known = take_answer(known, Answer(there), START + timedelta(seconds=step), GRACE)
        assert len(known.missing_since) <= MOST_PER_NAME
        assert known.left_out == max(0, length - MOST_PER_NAME)
