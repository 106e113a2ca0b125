"""Operations in the state file: the real `OperationStore`.

SQLAlchemy Core with statements that PostgreSQL takes too; every call is one transaction (`transactions`), on disk when
it returns. A step is a row of its own, and a save writes only rows that changed since the last one. To know which, the
store remembers the unfinished operations as they lie on disk: nobody else writes there (`state_file.hold`).
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, delete, insert, or_, select, update

from control_plane.adapters.tables import idempotency_keys, operation_steps, operations
from control_plane.adapters.transactions import Transactions, open_transactions
from control_plane.error_kinds import ErrorKind
from control_plane.operations import (
    FINISHED,
    NO_DEPLOYMENT,
    NO_SERVER,
    PAGE,
    Cursor,
    KeyReused,
    Operation,
    OperationId,
    OperationKind,
    OperationState,
    Step,
    StepAction,
    StepState,
    kept,
)
from control_plane.state import DeploymentName, ModelName, ServerId

_FINISHED = sorted(state.value for state in FINISHED)
_NEWEST_FIRST = (operations.c.created_at.desc(), operations.c.id.desc())


@asynccontextmanager
async def open_operation_store(path: Path) -> AsyncIterator["SqlOperationStore"]:
    """Open the state file at `path` for operations alone. Raises StateFileLockedError, StateFileError."""
    async with open_transactions(path) as transactions:
        yield SqlOperationStore(transactions)


class SqlOperationStore:
    """The journal in the state file; see the port. Give it the `Transactions` of the other stores of that file."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._on_disk: dict[OperationId, Operation] = {}

    async def add(
        self, operation: Operation, idempotency_key: str = "", request_digest: str = ""
    ) -> Operation | KeyReused:
        """Keep a new operation, or return the one that its key or id has."""

        def work(connection: Connection) -> Operation | KeyReused:
            earlier = _with_key(connection, idempotency_key)
            if earlier is not None:
                digest, stored = earlier
                return stored if digest == request_digest else KeyReused(stored)
            known = _find(connection, operation.id)
            if known is None:
                _write(connection, None, operation)
            if idempotency_key:
                values = {"request_digest": request_digest, "operation": operation.id}
                at = _text(operation.created_at)
                connection.execute(insert(idempotency_keys).values(key=idempotency_key, at=at, **values))
            return known or operation

        return await self._transactions.run(work)

    async def by_key(self, idempotency_key: str, request_digest: str) -> Operation | KeyReused | None:
        """Return what `add` would find under a key; None where it is new."""

        def work(connection: Connection) -> Operation | KeyReused | None:
            earlier = _with_key(connection, idempotency_key)
            if earlier is None:
                return None
            digest, stored = earlier
            return stored if digest == request_digest else KeyReused(stored)

        return await self._transactions.run(work)

    async def save(self, *given: Operation) -> None:
        """Write what changed of each of `given`, all or none."""

        def work(connection: Connection) -> dict[OperationId, Operation]:
            written: dict[OperationId, Operation] = {}
            for operation in given:
                stored = written.get(operation.id) or self._on_disk.get(operation.id)
                stored = stored or _find(connection, operation.id)
                result = kept(stored, operation) if stored is not None else operation
                _write(connection, stored, result)
                written[operation.id] = result
            return written

        await self._transactions.run(work, self._remember)

    async def get(self, id: OperationId) -> Operation | None:  # noqa: A002 - as the field is called
        """Return an operation, or None."""
        return await self._transactions.run(lambda connection: _find(connection, id))

    async def list(
        self,
        *,
        states: Collection[OperationState] = (),
        deployment: DeploymentName = NO_DEPLOYMENT,
        server: ServerId = NO_SERVER,
        limit: int = PAGE,
        before: Cursor | None = None,
    ) -> tuple[Operation, ...]:
        """Return the newest operations that pass the filters, or those after the cursor."""
        page = select(operations.c.id).order_by(*_NEWEST_FIRST).limit(limit)
        if states:
            page = page.where(operations.c.state.in_(sorted(state.value for state in states)))
        if deployment != NO_DEPLOYMENT:
            page = page.where(operations.c.deployment == deployment)
        if server != NO_SERVER:
            with_steps = select(operation_steps.c.operation).where(operation_steps.c.server == server)
            page = page.where(or_(operations.c.server == server, operations.c.id.in_(with_steps)))
        if before is not None:
            at = _text(before.created_at)
            same_time = and_(operations.c.created_at == at, operations.c.id < before.id)
            page = page.where(or_(operations.c.created_at < at, same_time))
        return await self._transactions.run(lambda connection: _read(connection, page))

    async def open(self) -> tuple[Operation, ...]:
        """Return every operation that is not finished, the oldest first."""
        unfinished = select(operations.c.id).where(operations.c.state.not_in(_FINISHED))
        newest_first = await self._transactions.run(lambda connection: _read(connection, unfinished))
        return tuple(reversed(newest_first))

    async def prune(self, before: datetime, keep: int) -> int:
        """Drop finished operations; their steps and keys go with them."""
        finished = operations.c.state.in_(_FINISHED)
        newest = select(operations.c.id).where(finished).order_by(*_NEWEST_FIRST).limit(keep)
        statement = delete(operations).where(
            finished, operations.c.updated_at < _text(before), operations.c.id.not_in(newest)
        )
        return await self._transactions.run(lambda connection: connection.execute(statement).rowcount)

    def _remember(self, written: dict[OperationId, Operation]) -> None:
        for id_, operation in written.items():
            if operation.is_finished:
                self._on_disk.pop(id_, None)
            else:
                self._on_disk[id_] = operation


