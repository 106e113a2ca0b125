"""The loop: observe every server, plan, hand each server its part, observe again.

Woken by a change of a deployment, by the fleet, by an execution that ended, by a retry that is due, and by an interval.
Each server is worked on in a task of its own, so a load that hangs on one delays no other. An error that nobody
expected ends neither the loop nor a task: it is logged, counted and shown by `api`.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from control_plane.actions import Failed, Load, Loaded, Outcome, Skipped, Unloaded
from control_plane.executor import Executor
from control_plane.metrics import Metrics
from control_plane.planning import (
    DeploymentStatus,
    Plan,
    PlannedAction,
    deployment_status,
    held_back,
    next_retry,
    plan_lifecycle,
    retry_delay_s,
)
from control_plane.ports import Catalogue, DeploymentStore, Fleet, TritonControl
from control_plane.state import (
    NO_VERSION,
    ActionRecord,
    Deployment,
    ModelName,
    ObservedServer,
    Published,
    Result,
    Server,
    ServerCondition,
    ServerId,
)

_OBSERVED_AT_ONCE = 64
_UNREACHABLE_INTERVAL_S = 1.0
_SOON = timedelta(seconds=10)

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time, the way all of the control plane tells it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class World:
    """The ports that the loop works through."""

    store: DeploymentStore
    catalogue: Catalogue
    fleet: Fleet
    triton: TritonControl


@dataclass(frozen=True, slots=True)
class Timing:
    """When the loop looks, in seconds, and where it has the time and the dice (in [0, 1)) from."""

    interval_s: float = 5.0
    now: Callable[[], datetime] = utc_now
    jitter: Callable[[], float] = random.SystemRandom().random


@dataclass(frozen=True, slots=True)
class View:
    """What the last pass saw and decided. `started_at` is None before the first one ended."""

    started_at: datetime | None = None
    observed: tuple[ObservedServer, ...] = ()
    published: Published = field(default_factory=Published)
    plan: Plan = field(default_factory=Plan)
    records: Mapping[tuple[ServerId, ModelName], ActionRecord] = field(default_factory=dict)

    def status_of(self, deployment: Deployment) -> DeploymentStatus:
        """Return what this pass saw of `deployment`."""
        reasons = self.plan.reasons_against(deployment.name)
        return deployment_status(deployment, self.observed, self.records, reasons, self.plan.targets_by_place())

    def has_seen(self, deployment: Deployment) -> bool:
        """Tell whether this pass began after `deployment` was written."""
        return self.started_at is not None and self.started_at >= deployment.updated_at


class Reconciler:
    """Runs passes until it is cancelled; `view` is what the last one saw. Use from one event loop."""

    def __init__(self, world: World, executor: Executor, metrics: Metrics, timing: Timing | None = None) -> None:
        self._world, self._executor, self._metrics = world, executor, metrics
        self._timing = timing or Timing()
        self.view = View()
        self.passes = 0
        self.last_error = ""
        self._woken = asyncio.Event()
        self._pass_ended = asyncio.Event()
        self._busy: dict[ServerId, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Have a pass begin at once, or another one after the one that is under way."""
        self._woken.set()

    async def run(self) -> None:
        """Reconcile until cancelled; what is being carried out then is cancelled too."""
        forget = self._world.fleet.listen(self.wake)
        try:
            while True:
                self._woken.clear()
                try:
                    await self.run_pass()
                except Exception as error:
                    logger.exception("Unexpected error in a pass")
                    self._take_note("pass", error)
                await self._until_woken()
        finally:
            forget()
            await self._stop_executions()

    async def run_pass(self) -> Plan:
        """Observe, plan, and begin to carry out. Returns the plan without waiting for its execution."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        busy = frozenset(self._busy)
        deployments = await self._world.store.list()
        view = await self._look(deployments)
        self._begin_executions(view, busy)
        states = [view.status_of(deployment).state for deployment in deployments]
        self._metrics.passed(clock() - begun, view.observed, states)
        self.view = view
        self.passes += 1
        self._pass_ended.set()
        self._pass_ended = asyncio.Event()
        return view.plan

    async def preview(self) -> Plan:
        """Observe and plan now, without touching anything."""
        return (await self._look(await self._world.store.list())).plan

    async def pass_ended(self) -> None:
        """Wait for the end of the next pass."""
        await self._pass_ended.wait()

    async def executions_ended(self) -> None:
        """Wait for what is being carried out now."""
        await asyncio.gather(*self._busy.values())

    async def _look(self, deployments: tuple[Deployment, ...]) -> View:
        started_at = self._timing.now()
        observed = await self._observe()
        published = await asyncio.to_thread(self._world.catalogue.read)
        records = await self._world.store.records()
        plan = plan_lifecycle(deployments, published, observed, held_back(records, self._timing.now()))
        by_place = {(record.server, record.model): record for record in records}
        return View(started_at, observed, published, plan, by_place)

    async def _observe(self) -> tuple[ObservedServer, ...]:
        room = asyncio.Semaphore(_OBSERVED_AT_ONCE)

        async def ask(server: Server) -> ObservedServer:
            async with room:
                seen = await self._world.triton.observe(server)
            note = self._world.fleet.note(server.id)
            if seen.condition is ServerCondition.UNREACHABLE and note:
                return replace(seen, detail=f"{note} {seen.detail}")
            return seen

        return tuple(await asyncio.gather(*(ask(server) for server in self._world.fleet.servers())))

    def _begin_executions(self, view: View, busy: frozenset[ServerId]) -> None:
        """Begin on every server that nothing was being done on when it was observed."""
        servers = {entry.server.id: entry.server for entry in view.observed}
        for server_id, steps in view.plan.by_server().items():
            if server_id not in busy and server_id not in self._busy:
                task = asyncio.create_task(
                    self._execute(servers[server_id], _due(steps), view), name=f"execute on {server_id}"
                )
                self._busy[server_id] = task

    async def _execute(self, server: Server, steps: tuple[PlannedAction, ...], view: View) -> None:
        try:
            await self._executor.execute(server, steps, lambda outcome: self._keep(outcome, view))
        except Exception as error:  # no wake: the interval keeps a bug from becoming a hot loop
            logger.exception("Unexpected error in the execution on server %s", server.id)
            self._take_note("execution", error)
        else:
            self.wake()
        finally:
            del self._busy[server.id]

    async def _keep(self, outcome: Outcome, view: View) -> None:
        self._metrics.outcome(outcome)
        record = self._record(outcome, view.records.get((outcome.action.server, outcome.action.model)))
        if record is not None:
            await self._world.store.record(record)

    def _record(self, outcome: Outcome, before: ActionRecord | None) -> ActionRecord | None:
        """Return what to remember of `outcome`; None where nothing was tried."""
        action, now = outcome.action, self._timing.now()
        version = action.version if isinstance(action, Load) else NO_VERSION
        match outcome:
            case Loaded():
                return self._loaded(ActionRecord(action.server, action.model, version, Result.LOADED, "", now), before)
            case Unloaded():
                return ActionRecord(action.server, action.model, version, Result.UNLOADED, "", now)
            case Failed():
                again = before is not None and before.result is Result.FAILED and before.version == version
                failures = before.failures + 1 if again and before is not None else 1
                logger.warning("%s failed, %d in a row: %s", action, failures, outcome.reason)
                delay_s = retry_delay_s(failures, self._timing.jitter(), permanent=not outcome.retryable)
                retry_at = now + timedelta(seconds=delay_s)
                return ActionRecord(
                    action.server, action.model, version, Result.FAILED, outcome.reason, now, failures, retry_at
                )
            case Skipped():
                return None
            case _:
                assert_never(outcome)

    def _loaded(self, record: ActionRecord, before: ActionRecord | None) -> ActionRecord:
        """Slow down where a load does not last: Triton says yes and the model is not there, or somebody undoes it."""
        if before is None or before.result is not Result.LOADED or before.version != record.version:
            return record
        held_back_for = before.retry_at - before.at if before.retry_at is not None else timedelta()
        if record.at - before.at > held_back_for + _SOON:
            return record
        times = before.failures + 1
        retry_at = record.at + timedelta(seconds=retry_delay_s(times, self._timing.jitter()))
        return replace(record, reason="It was loaded, and soon not ready any more.", failures=times, retry_at=retry_at)

    async def _until_woken(self) -> None:
        wait_s = self._timing.interval_s
        if any(entry.condition is ServerCondition.UNREACHABLE for entry in self.view.observed):
            wait_s = min(wait_s, _UNREACHABLE_INTERVAL_S)
        due_s = next_retry(self.view.records.values(), self._timing.now())
        if due_s is not None:
            wait_s = min(wait_s, due_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _stop_executions(self) -> None:
        tasks = tuple(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_note(self, place: str, error: Exception) -> None:
        self._metrics.error(place)
        self.last_error = f"{self._timing.now():%Y-%m-%d %H:%M:%S} UTC, {place}: {type(error).__name__}: {error}"


def _due(steps: tuple[PlannedAction, ...]) -> tuple[PlannedAction, ...]:
    """Return the loads; the unloads only where there are none.

    Loads take long. An unload planned before them could hit a model that a new deployment needs by then, so it is
    planned anew after them.
    """
    loads = tuple(step for step in steps if isinstance(step.action, Load))
    return loads or steps
