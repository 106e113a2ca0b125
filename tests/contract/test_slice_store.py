"""One suite for what is remembered of slices: the fake in memory, and SQLite on a real disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.adapters.slice_store import SqlSliceStore
from control_plane.adapters.store import SqlStore
from control_plane.adapters.transactions import open_transactions
from control_plane.mig import Placement
from control_plane.slicer import SliceStore
from control_plane.slicing import GpuId, ReplicaId, Seat
from control_plane.slicing.records import SliceRecord
from control_plane.state import ActionRecord, DeploymentName, Mark, ModelName, Result, ServerId
from tests.fakes.node import FakeSliceStore

NOW = datetime(2026, 1, 1, 12, 30, 0, 123, tzinfo=UTC)
Scenario = Callable[[SliceStore], Awaitable[None]]


def a_record(name: str, start: int = 0, replica: str = "d/0") -> SliceRecord:
    seat = Seat(GpuId("GPU-1"), Placement(start, "1g"))
    return SliceRecord(ServerId(name), "n", seat, ReplicaId(replica), DeploymentName("d"), NOW)


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[SliceStore]:
    if kind == "fake":
        yield FakeSliceStore()
        return
    async with open_transactions(path / "state.db") as transactions:
        yield SqlSliceStore(transactions)


@pytest.fixture(params=["fake", "sqlite"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    def body(scenario: Scenario) -> None:
        async def inside() -> None:
            async with opened(request.param, tmp_path) as store:
                await scenario(store)

        asyncio.run(inside())

    return body


def test_records_are_kept_by_server_with_all_that_they_say(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: SliceStore) -> None:
        assert await store.slices() == ()
        one, two = a_record("b"), replace(a_record("a", 1, "d/1"), moved=True, leaving="It makes room.")
        await store.write_slices([one, two])
        assert await store.slices() == (two, one)

    run(scenario)


def test_a_write_replaces_drops_and_adds_together(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: SliceStore) -> None:
        await store.write_slices([a_record("a"), a_record("b", 1), a_record("c", 2)])
        changed, new = replace(a_record("a"), replica=ReplicaId("e/0")), a_record("d", 3)
        await store.write_slices([changed, new], [ServerId("b"), ServerId("nobody")])
        assert await store.slices() == (changed, a_record("c", 2), new)

    run(scenario)


def test_what_was_kept_of_a_server_goes_with_its_slice_and_all_outlives_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_transactions(tmp_path / "state.db") as transactions:
            store, slices = SqlStore(transactions), SqlSliceStore(transactions)
            await slices.write_slices([a_record("a"), a_record("b", 1)])
            for server in (ServerId("a"), ServerId("b")):
                await store.mark(Mark(server, "an operator", NOW))
                await store.record(ActionRecord(server, ModelName("m"), 1, Result.LOADED, "", NOW))
            await slices.write_slices((), [ServerId("a")])
        async with open_transactions(tmp_path / "state.db") as transactions:
            store, slices = SqlStore(transactions), SqlSliceStore(transactions)
            assert await slices.slices() == (a_record("b", 1),)
            assert [it.server for it in await store.marks()] == ["b"]
            assert [it.server for it in await store.records()] == ["b"]

    asyncio.run(scenario())