def _find(connection: Connection, id_: OperationId) -> Operation | None:
    found = _read(connection, select(operations.c.id).where(operations.c.id == id_))
    return found[0] if found else None


def _with_key(connection: Connection, key: str) -> tuple[str, Operation] | None:
    row = connection.execute(select(idempotency_keys).where(idempotency_keys.c.key == key)).one_or_none()
    stored = _find(connection, OperationId(row.operation)) if row is not None else None
    return (row.request_digest, stored) if row is not None and stored is not None else None


def _read(connection: Connection, ids: Select[Any]) -> tuple[Operation, ...]:
    """Return the operations that `ids` selects, the newest first."""
    rows = connection.execute(select(operations).where(operations.c.id.in_(ids)).order_by(*_NEWEST_FIRST)).all()
    ordered = select(operation_steps).order_by(operation_steps.c.operation, operation_steps.c.number)
    steps: dict[str, list[Step]] = {}
    for row in connection.execute(ordered.where(operation_steps.c.operation.in_(ids))):
        steps.setdefault(row.operation, []).append(_step(row))
    return tuple(_operation(row, steps.get(row.id, ())) for row in rows)


def _write(connection: Connection, stored: Operation | None, operation: Operation) -> None:
    """Write the rows in which `operation` differs from what is stored."""
    columns = _columns(operation)
    if stored is None:
        connection.execute(insert(operations).values(**columns))
    elif columns != _columns(stored):
        connection.execute(update(operations).where(operations.c.id == operation.id).values(**columns))
    before = stored.steps if stored is not None else ()
    changed = [new for old, new in zip(before, operation.steps, strict=False) if new is not old and new != old]
    added = operation.steps[len(before) :]
    if changed:
        same = and_(operation_steps.c.operation == bindparam("of"), operation_steps.c.number == bindparam("nth"))
        names = [column.name for column in operation_steps.columns if column.name not in ("operation", "number")]
        statement = update(operation_steps).where(same).values({name: bindparam(name) for name in names})
        rows = [{"of": operation.id, "nth": step.number, **_step_columns(operation.id, step)} for step in changed]
        connection.execute(statement, rows)
    if added:
        connection.execute(insert(operation_steps), [_step_columns(operation.id, step) for step in added])


def _columns(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "deployment": operation.deployment,
        "revision": operation.revision,
        "server": operation.server,
        "state": operation.state.value,
        "created_at": _text(operation.created_at),
        "updated_at": _text(operation.updated_at),
        "cause": operation.cause,
        "cancel_asked": operation.cancel_asked,
    }


def _step_columns(operation: OperationId, step: Step) -> dict[str, Any]:
    return {
        "operation": operation,
        "number": step.number,
        "server": step.server,
        "model": step.model,
        "version": step.version,
        "action": step.action.value,
        "reason": step.reason,
        "state": step.state.value,
        "attempts": step.attempts,
        "cause": step.cause,
        "error_kind": step.error_kind.value if step.error_kind is not None else "",
        "started_at": _text(step.started_at) if step.started_at is not None else None,
        "ended_at": _text(step.ended_at) if step.ended_at is not None else None,
        "retry_at": _text(step.retry_at) if step.retry_at is not None else None,
    }


def _operation(row: Row[Any], steps: Iterable[Step]) -> Operation:
    return Operation(
        id=OperationId(row.id),
        kind=OperationKind(row.kind),
        deployment=DeploymentName(row.deployment),
        revision=row.revision,
        server=ServerId(row.server),
        state=OperationState(row.state),
        created_at=datetime.fromisoformat(row.created_at),
        updated_at=datetime.fromisoformat(row.updated_at),
        steps=tuple(steps),
        cause=row.cause,
        cancel_asked=row.cancel_asked,
    )


def _step(row: Row[Any]) -> Step:
    return Step(
        number=row.number,
        server=ServerId(row.server),
        model=ModelName(row.model),
        version=row.version,
        action=StepAction(row.action),
        reason=row.reason,
        state=StepState(row.state),
        attempts=row.attempts,
        cause=row.cause,
        error_kind=ErrorKind(row.error_kind) if row.error_kind else None,
        started_at=_time(row.started_at),
        ended_at=_time(row.ended_at),
        retry_at=_time(row.retry_at),
    )


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
