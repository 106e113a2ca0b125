"""Following the servers file and DNS: what reaches the fleet, and what is told when something is wrong."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from control_plane.discovery import Discovery, DiscoveryTiming
from control_plane.errors import SettingsError, StateFileError
from control_plane.metrics import Metrics
from control_plane.planning.discovery import Entry
from control_plane.state import Server
from tests.fakes.dns import FakeResolver
from tests.fakes.world import FakeClock, a_discovered, a_named, until

NAME = "triton.test"


class FakeFile:
    """A servers file that says what a test wants; `wrong` is why it cannot be read."""

    def __init__(self, *entries: Entry) -> None:
        self.entries, self.wrong = entries, ""

    def read(self) -> tuple[Entry, ...]:
        if self.wrong:
            raise SettingsError(self.wrong)
        return self.entries


class FakeFound:
    """Who is told; `fails` is raised instead."""

    def __init__(self) -> None:
        self.servers: tuple[Server, ...] = ()
        self.problems: tuple[str, ...] = ()
        self.times = 0
        self.fails: Exception | None = None

    async def take_found(self, servers: tuple[Server, ...], problems: tuple[str, ...]) -> None:
        self.times += 1
        if self.fails is not None:
            raise self.fails
        self.servers, self.problems = servers, problems


class Case:
    def __init__(self, *entries: Entry, interval_s: float = 5.0) -> None:
        self.file, self.dns, self.found = FakeFile(*entries), FakeResolver(), FakeFound()
        self.clock, self.metrics = FakeClock(), Metrics()
        timing = DiscoveryTiming(interval_s, 300.0, self.clock)
        self.discovery = Discovery(self.file, self.dns, self.found, self.metrics, timing)

    async def look(self, seconds: float = 5.0) -> list[str]:
        """Look some seconds later; returns the ids that the fleet has then."""
        self.clock.move(seconds)
        await self.discovery.look()
        return [server.id for server in self.found.servers]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await scenario()

    asyncio.run(body())


def test_servers_are_added_replaced_and_removed_as_the_file_says() -> None:
    async def scenario() -> None:
        case = Case(a_named("a", 1), a_named("b", 2))
        assert await case.look() == ["a", "b"]
        case.file.entries = (a_named("b", 9), a_named("c", 3))
        assert await case.look() == ["b", "c"]
        assert case.found.servers[0].endpoints.grpc == "127.0.0.1:9"
        case.file.entries = ()
        assert await case.look() == []

    run(scenario)


def test_a_bad_file_changes_nothing_is_logged_once_and_told_for_as_long_as_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "control_plane.discovery")

    async def scenario() -> None:
        case = Case(a_named("a", 1))
        await case.look()
        case.file.wrong = "The file of servers f: 0.pol: Extra inputs are not permitted."
        assert (await case.look(), case.found.problems) == (["a"], ())  # it may just be being written
        for _ in range(3):
            assert await case.look() == ["a"]
            (problem,) = case.found.problems
            assert problem.startswith(case.file.wrong)
            assert problem.endswith("what it said last holds.")
        assert [it.levelname for it in caplog.records] == ["WARNING"]
        assert "tritonfleet_discovery_problems 1.0" in case.metrics.text().decode()
        case.file.wrong, case.file.entries = "", (a_named("b", 1),)
        assert (await case.look(), case.found.problems) == (["b"], ())
        assert [it.levelname for it in caplog.records] == ["WARNING", "INFO"]
        assert "tritonfleet_discovery_problems 0.0" in case.metrics.text().decode()

    run(scenario)


def test_a_file_that_is_missing_for_a_moment_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        case = Case(a_named("a", 1))
        await case.look()
        for _ in range(3):
            case.file.wrong = "The file of servers f cannot be read: No such file or directory."
            assert await case.look() == ["a"]
            case.file.wrong = ""
            assert await case.look() == ["a"]
        assert caplog.records == []

    run(scenario)


def test_addresses_come_and_go_with_the_grace() -> None:
    async def scenario() -> None:
        case = Case(a_discovered("d", NAME), a_named("a", 1))
        case.dns.addresses[NAME] = {"10.0.0.1", "10.0.0.2"}
        assert await case.look() == ["d-10.0.0.1", "d-10.0.0.2", "a"]
        case.dns.addresses[NAME] = {"10.0.0.2", "10.0.0.3"}
        assert await case.look() == ["d-10.0.0.1", "d-10.0.0.2", "d-10.0.0.3", "a"]
        assert await case.look(299) == ["d-10.0.0.1", "d-10.0.0.2", "d-10.0.0.3", "a"]
        assert await case.look(1) == ["d-10.0.0.2", "d-10.0.0.3", "a"]
        text = case.metrics.text().decode()
        assert 'tritonfleet_found_servers{source="discovered"} 2.0' in text
        assert 'tritonfleet_found_servers{source="file"} 1.0' in text

    run(scenario)


def test_a_name_that_cannot_be_resolved_keeps_its_servers_for_ever_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        case = Case(a_discovered("d", NAME), a_named("a", 1))
        case.dns.addresses[NAME] = {"10.0.0.1"}
        await case.look()
        case.dns.addresses.clear()
        for _ in range(5):
            assert await case.look(1000) == ["d-10.0.0.1", "a"]
        assert NAME in case.found.problems[0]
        assert len(caplog.records) == 1

    run(scenario)


def test_a_name_is_asked_once_for_all_entries_and_not_at_all_once_no_entry_has_it() -> None:
    async def scenario() -> None:
        case = Case(a_discovered("d", NAME), a_discovered("e", NAME))
        await case.look()
        assert case.dns.asked == [NAME]
        case.file.entries = (a_named("a", 1),)
        await case.look()
        assert (case.dns.asked, case.found.problems) == ([NAME], ())

    run(scenario)


def test_it_goes_on_looking_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        case = Case(a_named("a", 1), interval_s=0.001)
        case.found.fails = StateFileError("no space")
        task = asyncio.create_task(case.discovery.run())
        await until(lambda: case.found.times > 1)
        case.found.fails = None
        await until(lambda: len(case.found.servers) == 1)
        task.cancel()
        await asyncio.wait({task})
        assert 'tritonfleet_unexpected_errors_total{place="discovery"}' in case.metrics.text().decode()
        assert "no space" in caplog.text

    run(scenario)
