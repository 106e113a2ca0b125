"""The journal of the loop: which operation each step belongs to, and what became of it, written before and after.

`deployments` opens an operation for every revision that it writes, `api` one for a drain; steps that nobody asked for
belong to a healing of their server. Every state is durable before anybody can see it. Where the control plane ends in
between, the steps that ran are queued again at the next start, and the servers tell what took effect.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.actions import (
    Action,
    Failed,
    Load,
    Loaded,
    Outcome,
    Restart,
    Restarted,
    Skipped,
    Unload,
    Unloaded,
)
from control_plane.error_kinds import kind_of
from control_plane.open_operations import OpenOperations
from control_plane.operations import (
    FINISHED,
    INTERRUPTED,
    NO_SERVER,
    KeyReused,
    Operation,
    OperationId,
    OperationKind,
    OperationState,
    OperationStore,
    PlannedStep,
    StepAction,
    StepDone,
    StepFailed,
    StepKey,
    StepOutcome,
    StepSkipped,
    StepState,
    interrupted,
    operation_id,
    queued,
    settled,
    step_ended,
    step_started,
    superseded,
    with_cancel_asked,
    with_planned,
)
from control_plane.planning import DeploymentState, DeploymentStatus, Plan, PlannedAction
from control_plane.state import (
    NO_VERSION,
    Deployment,
    DeploymentName,
    ModelName,
    ModelState,
    ObservedServer,
    ServerId,
)

logger = logging.getLogger(__name__)

KEPT_FOR = timedelta(days=7)
KEPT_AT_LEAST = 1000
"""Finished operations that are kept however old they are."""
_PRUNED_EVERY = timedelta(hours=1)
_SEEN = f"{INTERRUPTED}; the server shows it as it was to be"
_NOT_NEEDED = "It was not needed any more after a restart of the control plane."


@dataclass(frozen=True, slots=True)
class Request:
    """A request that its sender may send again: its idempotency key, and a digest of all that it asks for."""

    key: str
    digest: str


REQUEST: ContextVar[Request | None] = ContextVar("request", default=None)
"""The request that is being answered, where it came with an idempotency key: what it begins is found by that."""


class Journal:
    """The open operations, each with one copy here. Use from one event loop; call `recover` before anything else."""

    def __init__(self, store: OperationStore, now: Callable[[], datetime]) -> None:
        self.store = store
        self.keyed = asyncio.Lock()  # two requests with one key must not both find it new
        self._now = now
        # Operations are read, advanced and saved as one: without this, of two steps that begin at once the second
        # would be saved over an operation that does not hold the first.
        self._writing = asyncio.Lock()
        self._open = OpenOperations()
        self._inherited: set[tuple[OperationId, StepKey]] = set()
        self._listeners: list[Callable[[Operation], None]] = []
        self._pruned_at: datetime | None = None

    async def recover(self) -> None:
        """Take up what an earlier control plane left open."""
        async with self._writing:
            now = self._now()
            for operation in await self.store.open():
                self._open.put(operation)
            await self._save(*(interrupted(operation, now) for operation in self._open.values()))
            newest = {it.deployment: it for it in sorted(self._open.values(), key=lambda it: it.created_at)}
            for operation in newest.values():
                await self._supersede(operation, now)
            self._inherited = {
                (it.id, step.key) for it in self._open.values() for step in it.steps if step.state is StepState.QUEUED
            }

    def listen(self, changed: Callable[[Operation], None]) -> Callable[[], None]:
        """Have `changed` called with every operation that was written. Call the result to end that."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def begin(
        self,
        kind: OperationKind,
        *,
        deployment: Deployment | None = None,
        server: ServerId | None = None,
        released: frozenset[ModelName] = frozenset(),
    ) -> Operation:
        """Open an operation about a deployment's revision, or about a server. It ends those that it makes pointless.

        `released` are the models that an undeploy leaves to nobody.
        """
        async with self._writing:
            return await self._begin(kind, deployment, server, released)

    async def _begin(
        self,
        kind: OperationKind,
        deployment: Deployment | None,
        server: ServerId | None,
        released: frozenset[ModelName] = frozenset(),
    ) -> Operation:
        now = self._now()
        subject = deployment.name if deployment is not None else server or ""
        revision = deployment.revision if deployment is not None else 0
        new = queued(
            operation_id(kind, subject, revision, now),
            kind,
            now,
            deployment=deployment.name if deployment is not None else DeploymentName(""),
            revision=revision,
            server=server or ServerId(""),
        )
        request = REQUEST.get() or Request("", "")
        stored = await self.store.add(new, request.key, request.digest)
        if isinstance(stored, KeyReused) or stored.id != new.id:  # an operation before this one of the same request
            stored = await self.store.add(new)
        assert isinstance(stored, Operation)  # noqa: S101 - no key was given
        self._open.put(stored)
        self._open.release(stored.id, released)
        self._tell(stored)
        if deployment is not None:
            await self._supersede(stored, now)
        return stored

    async def _supersede(self, newest: Operation, now: datetime) -> None:
        """Cancel the older operations that a newer one makes pointless."""
        older = [it for it in self._open.of(newest.deployment) if it.id != newest.id]
        await self._save(*(superseded(it, newest, now) for it in older))

    async def announce(self, kind: OperationKind, deployment: Deployment, released: frozenset[ModelName]) -> None:
        """Open the operation of a revision that was written; what `deployments` calls."""
        await self.begin(kind, deployment=deployment, released=released)

    def open_of(self, deployment: DeploymentName) -> Operation | None:
        """Return the newest open operation about a deployment, or None."""
        return max(self._open.of(deployment), key=lambda it: it.created_at, default=None)

    def open_now(self) -> frozenset[OperationId]:
        """Return what is open. Asked before a pass reads the deployments, it is what that pass can judge."""
        return frozenset(self._open)

    def current(self, name: OperationId) -> Operation | None:
        """Return an open operation as it is now; None where it is finished, or none."""
        return self._open.get(name)

    async def cancel(self, name: OperationId, cause: str) -> Operation | None:
        """Begin nothing more of an operation; None where there is none that is open."""
        async with self._writing:
            operation = self._open.get(name)
            if operation is None:
                return None
            await self._save(with_cancel_asked(operation, self._now(), cause))
            return self._open.get(name) or await self.store.get(name)

    def is_cancelled(self, step: PlannedAction) -> bool:
        """Tell whether everybody who asked for a step has cancelled it; what nobody asked for goes on."""
        owners = self._open.with_step(_key(step))
        return bool(owners) and all(it.cancel_asked for it in owners)

    async def planned(self, plan: Plan) -> None:
        """Give every planned step to the operations that it is for, or to a healing of its server."""
        async with self._writing:
            await self._planned(plan)

    async def _planned(self, plan: Plan) -> None:
        now = self._now()
        by_operation: dict[OperationId, list[PlannedStep]] = {}
        unowned: dict[ServerId, list[PlannedStep]] = {}
        for step in plan.steps:
            entry = PlannedStep(_key(step), step.reason)
            owners = self._owners(step)
            for owner in owners:
                by_operation.setdefault(owner, []).append(entry)
            if not owners:
                unowned.setdefault(step.action.server, []).append(entry)
        for server, entries in unowned.items():
            healing = self._healing(server) or await self._begin(OperationKind.HEAL, None, server)
            by_operation.setdefault(healing.id, []).extend(entries)
        await self._save(*(with_planned(self._open[it], entries, now) for it, entries in by_operation.items()))

    async def started(self, step: PlannedAction) -> None:
        """Write down that a step begins, before it does."""
        key, now = _key(step), self._now()
        async with self._writing:
            await self._save(*(step_started(it, key, now) for it in self._open.with_step(key)))

    async def ended(self, step: PlannedAction, outcome: Outcome, retry_at: datetime | None) -> None:
        """Write down how a step ended."""
        key, now, result = _key(step), self._now(), _result(outcome, retry_at)
        async with self._writing:
            await self._save(*(step_ended(it, key, result, now) for it in self._open.with_step(key)))

    async def settle(
        self,
        plan: Plan,
        statuses: Mapping[DeploymentName, tuple[Deployment, DeploymentStatus]],
        observed: Mapping[ServerId, ObservedServer],
        known: frozenset[OperationId],
    ) -> None:
        """Finish the operations that are at their end, by what was just seen. What is planned still is not.

        Only those in `known`, which were open before that was looked at: a deployment written since is not in it.
        """
        async with self._writing:
            await self._settle(plan, statuses, observed, known)

    async def _settle(
        self,
        plan: Plan,
        statuses: Mapping[DeploymentName, tuple[Deployment, DeploymentStatus]],
        observed: Mapping[ServerId, ObservedServer],
        known: frozenset[OperationId],
    ) -> None:
        if not self._open:
            return
        now, still = self._now(), {(_key(step)) for step in plan.steps}
        await self._end_inherited(plan, still, observed, now)
        ended = []
        for operation in (it for it in self._open.values() if it.id in known):
            if any(step.state is StepState.RUNNING for step in operation.steps):
                continue
            if any(step.is_open and step.key in still for step in operation.steps):
                continue
            if operation.kind is OperationKind.HEAL:  # what is not planned any more is ended as after a restart
                self._inherited |= {(operation.id, step.key) for step in operation.steps if step.is_open}
            ended.append(self._judge(operation, statuses, observed, now))
        await self._save(*ended)
        await self._prune(now)

    async def _end_inherited(
        self, plan: Plan, still: Collection[StepKey], observed: Mapping[ServerId, ObservedServer], now: datetime
    ) -> None:
        """End the steps of an earlier control plane that are not planned again, by what their servers show.

        Nobody else would: what took effect while nobody listened is seen, and never planned.
        """
        waiting = {(it.server, it.model) for it in plan.waiting}
        changed = dict(self._open)
        for name, key in sorted(self._inherited):
            seen, operation = observed.get(key.server), changed.get(name)
            if operation is None or key in still:
                self._inherited.discard((name, key))
            elif (seen is None or seen.answers) and (key.server, key.model) not in waiting:
                self._inherited.discard((name, key))
                step = operation.step(key)
                tried = step is not None and step.attempts > 0
                shown = tried and seen is not None and _shows(seen, key)
                outcome = StepDone(_SEEN) if shown else StepSkipped(_NOT_NEEDED)
                changed[name] = step_ended(operation, key, outcome, now)
        await self._save(*changed.values())

    def _judge(  # noqa: PLR0911 - an end each
        self,
        operation: Operation,
        statuses: Mapping[DeploymentName, tuple[Deployment, DeploymentStatus]],
        observed: Mapping[ServerId, ObservedServer],
        now: datetime,
    ) -> Operation:
        waits = any(step.state is StepState.WAITING for step in operation.steps)
        match operation.kind:
            case OperationKind.HEAL:
                return operation if waits else settled(operation, now, serves=None)
            case OperationKind.DRAIN:
                seen = observed.get(operation.server)
                if seen is None:
                    return with_cancel_asked(operation, now, f"Server '{operation.server}' is not there any more.")
                return settled(operation, now, serves=True) if not _ready(seen) else operation
            case OperationKind.UNDEPLOY:
                held = self._open.released_by(operation.id)
                if held is None:  # begun by an earlier control plane: whatever no deployment pins is to go
                    pinned = {pin.model for deployment, _ in statuses.values() for pin in deployment.all_pins}
                    left = any(_ready(seen) - pinned for seen in observed.values() if seen.answers)
                else:
                    left = any(_ready(seen) & held for seen in observed.values() if seen.answers)
                return operation if left or waits else settled(operation, now, serves=True)
            case _:
                found = statuses.get(operation.deployment)
                if found is None:
                    return with_cancel_asked(operation, now, f"Deployment '{operation.deployment}' is gone.")
                deployment, status = found
                if deployment.revision < operation.revision:
                    return operation  # seen before it was written
                return _judged_by(operation, status, now, waits=waits)

    def _owners(self, step: PlannedAction) -> list[OperationId]:
        action = step.action
        found = [it for name in step.needed_by for it in self._open.of(name)]
        if isinstance(action, Unload):
            found.extend(self._open.releasing(action.model))
            found.extend(self._open.on(action.server, OperationKind.DRAIN))
            if not found:  # an undeploy that an earlier control plane began
                undeploys = self._open.on(NO_SERVER, OperationKind.UNDEPLOY)
                found.extend(it for it in undeploys if self._open.released_by(it.id) is None)
        return list(dict.fromkeys(it.id for it in found))

    def _healing(self, server: ServerId) -> Operation | None:
        return next(iter(self._open.on(server, OperationKind.HEAL)), None)

    async def _save(self, *operations: Operation) -> None:
        changed = [it for it in operations if it is not self._open.get(it.id)]
        if not changed:
            return
        await self.store.save(*changed)
        for operation in changed:
            if operation.state in FINISHED:
                self._open.drop(operation.id)
                level = logging.INFO if operation.state is OperationState.DONE else logging.WARNING
                logger.log(level, "Operation %s is %s. %s", operation.id, operation.state, operation.cause)
            else:
                self._open.put(operation)
            self._tell(operation)

    async def _prune(self, now: datetime) -> None:
        if self._pruned_at is None or now - self._pruned_at >= _PRUNED_EVERY:
            self._pruned_at = now
            await self.store.prune(now - KEPT_FOR, KEPT_AT_LEAST)

    def _tell(self, operation: Operation) -> None:
        for listener in tuple(self._listeners):
            listener(operation)


