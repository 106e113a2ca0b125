"""One suite for the store: the fake in memory, and SQLite on a real disk."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text

from control_plane.adapters import migrations
from control_plane.adapters.state_file import open_engine
from control_plane.adapters.store import open_store
from control_plane.adapters.tables import metadata
from control_plane.errors import StateFileError, StateFileLockedError
from control_plane.ports import DeploymentStore
from control_plane.state import ActionRecord, DeploymentName, ModelName, Result, ServerId
from tests.fakes.world import START, FakeStore, a_deployment

MIGRATIONS = Path(migrations.__file__).parent
Scenario = Callable[[DeploymentStore], Awaitable[None]]
Check = Callable[[Scenario], None]

NAME = DeploymentName("d")
DEPLOYMENT = a_deployment("d", ("a", 1), ("z", 3), ("e", 2))
RECORD = ActionRecord(
    ServerId("s"), ModelName("a"), 1, Result.FAILED, "because", START, 2, START + timedelta(seconds=1.5)
)


@asynccontextmanager
async def open_fake(_path: Path) -> AsyncIterator[DeploymentStore]:
    yield FakeStore()


@asynccontextmanager
async def open_sqlite(path: Path) -> AsyncIterator[DeploymentStore]:
    async with open_store(path) as store:
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


def test_what_is_created_is_there_with_its_pins_in_order(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        assert await store.create(DEPLOYMENT)
        assert await store.get(NAME) == DEPLOYMENT
        other = a_deployment("a-first", ("m", 1), precisions=("fp16", "fp32"), allow_unproven=True)
        assert await store.create(other)
        assert await store.list() == (other, DEPLOYMENT)

    check(scenario)


def test_a_name_is_taken_once(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        assert await store.create(DEPLOYMENT)
        assert not await store.create(a_deployment("d", ("other", 1)))
        assert await store.get(NAME) == DEPLOYMENT

    check(scenario)


def test_the_next_revision_replaces_and_no_other(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        later = replace(a_deployment("d", ("a", 2), ("e", 2), at=9, precisions=("int8",)), revision=2)
        assert not await store.replace(later)
        await store.create(DEPLOYMENT)
        assert await store.replace(later)
        assert await store.get(NAME) == later
        assert not await store.replace(later)
        assert not await store.replace(replace(later, revision=4))

    check(scenario)


def test_several_are_replaced_all_or_none(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        other = a_deployment("other", ("a", 1))
        await store.create(DEPLOYMENT)
        await store.create(other)
        later = replace(a_deployment("d", ("a", 2)), revision=2)
        other_later = replace(a_deployment("other", ("a", 2)), revision=2)
        for wrong in (replace(other_later, revision=3), replace(other_later, name=DeploymentName("none"))):
            assert not await store.replace(later, wrong)
            assert await store.list() == (DEPLOYMENT, other)
        assert await store.replace(later, other_later)
        assert await store.list() == (later, other_later)

    check(scenario)


def test_deleting(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        assert not await store.delete(NAME)
        await store.create(DEPLOYMENT)
        assert await store.delete(NAME)
        assert await store.get(NAME) is None
        assert await store.list() == ()
        assert await store.create(DEPLOYMENT)

    check(scenario)


def test_the_last_record_of_a_server_and_model_is_kept(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        await store.record(RECORD)
        later = replace(RECORD, result=Result.LOADED, reason="", failures=0, retry_at=None)
        elsewhere = replace(RECORD, server=ServerId("r"))
        await store.record(later)
        await store.record(elsewhere)
        assert await store.records() == (elsewhere, later)
        await store.forget(frozenset({ModelName("other")}))
        assert len(await store.records()) == 2
        await store.forget(frozenset({ModelName("a")}))
        assert await store.records() == ()

    check(scenario)


def test_concurrent_creations_of_one_name_have_one_winner(check: Check) -> None:
    async def scenario(store: DeploymentStore) -> None:
        won = await asyncio.gather(*(store.create(DEPLOYMENT) for _ in range(20)))
        assert won.count(True) == 1

    check(scenario)


def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    async def write() -> None:
        async with open_store(tmp_path / "state.db") as store:
            await store.create(DEPLOYMENT)
            await store.record(RECORD)

    async def read() -> None:
        async with open_store(tmp_path / "state.db") as store:
            assert await store.list() == (DEPLOYMENT,)
            assert await store.records() == (RECORD,)

    asyncio.run(write())
    asyncio.run(read())


def test_a_second_user_of_the_file_is_told_who_holds_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(tmp_path / "state.db"):
            with pytest.raises(StateFileLockedError, match=r"state\.db is in use by another control plane \(pid \d+\)"):
                async with open_store(tmp_path / "state.db"):
                    pass
        async with open_store(tmp_path / "state.db"):
            pass

    asyncio.run(scenario())


def open_and_close(path: Path) -> None:
    async def scenario() -> None:
        async with open_store(path):
            pass

    asyncio.run(scenario())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(StateFileError, match=r"not a usable state file \(file is not a database\): restore it"):
        open_and_close(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    open_and_close(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StateFileError, match="written by a newer Tritonfleet"):
        open_and_close(path)


def test_a_file_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO deployments VALUES ('d', 'm', NULL, 4, '2026-01-01T00:00:00', '2026-01-01T00:00:00')")
        )
    engine.dispose()

    async def scenario() -> None:
        async with open_store(path) as store:
            (deployment,) = await store.list()
            assert (deployment.revision, deployment.precisions, deployment.allow_unproven) == (4, (), False)

    asyncio.run(scenario())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFileError, match="cannot be used as the state file"):
        open_and_close(tmp_path / "file" / "state.db")


def test_migrations_make_the_tables_that_the_code_reads(tmp_path: Path) -> None:
    migrated = open_engine(tmp_path / "migrated.db")
    declared = create_engine(f"sqlite:///{tmp_path / 'declared.db'}")
    metadata.create_all(declared)
    for table in metadata.tables:
        shapes = [
            [(it["name"], str(it["type"]), it["nullable"]) for it in inspect(engine).get_columns(table)]
            for engine in (migrated, declared)
        ]
        assert shapes[0] == shapes[1]
    migrated.dispose()
    declared.dispose()


def test_every_commit_is_on_disk_before_it_is_told(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "state.db")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    engine.dispose()
