"""Operations in memory: a fake `OperationStore`, and short ways to make operations for tests."""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

from control_plane.operations import (
    NO_DEPLOYMENT,
    NO_SERVER,
    PAGE,
    Cursor,
    KeyReused,
    Operation,
    OperationId,
    OperationKind,
    OperationState,
    PlannedStep,
    StepAction,
    StepKey,
    kept,
    queued,
)
from control_plane.state import DeploymentName, ModelName, ServerId
from tests.fakes.world import START


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_key(server: str = "s0", model: str = "m", version: int = 1, action: StepAction = StepAction.LOAD) -> StepKey:
    return StepKey(ServerId(server), ModelName(model), version, action)


def planned(*keys: StepKey) -> tuple[PlannedStep, ...]:
    return tuple(PlannedStep(key, "It is needed.") for key in keys)


def an_operation(
    name: str = "o", at: float = 0, deployment: str = "d", revision: int = 1, server: str = ""
) -> Operation:
    """Return an operation without steps, made `at` seconds after START."""
    kind = OperationKind.DEPLOY if deployment else OperationKind.DRAIN
    return queued(
        OperationId(name),
        kind,
        after(at),
        deployment=DeploymentName(deployment),
        revision=revision,
        server=ServerId(server),
    )


class FakeOperationStore:
    """An `OperationStore` in memory. `saves` counts the operations of each call of `save`."""

    def __init__(self) -> None:
        self._operations: dict[OperationId, Operation] = {}
        self._keys: dict[str, tuple[str, OperationId]] = {}
        self.saves: list[int] = []

    async def add(
        self, operation: Operation, idempotency_key: str = "", request_digest: str = ""
    ) -> Operation | KeyReused:
        if idempotency_key in self._keys:
            digest, earlier = self._keys[idempotency_key]
            stored = self._operations[earlier]
            return stored if digest == request_digest else KeyReused(stored)
        stored = self._operations.setdefault(operation.id, operation)
        if idempotency_key:
            self._keys[idempotency_key] = (request_digest, stored.id)
        return stored

    async def by_key(self, idempotency_key: str, request_digest: str) -> Operation | KeyReused | None:
        if idempotency_key not in self._keys:
            return None
        digest, name = self._keys[idempotency_key]
        return self._operations[name] if digest == request_digest else KeyReused(self._operations[name])

    async def save(self, *operations: Operation) -> None:
        await asyncio.sleep(0)  # as the real one does, whose file is written in a thread: others run meanwhile
        self.saves.append(len(operations))
        for operation in operations:
            stored = self._operations.get(operation.id)
            self._operations[operation.id] = kept(stored, operation) if stored is not None else operation

    async def get(self, id: OperationId) -> Operation | None:  # noqa: A002 - as the port calls it
        return self._operations.get(id)

    async def list(
        self,
        *,
        states: Collection[OperationState] = (),
        deployment: DeploymentName = NO_DEPLOYMENT,
        server: ServerId = NO_SERVER,
        limit: int = PAGE,
        before: Cursor | None = None,
    ) -> tuple[Operation, ...]:
        def belongs(operation: Operation) -> bool:
            on = {operation.server, *(step.server for step in operation.steps)}
            return (
                (not states or operation.state in states)
                and deployment in (NO_DEPLOYMENT, operation.deployment)
                and (server == NO_SERVER or server in on)
                and (before is None or Cursor.after(operation) < before)
            )

        return tuple(operation for operation in self._newest_first() if belongs(operation))[:limit]

    async def open(self) -> tuple[Operation, ...]:
        return tuple(operation for operation in reversed(self._newest_first()) if not operation.is_finished)

    async def prune(self, before: datetime, keep: int) -> int:
        finished = [operation for operation in self._newest_first() if operation.is_finished]
        gone = {operation.id for operation in finished[keep:] if operation.updated_at < before}
        self._operations = {id_: operation for id_, operation in self._operations.items() if id_ not in gone}
        self._keys = {key: entry for key, entry in self._keys.items() if entry[1] not in gone}
        return len(gone)

    def _newest_first(self) -> tuple[Operation, ...]:
        return tuple(sorted(self._operations.values(), key=Cursor.after, reverse=True))
