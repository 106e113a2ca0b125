"""Servers out of entries and DNS answers: what stays, what leaves, what is told."""

from datetime import timedelta

import pytest

from control_plane.planning.discovery import (
    MOST_PER_NAME,
    Answer,
    DnsName,
    Entry,
    Family,
    Found,
    Known,
    plan_servers,
    take_answer,
)
from control_plane.state import Endpoints, Source
from tests.fakes.world import START, a_discovered, a_named

GRACE = timedelta(minutes=5)
NAME = "triton.test"


def known(*answers: Answer, every_s: float = 60.0) -> Known:
    """Fold answers that came one after the other."""
    result = Known()
    for index, answer in enumerate(answers):
        result = take_answer(result, answer, START + index * timedelta(seconds=every_s), GRACE)
    return result


def has(*addresses: str) -> Answer:
    return Answer(frozenset(addresses))


def ids(found: Found) -> list[str]:
    return [server.id for server in found.servers]


def test_every_address_is_a_server_with_all_that_the_entry_says() -> None:
    entry = a_discovered("h100", NAME, pool="big", labels={"zone": "a"})
    found = plan_servers([entry], {NAME: known(has("10.0.0.10", "10.0.0.9"))})
    assert found.problems == ()
    assert ids(found) == ["h100-10.0.0.9", "h100-10.0.0.10"]
    first = found.servers[0]
    assert first.endpoints == Endpoints("10.0.0.9:8000", "10.0.0.9:8001", "10.0.0.9:8002")
    assert (first.pool, first.labels, first.source) == ("big", {"zone": "a"}, Source.DISCOVERED)


def test_an_ipv6_address_is_bracketed_and_written_in_one_way() -> None:
    name = DnsName(NAME, 1, 2, 3)
    found = plan_servers([Entry(a_discovered("v6", NAME).server, name)], {NAME: known(has("fd00:0::0007", "FD00::7"))})
    assert ids(found) == ["v6-fd00--7"]
    assert found.servers[0].endpoints == Endpoints("[fd00::7]:1", "[fd00::7]:2", "[fd00::7]:3")


@pytest.mark.parametrize(
    ("family", "expected"), [(Family.ANY, ["d-10.0.0.1", "d-fd00--1"]), (Family.IPV4, ["d-10.0.0.1"])]
)
def test_one_family_can_be_chosen(family: Family, expected: list[str]) -> None:
    entry = Entry(a_discovered("d", NAME).server, DnsName(NAME, family=family))
    assert ids(plan_servers([entry], {NAME: known(has("10.0.0.1", "fd00::1"))})) == expected


def test_a_name_without_an_address_of_its_family_is_told() -> None:
    entry = Entry(a_discovered("d", NAME).server, DnsName(NAME, family=Family.IPV6))
    assert plan_servers([entry], {NAME: known(has("10.0.0.1"))}).problems == (
        "Name 'triton.test' has no address of family ipv6.",
    )


def test_a_name_that_cannot_be_resolved_keeps_what_it_gave_and_says_so() -> None:
    failed = Answer(problem="Name 'triton.test' cannot be resolved: it is away.")
    entry = a_discovered("d", NAME)
    found = plan_servers([entry], {NAME: known(has("10.0.0.1"), *[failed] * 100)})
    assert ids(found) == ["d-10.0.0.1"]
    (problem,) = found.problems
    assert problem.startswith(failed.problem)
    assert "gave last stay" in problem
    assert "no server yet" in plan_servers([entry], {NAME: known(failed)}).problems[0]
    again = plan_servers([entry], {NAME: known(has("10.0.0.1"), failed, has("10.0.0.1"))})
    assert again.problems == ()


@pytest.mark.parametrize(("minutes", "stays"), [(4, True), (5, False)])
def test_an_address_that_is_gone_stays_for_the_grace(minutes: int, *, stays: bool) -> None:
    both, one = has("10.0.0.1", "10.0.0.2"), has("10.0.0.1")
    found = known(both, *[one] * (minutes + 1))  # the first that lacks it begins the grace
    assert ("10.0.0.2" in found.missing_since) is stays


def test_the_time_that_a_name_was_away_is_no_part_of_the_grace() -> None:
    failed, one = Answer(problem="away"), has("10.0.0.1")
    found = known(has("10.0.0.1", "10.0.0.2"), *[failed] * 60, one)
    assert "10.0.0.2" in found.missing_since


def test_an_address_that_is_back_within_the_grace_begins_a_new_one() -> None:
    both, one = has("10.0.0.1", "10.0.0.2"), has("10.0.0.1")
    assert "10.0.0.2" in known(both, *[one] * 4, both, *[one] * 4).missing_since


def test_of_too_many_addresses_those_that_are_there_already_stay() -> None:
    high = [f"10.1.0.{index}" for index in range(200)]
    low = [f"10.0.0.{index}" for index in range(200)]
    found = known(has(*high), has(*high, *low))
    assert len(found.missing_since) == MOST_PER_NAME
    assert set(high) <= set(found.missing_since)
    assert "144 of them are left out" in plan_servers([a_discovered("d", NAME)], {NAME: found}).problems[0]


def test_one_address_under_two_entries_is_told_and_the_first_counts() -> None:
    answers = {NAME: known(has("10.0.0.1")), "other": known(has("10.0.0.1", "10.0.0.2"))}
    found = plan_servers([a_discovered("a", NAME), a_discovered("b", "other")], answers)
    assert ids(found) == ["a-10.0.0.1", "b-10.0.0.2"]
    assert found.problems == ("Server 'b-10.0.0.1' is left out: 10.0.0.1:8001 is server 'a-10.0.0.1' already.",)


def test_one_host_with_other_ports_is_another_server() -> None:
    entries = [a_discovered("a", NAME), Entry(a_discovered("b", NAME).server, DnsName(NAME, 9000, 9001, 9002))]
    found = plan_servers(entries, {NAME: known(has("10.0.0.1"))})
    assert (ids(found), found.problems) == (["a-10.0.0.1", "b-10.0.0.1"], ())


def test_an_id_that_is_taken_is_told() -> None:
    entries = [a_named("a-10.0.0.1", 1), a_discovered("a", NAME)]
    found = plan_servers(entries, {NAME: known(has("10.0.0.1"))})
    assert ids(found) == ["a-10.0.0.1"]
    assert found.servers[0].source is Source.FILE
    assert "whose id is taken" in found.problems[0]
