"""Desired state in SQLite: the real `DeploymentStore`.

SQLAlchemy Core with statements that PostgreSQL takes too. Every call is one transaction, run in a worker thread and one
at a time, and returns once it is on disk (WAL, synchronous=FULL). `state_file` opens, locks and migrates the file.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from builders.targets import PRECISIONS
from control_plane.adapters.state_file import hold, open_engine
from control_plane.adapters.tables import action_records, deployment_pins, deployments
from control_plane.errors import StateFileError
from control_plane.state import ActionRecord, Deployment, DeploymentName, ModelName, Pin, Result, ServerId

_T = TypeVar("_T")


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator["SqlStore"]:
    """Open the state file at `path`, for this process alone. Raises StateFileLockedError, StateFileError."""
    with hold(path):
        engine = await asyncio.to_thread(open_engine, path)
        try:
            yield SqlStore(engine)
        finally:
            await asyncio.to_thread(engine.dispose)


class SqlStore:
    """Deployments and action records in the database behind `engine`. Raises StateFileError when the disk says no."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one_at_a_time = asyncio.Lock()

    async def create(self, deployment: Deployment) -> bool:
        """Add a deployment; False where the name is taken."""

        def work(connection: Connection) -> bool:
            if _find(connection, deployment.name) is not None:
                return False
            connection.execute(insert(deployments).values(**_columns(deployment)))
            _write_pins(connection, deployment)
            return True

        return await self._run(work)

    async def replace(self, *revised: Deployment) -> bool:
        """Write the next revision of each, all or none; False where one that is stored is not the one before it."""

        def work(connection: Connection) -> bool:
            if not all(_is_next(connection, deployment) for deployment in revised):
                return False
            for deployment in revised:
                same = deployments.c.name == deployment.name
                connection.execute(update(deployments).where(same).values(**_columns(deployment)))
                connection.execute(delete(deployment_pins).where(deployment_pins.c.deployment == deployment.name))
                _write_pins(connection, deployment)
            return True

        return await self._run(work)

    async def delete(self, name: DeploymentName) -> bool:
        """Remove a deployment; False where there is none."""

        def work(connection: Connection) -> bool:
            connection.execute(delete(deployment_pins).where(deployment_pins.c.deployment == name))
            return connection.execute(delete(deployments).where(deployments.c.name == name)).rowcount > 0

        return await self._run(work)

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name`, or None."""
        return await self._run(lambda connection: _find(connection, name))

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""

        def work(connection: Connection) -> tuple[Deployment, ...]:
            pins: dict[str, list[Pin]] = {}
            ordered = select(deployment_pins).order_by(deployment_pins.c.deployment, deployment_pins.c.position)
            for row in connection.execute(ordered):
                pins.setdefault(row.deployment, []).append(Pin(ModelName(row.model), row.version))
            rows = connection.execute(select(deployments).order_by(deployments.c.name))
            return tuple(_deployment(row, pins.get(row.name, ())) for row in rows)

        return await self._run(work)

    async def record(self, record: ActionRecord) -> None:
        """Keep `record` as the last one of its server and model."""

        def work(connection: Connection) -> None:
            table = action_records.c
            connection.execute(delete(action_records).where(table.server == record.server, table.model == record.model))
            connection.execute(insert(action_records).values(**_record_columns(record)))

        await self._run(work)

    async def forget(self, models: frozenset[ModelName]) -> None:
        """Drop the records of `models`, on every server."""
        statement = delete(action_records).where(action_records.c.model.in_(sorted(models)))
        await self._run(lambda connection: connection.execute(statement))

    async def records(self) -> tuple[ActionRecord, ...]:
        """Return every record, by server and model."""
        ordered = select(action_records).order_by(action_records.c.server, action_records.c.model)
        return await self._run(lambda connection: tuple(_record(row) for row in connection.execute(ordered)))

    async def _run(self, work: Callable[[Connection], _T]) -> _T:
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._transact, work)

    def _transact(self, work: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as exc:
            reason = getattr(exc, "orig", None) or exc
            raise StateFileError(
                f"{self._engine.url.database}: the state could not be read or written: {reason}"
            ) from exc


def _find(connection: Connection, name: DeploymentName) -> Deployment | None:
    row = connection.execute(select(deployments).where(deployments.c.name == name)).one_or_none()
    if row is None:
        return None
    own = select(deployment_pins).where(deployment_pins.c.deployment == name).order_by(deployment_pins.c.position)
    return _deployment(row, [Pin(ModelName(pin.model), pin.version) for pin in connection.execute(own)])


def _is_next(connection: Connection, deployment: Deployment) -> bool:
    stored = select(deployments.c.revision).where(deployments.c.name == deployment.name)
    return connection.execute(stored).scalar_one_or_none() == deployment.revision - 1


def _write_pins(connection: Connection, deployment: Deployment) -> None:
    rows = [
        {"deployment": deployment.name, "position": position, "model": pin.model, "version": pin.version}
        for position, pin in enumerate(deployment.pins)
    ]
    if rows:
        connection.execute(insert(deployment_pins), rows)


def _columns(deployment: Deployment) -> dict[str, Any]:
    return {
        "name": deployment.name,
        "model": deployment.model,
        "version": deployment.version,
        "revision": deployment.revision,
        "created_at": deployment.created_at.isoformat(),
        "updated_at": deployment.updated_at.isoformat(),
        "precisions": " ".join(deployment.precisions),
        "allow_unproven": deployment.allow_unproven,
    }


def _deployment(row: Row[Any], pins: Iterable[Pin]) -> Deployment:
    return Deployment(
        name=DeploymentName(row.name),
        model=ModelName(row.model),
        version=row.version,
        pins=tuple(pins),
        revision=row.revision,
        created_at=datetime.fromisoformat(row.created_at),
        updated_at=datetime.fromisoformat(row.updated_at),
        precisions=tuple(known for word in row.precisions.split() for known in PRECISIONS if known == word),
        allow_unproven=row.allow_unproven,
    )


def _record_columns(record: ActionRecord) -> dict[str, Any]:
    return {
        "server": record.server,
        "model": record.model,
        "version": record.version,
        "result": record.result.value,
        "reason": record.reason,
        "at": record.at.isoformat(),
        "failures": record.failures,
        "retry_at": record.retry_at.isoformat() if record.retry_at is not None else None,
    }


def _record(row: Row[Any]) -> ActionRecord:
    return ActionRecord(
        server=ServerId(row.server),
        model=ModelName(row.model),
        version=row.version,
        result=Result(row.result),
        reason=row.reason,
        at=datetime.fromisoformat(row.at),
        failures=row.failures,
        retry_at=datetime.fromisoformat(row.retry_at) if row.retry_at is not None else None,
    )
