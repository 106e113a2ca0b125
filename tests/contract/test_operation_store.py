"""One suite for the journal of operations: the fake in memory, and SQLite on a real disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from control_plane.adapters.operation_store import SqlOperationStore, open_operation_store
from control_plane.adapters.state_file import hold, open_engine
from control_plane.adapters.store import SqlStore
from control_plane.adapters.tables import idempotency_keys, operation_steps, operations
from control_plane.adapters.transactions import Transactions, open_transactions
from control_plane.error_kinds import ErrorKind
from control_plane.errors import StateFileError
from control_plane.operations import (
    INTERRUPTED,
    Cursor,
    KeyReused,
    Operation,
    OperationId,
    OperationState,
    OperationStore,
    StepDone,
    StepFailed,
    cancelled,
    interrupted,
    settled,
    step_ended,
    step_started,
    with_cancel_asked,
    with_planned,
)
from control_plane.state import DeploymentName, ServerId
from tests.fakes.operations import FakeOperationStore, a_key, after, an_operation, planned
from tests.fakes.world import a_deployment

Scenario = Callable[[OperationStore], Awaitable[None]]
Check = Callable[[Scenario], None]

KEY = a_key("s0")
NEW = with_planned(an_operation(), planned(KEY, a_key("s1")), after(1))
RUNNING = step_started(NEW, KEY, after(2))
FAILED = step_ended(RUNNING, KEY, StepFailed("no room", ErrorKind.OUT_OF_MEMORY, after(9.5)), after(3))
DONE = settled(step_ended(RUNNING, KEY, StepDone(), after(3)), after(4), serves=True)


@asynccontextmanager
async def open_fake(_path: Path) -> AsyncIterator[OperationStore]:
    yield FakeOperationStore()


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[OperationStore]:
    async with open_operation_store(path) as store:
        yield store


@pytest.fixture(params=[open_fake, open_sqlite], ids=["fake", "sqlite"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    """Run a scenario on an empty store."""

    def run(scenario: Scenario) -> None:
        async def body() -> None:
            async with request.param(tmp_path / "new" / "state.db") as store:
                await scenario(store)

        asyncio.run(body())

    return run


def named(*operations: Operation) -> list[str]:
    return [operation.id for operation in operations]


def test_what_is_added_is_there(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        assert await store.get(NEW.id) is None
        assert await store.add(NEW) == NEW
        assert await store.get(NEW.id) == NEW
        assert await store.list() == await store.open() == (NEW,)

    check(scenario)


def test_every_change_is_read_back_as_it_was_saved(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        await store.add(NEW)
        more = with_planned(FAILED, planned(a_key("s2", "other", 3)), after(4))
        asked = with_cancel_asked(step_started(more, a_key("s1"), after(5)), after(6), "asked")
        for operation in (RUNNING, FAILED, more, asked, cancelled(asked, after(7), "gone")):
            await store.save(operation)
            assert await store.get(NEW.id) == operation

    check(scenario)


def test_a_new_one_can_be_saved_too(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        other = an_operation("drain", 5, "", 0, "s0")
        await store.save(NEW, other)
        await store.save(RUNNING, FAILED)
        assert await store.open() == (FAILED, other)
        await store.save()

    check(scenario)


def test_the_same_request_again_gets_the_same_operation(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        assert await store.by_key("key", "digest") is None
        assert await store.add(NEW, "key", "digest") == NEW
        assert await store.by_key("key", "digest") == NEW
        assert await store.by_key("key", "other digest") == KeyReused(NEW)
        await store.save(RUNNING)
        assert await store.add(an_operation("second"), "key", "digest") == RUNNING
        assert await store.add(an_operation("second"), "key", "other digest") == KeyReused(RUNNING)
        assert await store.get(OperationId("second")) is None
        third = an_operation("third")
        assert await store.add(third, "another key", "digest") == third
        assert await store.add(an_operation("fourth")) == an_operation("fourth")

    check(scenario)


def test_an_id_is_added_once(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        await store.add(NEW)
        await store.save(RUNNING)
        assert await store.add(NEW) == RUNNING
        assert await store.add(NEW, "key", "digest") == RUNNING
        assert await store.add(an_operation("second"), "key", "digest") == RUNNING
        assert await store.get(NEW.id) == RUNNING

    check(scenario)


def test_concurrent_requests_with_one_key_make_one_operation(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        made = await asyncio.gather(*(store.add(an_operation(f"o{n}", n), "key", "digest") for n in range(20)))
        assert len(set(made)) == 1
        assert len(await store.list()) == 1

    check(scenario)


def test_a_finished_one_stays_as_it_is(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        await store.add(NEW)
        await store.save(DONE)
        await store.save(RUNNING)
        assert await store.get(NEW.id) == DONE
        assert await store.open() == ()

    check(scenario)


def test_no_step_is_dropped(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        await store.add(NEW)
        await store.save(replace(RUNNING, steps=RUNNING.steps[:1]))
        assert await store.get(NEW.id) == RUNNING

    check(scenario)


def test_lists_are_newest_first_and_filtered(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        other = with_planned(an_operation("other", 5, "e"), planned(a_key("s9")), after(6))
        drain = cancelled(an_operation("drain", 7, "", 0, "s0"), after(8), "why")
        for operation in (other, NEW, drain):
            await store.add(operation)
        assert named(*await store.list()) == ["drain", "other", "o"]
        assert named(*await store.open()) == ["o", "other"]
        assert named(*await store.list(states={OperationState.CANCELLED})) == ["drain"]
        assert named(*await store.list(states=[OperationState.CANCELLED, OperationState.QUEUED], limit=2)) == [
            "drain",
            "other",
        ]
        assert named(*await store.list(deployment=DeploymentName("e"))) == ["other"]
        assert named(*await store.list(server=ServerId("s0"))) == ["drain", "o"]
        assert named(*await store.list(server=ServerId("s9"), states={OperationState.DONE})) == []

    check(scenario)


def test_pages_are_stable_while_operations_come_and_go(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        made = [an_operation(f"o{n}", n // 2 + n % 4 * 1e-6) for n in range(9)]
        for operation in made:
            await store.add(operation)
        expected = sorted(made, key=lambda operation: (operation.created_at, operation.id), reverse=True)
        first = await store.list(limit=4)
        assert list(first) == expected[:4]
        cursor = Cursor.parse(str(Cursor.after(first[-1])))
        await store.add(an_operation("later", 60))
        await store.save(cancelled(first[-1], after(70), "why"))
        assert await store.prune(after(80), 0) == 1
        second = await store.list(limit=4, before=cursor)
        assert list(second) == expected[4:8]
        assert list(await store.list(before=Cursor.after(second[-1]))) == expected[8:]

    check(scenario)


def test_operations_of_the_same_time_are_paged_by_id(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        for name in "bdac":
            await store.add(an_operation(name))
        assert named(*await store.list(limit=2)) == ["d", "c"]
        assert named(*await store.list(before=Cursor.after(an_operation("c")))) == ["b", "a"]
        assert named(*await store.open()) == ["a", "b", "c", "d"]

    check(scenario)


def test_pruning_keeps_what_is_open_new_or_among_the_newest(check: Check) -> None:
    async def scenario(store: OperationStore) -> None:
        finished = [cancelled(an_operation(f"o{n}", n), after(10 + n), "why") for n in range(6)]
        for operation in finished:
            await store.add(operation, f"key of {operation.id}", "digest")
        await store.add(replace(NEW, id=OperationId("open")))
        assert await store.prune(after(100), 6) == 0
        assert await store.prune(after(11), 0) == 1, "that of o0 alone ended before that time"
        assert await store.prune(after(100), 2) == 3
        assert sorted(named(*await store.list())) == ["o4", "o5", "open"]
        again = an_operation("again", 50)
        assert await store.add(again, "key of o0", "another digest") == again, "its key went with it"
        assert await store.add(an_operation("x"), "key of o5", "digest") == finished[5]

    check(scenario)


def test_a_kill_at_any_moment_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    async def write() -> None:
        async with open_operation_store(tmp_path / "state.db") as store:
            await store.add(NEW, "key", "digest")
            await store.save(RUNNING)

    async def read() -> None:
        async with open_operation_store(tmp_path / "state.db") as store:
            (found,) = await store.open()
            assert found == RUNNING
            again = interrupted(found, after(20))
            await store.save(again)
            assert await store.get(NEW.id) == again
            assert again.steps[0].cause == INTERRUPTED
            assert await store.add(an_operation("second"), "key", "digest") == again

    asyncio.run(write())
    asyncio.run(read())


class WrittenRows:
    """Counts the rows of operations and steps that statements wrote."""

    def __init__(self, path: Path) -> None:
        self.engine = open_engine(path)
        self.rows: dict[str, int] = {}
        event.listen(self.engine, "after_cursor_execute", self._count)

    def _count(self, _connection: Connection, cursor: object, statement: str, *_more: object) -> None:
        verb, *rest = statement.split()
        if verb in ("INSERT", "UPDATE"):
            table = rest[1] if verb == "INSERT" else rest[0]
            self.rows[table] = self.rows.get(table, 0) + getattr(cursor, "rowcount", 0)

    def taken(self) -> dict[str, int]:
        rows, self.rows = self.rows, {}
        return rows


def test_one_step_more_writes_one_step(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    many = with_planned(an_operation(), planned(*(a_key(f"s{n}") for n in range(200))), after(1))

    async def scenario() -> None:
        with hold(path):
            written = WrittenRows(path)
            transactions = Transactions(written.engine)
            store = SqlOperationStore(transactions)
            await store.save(many)
            assert written.taken() == {"operations": 1, "operation_steps": 200}
            started = step_started(many, KEY, after(2))
            await store.save(started)
            assert written.taken() == {"operations": 1, "operation_steps": 1}
            ended = with_planned(
                step_ended(started, KEY, StepDone(), after(3)), planned(a_key("s900"), a_key("s901")), after(3)
            )
            await store.save(ended)
            assert written.taken() == {"operations": 1, "operation_steps": 3}
            await store.save(ended)
            assert written.taken() == {}
            later = SqlOperationStore(transactions)
            await later.save(step_started(ended, a_key("s1"), after(4)))
            assert written.taken() == {"operations": 1, "operation_steps": 1}
            transactions.close()

    asyncio.run(scenario())


def test_a_save_that_fails_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_operation_store(tmp_path / "state.db") as store:
            await store.add(NEW)
            await store.save(RUNNING)
            twice = replace(FAILED, id=OperationId("bad"), steps=(FAILED.steps[0], FAILED.steps[0]))
            with pytest.raises(StateFileError, match="could not be read or written"):
                await store.save(FAILED, twice)
            assert await store.list() == (RUNNING,)
            await store.save(FAILED)
            assert await store.list() == (FAILED,)

    asyncio.run(scenario())


def test_a_cancelled_caller_leaves_what_is_stored_and_what_is_remembered_alike(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_operation_store(tmp_path / "state.db") as store:
            operation = NEW
            for moment in range(3, 60):
                operation = with_planned(operation, planned(a_key("s2", version=moment)), after(moment))
                task = asyncio.create_task(store.save(operation))
                await asyncio.sleep(0 if moment % 2 else 0.0005)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await store.save(operation)
            assert await store.get(NEW.id) == operation

    asyncio.run(scenario())


def test_it_shares_the_file_with_the_deployments(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_transactions(tmp_path / "state.db") as transactions:
            deployments, journal = SqlStore(transactions), SqlOperationStore(transactions)
            made = await asyncio.gather(deployments.create(a_deployment("d", ("a", 1))), journal.add(NEW))
            assert (made[0], made[1]) == (True, NEW)
            assert await journal.open() == (NEW,)

    asyncio.run(scenario())


def test_times_keep_their_order_as_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_operation_store(tmp_path / "state.db") as store:
            for n, name in enumerate(("first", "second", "third")):
                await store.add(an_operation(name, 1 + n * timedelta(microseconds=500_000).total_seconds()))
            assert named(*await store.list()) == ["third", "second", "first"]

    asyncio.run(scenario())


def test_steps_and_keys_go_with_their_operation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_transactions(tmp_path / "state.db") as transactions:
            store = SqlOperationStore(transactions)
            await store.add(DONE, "key", "digest")
            assert await store.prune(after(100), 0) == 1

            def left(connection: Connection) -> int:
                tables = (operations, operation_steps, idempotency_keys)
                return sum(len(connection.execute(table.select()).all()) for table in tables)

            assert await transactions.run(left) == 0

    asyncio.run(scenario())
