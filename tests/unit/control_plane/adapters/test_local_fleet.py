"""The fleet of supervised servers of this machine."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from control_plane.adapters.local_fleet import LocalFleet
from control_plane.state import Server, ServerId
from tests.fakes.world import a_server


class FakeSupervised:
    """A supervised server that changes when it is told to."""

    def __init__(self, server: Server) -> None:
        self.server, self.reason = server, "Stopped."
        self.listeners: list[Callable[[Any], None]] = []

    def listen(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def restart(self, reason: str) -> None:
        self.reason = reason

    def processes(self) -> tuple[int, ...]:
        return (os.getpid(),)

    def log_mark(self) -> int:
        return 0

    async def log_since(self, mark: int) -> list[str]:
        return [f"since {mark}"]


def test_servers_notes_and_logs() -> None:
    supervised = FakeSupervised(a_server("s0"))
    fleet = LocalFleet([supervised])
    assert fleet.servers() == (supervised.server,)
    assert (fleet.note(ServerId("s0")), fleet.note(ServerId("none"))) == ("Stopped.", "")
    assert fleet.log_of(ServerId("s0")) is supervised
    assert fleet.log_of(ServerId("none")) is None


def test_a_server_is_restarted_where_it_is_one_of_these() -> None:
    async def scenario() -> None:
        supervised = FakeSupervised(a_server("s0"))
        fleet = LocalFleet([supervised])
        assert await fleet.restart(ServerId("s0"), "a hung load")
        assert supervised.reason == "a hung load"
        assert not await fleet.restart(ServerId("none"), "a hung load")
        assert not await fleet.register(a_server("s1"))
        assert not await fleet.unregister(ServerId("s0"))

    asyncio.run(scenario())


def test_every_servers_changes_are_heard_until_the_end() -> None:
    servers = [FakeSupervised(a_server(name)) for name in ("s0", "s1")]
    heard: list[int] = []
    end = LocalFleet(servers).listen(lambda: heard.append(1))
    for server in servers:
        server.listeners[0]("changed")
    assert len(heard) == 2
    end()
    assert [server.listeners for server in servers] == [[], []]


def test_what_is_ours_and_what_it_takes() -> None:
    fleet = LocalFleet([FakeSupervised(a_server("s0"))])
    assert fleet.owned() == {ServerId("s0")}
    used = fleet.memory_used(ServerId("s0"))
    assert used is not None
    assert used > 1_000_000
    assert fleet.memory_used(ServerId("another")) is None
