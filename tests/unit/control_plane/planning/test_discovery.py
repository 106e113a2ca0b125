"""Servers that DNS names stand for, as answers come and go."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from control_plane.planning.discovery import GRACE, MOST, Answer, Discovered, Name, Unresolved, discover
from control_plane.state import Endpoints, ServerId
from tests.fakes.world import START, a_server

H100 = Name("h100.svc", replace(a_server("h100"), pool="big", labels={"zone": "a"}), 1, 2, 3)
L4 = Name("l4.svc", a_server("l4"))
SECOND = timedelta(seconds=1)


def test_every_address_is_a_server_with_all_that_is_said_of_its_kind() -> None:
    found = discover([H100], {"h100.svc": ("10.0.0.7", "fd00::1")}, {}, START)
    first, second = found.servers
    assert (first.id, first.endpoints) == ("h100-10-0-0-7", Endpoints("10.0.0.7:1", "10.0.0.7:2", "10.0.0.7:3"))
    assert (second.id, second.endpoints.grpc) == ("h100-fd00--1", "[fd00::1]:2")
    assert (first.pool, first.labels, first.backends) == ("big", {"zone": "a"}, a_server().backends)
    assert found.problems == ()


def after(before: Discovered, answer: Answer, seconds: float) -> Discovered:
    return discover([H100], {"h100.svc": answer}, before.seen, START + seconds * SECOND)


def test_one_that_is_gone_is_kept_for_a_while() -> None:
    both = after(Discovered(), ("10.0.0.1", "10.0.0.2"), 0)
    one = after(both, ("10.0.0.1",), GRACE.total_seconds() - 1)
    assert one.servers == both.servers
    back = after(one, ("10.0.0.1", "10.0.0.2"), GRACE.total_seconds())
    assert after(back, ("10.0.0.1",), GRACE.total_seconds() + 1).servers == both.servers
    assert [it.id for it in after(one, ("10.0.0.1",), GRACE.total_seconds()).servers] == ["h100-10-0-0-1"]


def test_a_name_without_an_answer_keeps_what_it_gave_however_long() -> None:
    found = after(Discovered(), ("10.0.0.1",), 0)
    for minutes in range(1, 100):
        found = after(found, Unresolved("no such host"), 60.0 * minutes)
    assert [it.id for it in found.servers] == ["h100-10-0-0-1"]
    assert found.problems == ("Name h100.svc of 'h100' has no answer: no such host.",)
    assert after(found, (), 60.0 * 99 + 1).servers == found.servers
    assert discover([H100], {}, {}, START).problems == (
        "Name h100.svc of 'h100' has no answer: it was not asked for yet.",
    )


def test_an_address_of_two_names_is_the_first_ones() -> None:
    same = replace(L4, http_port=1, grpc_port=2, metrics_port=3)
    found = discover([H100, same], {"h100.svc": ("10.0.0.1",), "l4.svc": ("10.0.0.1", "10.0.0.2")}, {}, START)
    assert [it.id for it in found.servers] == ["h100-10-0-0-1", "l4-10-0-0-2"]
    assert found.problems == ("Address 10.0.0.1 of 'l4' is server 'h100-10-0-0-1' already.",)


def test_a_name_with_too_many_addresses_is_cut_and_told() -> None:
    many = tuple(f"10.0.{number // 256}.{number % 256}" for number in range(MOST + 5))
    found = discover([H100], {"h100.svc": many}, {}, START)
    assert len(found.servers) == MOST
    assert found.problems == (f"Name h100.svc of 'h100' has {MOST + 5} addresses; {MOST} are taken.",)


def test_a_name_that_is_no_longer_in_the_file_stands_for_nothing() -> None:
    found = discover([L4], {"h100.svc": ("10.0.0.1",), "l4.svc": ()}, {(ServerId("h100"), "10.0.0.1"): START}, START)
    assert found == Discovered()


ADDRESSES = st.lists(st.sampled_from([f"10.0.0.{number}" for number in range(6)]), unique=True).map(tuple)


@given(st.lists(st.tuples(st.one_of(ADDRESSES, st.just(Unresolved("x"))), st.integers(1, 90)), max_size=12))
def test_what_answers_last_said_is_there_and_nothing_that_is_long_gone(rounds: list[tuple[Answer, int]]) -> None:
    found, now, last = Discovered(), START, {}
    for answer, seconds in rounds:
        now += seconds * SECOND
        found = discover([H100], {"h100.svc": answer}, found.seen, now)
        if isinstance(answer, Unresolved):
            last = {address: now for _, address in found.seen}
        else:
            last |= dict.fromkeys(answer, now)
            last = {address: at for address, at in last.items() if now - at < GRACE}
        assert {it.endpoints.grpc for it in found.servers} == {f"{address}:2" for address in last}
        assert len({it.id for it in found.servers}) == len(found.servers)