def _judged_by(operation: Operation, status: DeploymentStatus, now: datetime, *, waits: bool) -> Operation:
    match status.state:
        case DeploymentState.SERVING:
            return settled(operation, now, serves=True)
        case DeploymentState.FAILED | DeploymentState.DEGRADED if not waits:
            told = [*status.reasons, *(f"{it.server}: {it.reason}" for it in status.servers if it.reason)]
            return settled(operation, now, serves=False, cause=" ".join(told))
        case _:
            return operation


def _shows(seen: ObservedServer, key: StepKey) -> bool:
    """Whether a server is as a step was to make it."""
    if key.action is StepAction.UNLOAD:
        return key.model not in _ready(seen)
    return key.version in seen.ready_versions(key.model)


def _ready(seen: ObservedServer) -> frozenset[ModelName]:
    return frozenset(row.name for row in seen.models if row.state is ModelState.READY)


def _key(step: PlannedAction) -> StepKey:
    action = step.action
    version = action.version if isinstance(action, Load) else NO_VERSION
    return StepKey(action.server, action.model, version, _word(action, step))


def _word(action: Action, step: PlannedAction) -> StepAction:
    match action:
        case Unload():
            return StepAction.UNLOAD
        case Restart():
            return StepAction.RESTART
        case Load():
            return StepAction(step.kind)


def _result(outcome: Outcome, retry_at: datetime | None) -> StepOutcome:
    match outcome:
        case Loaded() | Unloaded() | Restarted():
            return StepDone()
        case Failed():
            return StepFailed(outcome.reason, outcome.kind or kind_of(outcome.reason), retry_at)
        case Skipped():
            return StepSkipped(outcome.reason)
