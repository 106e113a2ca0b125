"""Following the file of servers and its names: what is edited comes true, and what is wrong changes nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters.local_fleet import LocalFleet
from control_plane.adapters.registered_fleet import RegisteredFleet, open_fleet
from control_plane.adapters.server_discovery import Resolver, ServerDiscovery, SystemResolver
from control_plane.adapters.server_file import read_server_file
from control_plane.errors import ControlPlaneError, ServerUnreachableError, SettingsError
from control_plane.state import Mark, ServerId, ServerSource
from tests.fakes.world import FakeClock, FakeStore, a_server

WHERE = {"http": "h:1", "grpc": "h:2", "metrics": "h:3"}
ONE = {"id": "one", "endpoints": WHERE}
POD = {"id": "pod", "discover": {"dns": "pods.svc"}, "pool": "big"}


class FakeResolver:
    """DNS in a dictionary."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...]] = {}

    async def addresses(self, name: str) -> tuple[str, ...]:
        await asyncio.sleep(0)
        if name not in self.known:
            raise ServerUnreachableError("Name or service not known")
        return tuple(sorted(set(self.known[name])))


class Followed:
    """A file, a fleet and what follows."""

    def __init__(self, path: Path, fleet: RegisteredFleet, store: FakeStore) -> None:
        self.path, self.fleet, self.store = path, fleet, store
        self.resolver, self.clock, self.changes = FakeResolver(), FakeClock(), 0
        self.discovery = ServerDiscovery(path, fleet, self.resolver, self.clock)
        fleet.listen(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def write(self, *entries: dict[str, Any]) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(entries))
        new.replace(self.path)

    async def look(self, seconds: float = 5.0) -> list[str]:
        self.clock.move(seconds)
        await self.discovery.look()
        return sorted(it.id for it in self.fleet.servers())


def run(tmp_path: Path, scenario: Callable[[Followed], Awaitable[None]]) -> None:
    async def body() -> None:
        store = FakeStore()
        await scenario(Followed(tmp_path / "servers.json", await open_fleet(LocalFleet([]), store), store))

    asyncio.run(body())


def test_servers_come_change_and_go_with_the_file(tmp_path: Path) -> None:
    async def scenario(followed: Followed) -> None:
        followed.write(ONE)
        await followed.discovery.begin()
        assert await followed.look() == ["one"]
        assert followed.changes == 1
        followed.write(ONE, {"id": "two", "endpoints": WHERE})
        assert await followed.look() == ["one", "two"]
        followed.write({**ONE, "pool": "big"})
        assert await followed.look() == ["one"]
        (server,) = followed.fleet.servers()
        assert (server.pool, server.source, server.backends) == (
            "big",
            ServerSource.FILE,
            frozenset({"python", "onnxruntime"}),
        )
        assert not await followed.fleet.register(a_server("one"))
        assert not await followed.fleet.unregister(ServerId("one"))
        assert await followed.look() == ["one"]
        assert followed.changes == 3

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "EOF while parsing"),
        ('[{"id": "two", "endpoints": {"http": "h:1", "grpc": "h:2", "metrics": "h:3"}, "pol": "x"}]', "0.pol: Extra"),
        (json.dumps([ONE, ONE]), "names one twice"),
        ('[{"id": "two"}]', "give either endpoints or discover"),
        (json.dumps([{**ONE, "discover": {"dns": "x"}}]), "give either endpoints or discover"),
        ('[{"id": "../x", "discover": {"dns": "x"}}]', "0.id"),
        ('{"id": "two"}', "valid array"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing_and_is_told(tmp_path: Path, text: str, said: str) -> None:
    async def scenario(followed: Followed) -> None:
        followed.write(ONE)
        await followed.discovery.begin()
        followed.path.write_text(text)
        assert await followed.look() == ["one"]
        (problem,) = followed.fleet.problems()
        assert said in problem
        assert problem.endswith("What it said before holds.")
        followed.write({"id": "two", "endpoints": WHERE})
        assert await followed.look() == ["two"]
        assert followed.fleet.problems() == ()

    run(tmp_path, scenario)


def test_a_file_that_is_away_for_a_moment_and_one_behind_a_link_that_is_swapped(tmp_path: Path) -> None:
    async def scenario(followed: Followed) -> None:
        for number in range(2):
            (tmp_path / f"..data_{number}").mkdir()
            entry = {"id": f"of-{number}", "endpoints": WHERE}
            (tmp_path / f"..data_{number}" / "servers.json").write_text(json.dumps([entry]))
        (tmp_path / "..data").symlink_to("..data_0")
        followed.path.symlink_to("..data/servers.json")
        await followed.discovery.begin()
        (tmp_path / "..data").unlink()
        assert await followed.look() == ["of-0"]
        assert "cannot be read" in followed.fleet.problems()[0]
        (tmp_path / "..new").symlink_to("..data_1")
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert await followed.look() == ["of-1"]

    run(tmp_path, scenario)


def test_a_file_that_is_wrong_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_server_file(tmp_path / "nothing")


def test_addresses_of_a_name_come_and_go_and_what_is_known_of_them_with_them(tmp_path: Path) -> None:
    async def scenario(followed: Followed) -> None:
        followed.write(POD)
        await followed.discovery.begin()
        assert "pods.svc of 'pod' has no answer: Name or service not known" in followed.fleet.problems()[0]
        followed.resolver.known["pods.svc"] = ("10.0.0.1", "10.0.0.2")
        assert await followed.look() == ["pod-10-0-0-1", "pod-10-0-0-2"]
        assert {it.source for it in followed.fleet.servers()} == {ServerSource.DISCOVERED}
        assert followed.fleet.problems() == ()
        await followed.store.mark(Mark(ServerId("pod-10-0-0-2"), "why", datetime.fromisoformat("2026-01-01T00:00:00Z")))
        followed.resolver.known["pods.svc"] = ("10.0.0.1",)
        assert await followed.look() == ["pod-10-0-0-1", "pod-10-0-0-2"]
        assert len(await followed.store.marks()) == 1
        assert await followed.look(61) == ["pod-10-0-0-1"]
        assert await followed.store.marks() == ()

    run(tmp_path, scenario)


def test_unregistering_what_is_not_registered_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    async def scenario(followed: Followed) -> None:
        followed.write(ONE)
        await followed.discovery.begin()
        await followed.store.mark(Mark(ServerId("one"), "why", datetime.fromisoformat("2026-01-01T00:00:00Z")))
        assert not await followed.fleet.unregister(ServerId("one"))
        assert len(await followed.store.marks()) == 1

    run(tmp_path, scenario)


@pytest.fixture(params=["fake", "system"])
def resolver(request: pytest.FixtureRequest) -> Resolver:
    fake = FakeResolver()
    fake.known["localhost"] = ("127.0.0.1",)
    return fake if request.param == "fake" else SystemResolver()


def test_a_name_is_resolved_or_the_error_is_ours(resolver: Resolver) -> None:
    found = asyncio.run(resolver.addresses("localhost"))
    assert "127.0.0.1" in found or "::1" in found
    assert list(found) == sorted(set(found))
    for name in ("no-such-host.invalid", "a" * 64 + ".invalid"):
        with pytest.raises(ControlPlaneError):
            asyncio.run(resolver.addresses(name))
