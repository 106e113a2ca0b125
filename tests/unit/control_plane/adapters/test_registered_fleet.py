"""The whole fleet: who comes first, and what is forgotten of a server that is found no more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from control_plane.adapters.registered_fleet import RegisteredFleet, open_fleet
from control_plane.errors import StateFileError
from control_plane.state import ActionRecord, Mark, ModelName, Result, Server, ServerId, Source
from tests.fakes.world import START, FakeFleet, FakeStore, a_named, a_server


class FlakyStore(FakeStore):
    """A store whose disk says no as often as it is told to."""

    refusals = 0

    async def unregister(self, server: ServerId) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise StateFileError("no space")
        return await super().unregister(server)


def found(name: str, port: int = 1) -> Server:
    return a_named(name, port).server


@dataclass
class Case:
    fleet: RegisteredFleet
    store: FlakyStore
    heard: list[tuple[str, ...]] = field(default_factory=list)

    def ids(self) -> list[str]:
        return sorted(it.id for it in self.fleet.servers())

    def source(self, name: str) -> Source:
        return next(it.source for it in self.fleet.servers() if it.id == name)

    async def remember(self, name: str) -> None:
        await self.store.mark(Mark(ServerId(name), "an operator drains it", START))
        await self.store.record(ActionRecord(ServerId(name), ModelName("m"), 1, Result.LOADED, "", START))

    async def remembered(self) -> set[str]:
        return {it.server for it in await self.store.marks()} | {it.server for it in await self.store.records()}


def run(scenario: Callable[[Case], Awaitable[None]]) -> None:
    async def body() -> None:
        store = FlakyStore()
        await store.register(a_server("by-hand"))
        case = Case(await open_fleet(FakeFleet(a_server("ours")), store), store)
        case.fleet.listen(lambda: case.heard.append(tuple(case.ids())))
        await scenario(case)

    asyncio.run(body())


def test_found_servers_come_are_replaced_and_go() -> None:
    async def scenario(case: Case) -> None:
        await case.fleet.take_found([found("a"), found("b")], ())
        assert case.heard == [("a", "b", "by-hand", "ours")]
        await case.fleet.take_found([found("a"), found("b")], ("something is wrong",))
        assert (len(case.heard), case.fleet.problems()) == (1, ("something is wrong",))
        await case.fleet.take_found([found("a", 9)], ())
        assert (case.heard[1:], case.fleet.problems()) == ([("a", "by-hand", "ours")], ())
        assert next(it for it in case.fleet.servers() if it.id == "a").endpoints.grpc == "127.0.0.1:9"

    run(scenario)


def test_of_a_found_server_that_is_gone_mark_and_records_are_forgotten() -> None:
    async def scenario(case: Case) -> None:
        await case.fleet.take_found([found("a"), found("b")], ())
        for name in ("a", "b", "ours", "by-hand", "of-another-life"):
            await case.remember(name)
        await case.fleet.take_found([found("a", 9)], ())  # a stays, at another address
        assert await case.remembered() == {"a", "ours", "by-hand", "of-another-life"}
        await case.fleet.take_found([found("a"), found("b")], ())
        assert case.ids() == ["a", "b", "by-hand", "ours"]

    run(scenario)


def test_a_found_server_hides_a_registered_one_which_is_there_again_afterwards() -> None:
    async def scenario(case: Case) -> None:
        await case.remember("by-hand")
        await case.fleet.take_found([found("by-hand"), found("ours")], ())
        assert case.source("by-hand") is Source.FILE
        await case.fleet.take_found([], ())
        assert case.source("by-hand") is Source.REGISTERED
        assert (await case.remembered(), case.ids()) == ({"by-hand"}, ["by-hand", "ours"])

    run(scenario)


def test_what_could_not_be_forgotten_is_forgotten_the_next_time_unless_it_is_back() -> None:
    async def scenario(case: Case) -> None:
        await case.fleet.take_found([found("a"), found("b")], ())
        await case.remember("a")
        await case.remember("b")
        case.store.refusals = 1
        try:
            await case.fleet.take_found([], ())
        except StateFileError:
            assert case.ids() == ["by-hand", "ours"]
        await case.fleet.take_found([found("a")], ())
        assert await case.remembered() == {"a"}

    run(scenario)


def test_only_a_registered_server_is_registered_anew_or_forgotten() -> None:
    async def scenario(case: Case) -> None:
        await case.fleet.take_found([found("a")], ())
        await case.remember("a")
        await case.remember("ours")
        for name in ("a", "ours"):
            assert not await case.fleet.register(a_server(name))
            assert not await case.fleet.unregister(ServerId(name))
        assert await case.remembered() == {"a", "ours"}  # a refusal forgets nothing
        assert await case.fleet.register(a_server("new"))
        assert await case.fleet.unregister(ServerId("new"))
        assert await case.fleet.unregister(ServerId("by-hand"))
        assert case.ids() == ["a", "ours"]

    run(scenario)
