"""Desired state in SQLite: the real `DeploymentStore`.

SQLAlchemy Core with statements that PostgreSQL takes too. Every call is one transaction (`transactions`), and returns
once it is on disk (WAL, synchronous=FULL). `state_file` opens, locks and migrates the file.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, delete, insert, select, update

from builders.targets import PRECISIONS
from control_plane.adapters.tables import (
    action_records,
    deployment_pins,
    deployment_revisions,
    deployments,
    registered_servers,
    server_marks,
)
from control_plane.adapters.transactions import Transactions, open_transactions
from control_plane.state import (
    ActionRecord,
    Deployment,
    DeploymentName,
    Mark,
    ModelName,
    Pin,
    Result,
    Server,
    ServerId,
    Track,
)
from control_plane.wanted import Needs

_NEEDS = TypeAdapter(Needs)
_TRACKS = TypeAdapter(tuple[Track, ...])
_DEPLOYMENT = TypeAdapter(Deployment)
_SERVER = TypeAdapter(Server)

KEPT_REVISIONS = 50
"""How many revisions of a deployment a rollback can choose from."""


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator["SqlStore"]:
    """Open the state file at `path`, for this process alone. Raises StateFileLockedError, StateFileError."""
    async with open_transactions(path) as transactions:
        yield SqlStore(transactions)


class SqlStore:
    """Deployments and action records in the state file. Raises StateFileError when the disk says no."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    async def create(self, deployment: Deployment) -> bool:
        """Add a deployment; False where the name is taken."""

        def work(connection: Connection) -> bool:
            if _find(connection, deployment.name) is not None:
                return False
            connection.execute(insert(deployments).values(**_columns(deployment)))
            _write_pins(connection, deployment)
            _write_revision(connection, deployment)
            return True

        return await self._transactions.run(work)

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
                _write_revision(connection, deployment)
            return True

        return await self._transactions.run(work)

    async def delete(self, name: DeploymentName) -> bool:
        """Remove a deployment; False where there is none."""

        def work(connection: Connection) -> bool:
            connection.execute(delete(deployment_pins).where(deployment_pins.c.deployment == name))
            connection.execute(delete(deployment_revisions).where(deployment_revisions.c.deployment == name))
            return connection.execute(delete(deployments).where(deployments.c.name == name)).rowcount > 0

        return await self._transactions.run(work)

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name`, or None."""
        return await self._transactions.run(lambda connection: _find(connection, name))

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""

        def work(connection: Connection) -> tuple[Deployment, ...]:
            pins: dict[str, list[Pin]] = {}
            ordered = select(deployment_pins).order_by(deployment_pins.c.deployment, deployment_pins.c.position)
            for row in connection.execute(ordered):
                pins.setdefault(row.deployment, []).append(Pin(ModelName(row.model), row.version))
            rows = connection.execute(select(deployments).order_by(deployments.c.name))
            return tuple(_deployment(row, pins.get(row.name, ())) for row in rows)

        return await self._transactions.run(work)

    async def revisions(self, name: DeploymentName) -> tuple[Deployment, ...]:
        """Return every revision of the deployment `name` that is kept, the newest first."""
        own = deployment_revisions.c.deployment == name
        ordered = select(deployment_revisions).where(own).order_by(deployment_revisions.c.revision.desc())

        def work(connection: Connection) -> tuple[Deployment, ...]:
            return tuple(_DEPLOYMENT.validate_json(row.body) for row in connection.execute(ordered))

        return await self._transactions.run(work)

    async def mark(self, mark: Mark) -> None:
        """Have a server hold nothing, until `unmark`."""

        def work(connection: Connection) -> None:
            connection.execute(delete(server_marks).where(server_marks.c.server == mark.server))
            values = {"server": mark.server, "reason": mark.reason, "by_operator": mark.by_operator}
            connection.execute(insert(server_marks).values(**values, at=mark.at.isoformat()))

        await self._transactions.run(work)

    async def unmark(self, server: ServerId) -> bool:
        """Let a server hold what it should again; False where it was not marked."""
        statement = delete(server_marks).where(server_marks.c.server == server)
        return await self._transactions.run(lambda connection: connection.execute(statement).rowcount > 0)

    async def marks(self) -> tuple[Mark, ...]:
        """Return every mark, by server."""

        def work(connection: Connection) -> tuple[Mark, ...]:
            rows = connection.execute(select(server_marks).order_by(server_marks.c.server))
            return tuple(
                Mark(ServerId(row.server), row.reason, datetime.fromisoformat(row.at), row.by_operator) for row in rows
            )

        return await self._transactions.run(work)

    async def register(self, server: Server) -> None:
        """Keep a server that somebody registered, in place of one with its id."""

        def work(connection: Connection) -> None:
            connection.execute(delete(registered_servers).where(registered_servers.c.server == server.id))
            body = _SERVER.dump_json(server).decode()
            connection.execute(insert(registered_servers).values(server=server.id, body=body))

        await self._transactions.run(work)

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server, with its mark and records; False where there is none."""

        def work(connection: Connection) -> bool:
            connection.execute(delete(server_marks).where(server_marks.c.server == server))
            connection.execute(delete(action_records).where(action_records.c.server == server))
            statement = delete(registered_servers).where(registered_servers.c.server == server)
            return connection.execute(statement).rowcount > 0

        return await self._transactions.run(work)

    async def registered(self) -> tuple[Server, ...]:
        """Return every registered server, by id."""

        def work(connection: Connection) -> tuple[Server, ...]:
            rows = connection.execute(select(registered_servers).order_by(registered_servers.c.server))
            return tuple(_SERVER.validate_json(row.body) for row in rows)

        return await self._transactions.run(work)

    async def record(self, record: ActionRecord) -> None:
        """Keep `record` as the last one of its server and model."""

        def work(connection: Connection) -> None:
            table = action_records.c
            connection.execute(delete(action_records).where(table.server == record.server, table.model == record.model))
            connection.execute(insert(action_records).values(**_record_columns(record)))

        await self._transactions.run(work)

    async def forget(self, models: frozenset[ModelName], server: ServerId | None = None) -> None:
        """Drop the records of `models`, on every server or on one."""
        statement = delete(action_records).where(action_records.c.model.in_(sorted(models)))
        if server is not None:
            statement = statement.where(action_records.c.server == server)
        await self._transactions.run(lambda connection: connection.execute(statement))

    async def records(self) -> tuple[ActionRecord, ...]:
        """Return every record, by server and model."""
        ordered = select(action_records).order_by(action_records.c.server, action_records.c.model)
        return await self._transactions.run(
            lambda connection: tuple(_record(row) for row in connection.execute(ordered))
        )


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


def _write_revision(connection: Connection, deployment: Deployment) -> None:
    own = deployment_revisions.c.deployment == deployment.name
    connection.execute(
        insert(deployment_revisions).values(
            deployment=deployment.name,
            revision=deployment.revision,
            body=_DEPLOYMENT.dump_json(deployment).decode(),
        )
    )
    connection.execute(
        delete(deployment_revisions).where(own, deployment_revisions.c.revision <= deployment.revision - KEPT_REVISIONS)
    )


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
        "needs": _NEEDS.dump_json(deployment.needs).decode(),
        "others": _TRACKS.dump_json(deployment.others).decode(),
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
        others=_TRACKS.validate_json(row.others),
        needs=_NEEDS.validate_json(row.needs),
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
