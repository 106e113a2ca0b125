"""The loop: observe every server (`observing`), plan, hand each server its part, observe again.

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
from functools import cached_property
from typing import assert_never

from control_plane.actions import Failed, Load, Loaded, Outcome, Restart, Restarted, Skipped, Unloaded
from control_plane.distribution import Distribution
from control_plane.executor import Executor
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.observing import Observer
from control_plane.planning import (
    Broken,
    DeploymentStatus,
    Endpoint,
    Plan,
    PlannedAction,
    Serving,
    Situation,
    deployment_status,
    held_back,
    next_retry,
    plan_lifecycle,
    quarantined,
    retry_delay_s,
    with_lacking,
)
from control_plane.planning.retry import QUARANTINED_AFTER
from control_plane.ports import Catalogue, DeploymentStore, Fleet, TritonControl
from control_plane.probing import Prober
from control_plane.rehearsal import AS_IT_IS, Proposal
from control_plane.slice_view import planned_servers, rejections_of
from control_plane.slicer import Slicer
from control_plane.state import (
    NO_VERSION,
    ActionRecord,
    Deployment,
    DeploymentName,
    ModelName,
    ObservedServer,
    Pin,
    Published,
    Result,
    Server,
    ServerCondition,
    ServerId,
)

_UNREACHABLE_INTERVAL_S = 1.0
_SOON = timedelta(seconds=10)
_SOON_HEALED = timedelta(minutes=2)
"""A load that healed a broken model, and did not last this long, counts as failed."""

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
    journal: Journal
    distribution: Distribution | None = None
    slicer: Slicer | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """When the loop looks, in seconds, and where it has the time and the dice (in [0, 1)) from."""

    interval_s: float = 5.0
    now: Callable[[], datetime] = utc_now
    jitter: Callable[[], float] = random.SystemRandom().random


@dataclass(frozen=True)
class View:
    """What the last pass saw and decided. `started_at` is None before the first one ended.

    `leaving` says since when clients are no longer sent to a model that is ready on a server.
    """

    started_at: datetime | None = None
    observed: tuple[ObservedServer, ...] = ()
    published: Published = field(default_factory=Published)
    plan: Plan = field(default_factory=Plan)
    records: Mapping[tuple[ServerId, ModelName], ActionRecord] = field(default_factory=dict)
    broken: Mapping[tuple[ServerId, ModelName], Broken] = field(default_factory=dict)
    leaving: Mapping[tuple[ServerId, ModelName], datetime] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[ServerId, ObservedServer]:
        """What was observed, by server."""
        return {entry.server.id: entry for entry in self.observed}

    @cached_property
    def deployments_by_name(self) -> Mapping[DeploymentName, Deployment]:
        """What was desired, by name."""
        return {deployment.name: deployment for deployment in self.deployments}

    @cached_property
    def serving(self) -> Serving:
        """Who can answer for what, as this pass saw it."""
        return Serving(self.by_id, self.plan.placement, self.plan.targets_by_place, self._reasons)

    @cached_property
    def _reasons(self) -> Mapping[tuple[ServerId, ModelName], str]:
        return {place: broken.reason for place, broken in self.broken.items()}

    def status_of(self, deployment: Deployment) -> DeploymentStatus:
        """Return what this pass saw of `deployment`."""
        return deployment_status(deployment, self.by_id, self.records, self.plan, self._reasons)

    def endpoints_of(self, deployment: Deployment) -> tuple[Endpoint, ...]:
        """Return where clients of `deployment` are sent."""
        return self.serving.endpoints(deployment)

    def has_seen(self, deployment: Deployment) -> bool:
        """Tell whether this pass began after `deployment` was written."""
        return self.started_at is not None and self.started_at >= deployment.updated_at


class Reconciler:
    """Runs passes until it is cancelled; `view` is what the last one saw. Use from one event loop."""

    def __init__(self, world: World, executor: Executor, metrics: Metrics, timing: Timing | None = None) -> None:
        self._world, self._executor, self._metrics = world, executor, metrics
        self._timing = timing or Timing()
        self._observer = Observer(world.store, world.fleet, world.triton, self._timing.now)
        self.prober = Prober(world.triton, world.catalogue, self._timing.now, self.wake)
        self.view = View()
        self.passes = 0
        self.last_error = ""
        self._woken = asyncio.Event()
        self._pass_ended = asyncio.Event()
        self._busy: dict[ServerId, asyncio.Task[None]] = {}
        self._hung: dict[ServerId, str] = {}  # nothing but a restart ends a load that hangs

    def wake(self) -> None:
        """Have a pass begin at once, or another one after the one that is under way."""
        self._woken.set()

    async def run(self) -> None:
        """Reconcile until cancelled; what is being carried out then is cancelled too."""
        forget = self._world.fleet.listen(self.wake)
        probing = asyncio.create_task(self.prober.run(), name="probe models")
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
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            await self._stop_executions()
            if self._world.slicer is not None:
                await self._world.slicer.stop()

    async def run_pass(self) -> Plan:
        """Observe, plan, and begin to carry out. Returns the plan without waiting for its execution."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        busy = frozenset(self._busy)
        known = self._world.journal.open_now()  # before the deployments: one that is written now is not in them
        deployments = await self._world.store.list()
        if self._world.slicer is not None:
            await self._world.slicer.settle(deployments, self.view.by_id, self.view.plan.placement)
        view = await self._look(deployments)
        self._observer.scales.weigh(view.observed, view.records, busy | self._busy.keys())
        statuses = {it.name: (it, view.status_of(it)) for it in deployments}
        await self._world.journal.planned(view.plan)
        await self._world.journal.settle(view.plan, statuses, view.by_id, known)
        self._begin_executions(view, busy)
        states = [status.state for _, status in statuses.values()]
        self._metrics.passed(clock() - begun, view.observed, states)
        self.view = view
        self.prober.show(view.observed)
        if self._world.slicer is not None and self._world.slicer.awaits(view.by_id, view.plan.placement):
            self.wake()
        self.passes += 1
        self._pass_ended.set()
        self._pass_ended = asyncio.Event()
        return view.plan

    async def preview(self, given: Proposal = AS_IT_IS) -> Plan:
        """Observe and plan now, without touching anything: for what is desired, or for what is proposed."""
        deployments = await self._world.store.list() if given.deployments is None else given.deployments
        planned: tuple[ObservedServer, ...] = ()
        if self._world.slicer is not None:  # slices that would be given out are servers of the plan
            published = await asyncio.to_thread(self._world.catalogue.read)
            planned = planned_servers(self._world.slicer.plan_for(deployments, published))
        return (await self._look(deployments, given, planned)).plan

    async def pass_ended(self) -> None:
        """Wait for the end of the next pass."""
        await self._pass_ended.wait()

    async def executions_ended(self) -> None:
        """Wait for what is being carried out now."""
        await asyncio.gather(*self._busy.values())

    async def _look(
        self,
        deployments: tuple[Deployment, ...],
        given: Proposal = AS_IT_IS,
        planned: tuple[ObservedServer, ...] = (),
    ) -> View:
        started_at, before = self._timing.now(), self.view
        observed = await self._observer.observe(given.drained)
        published = await asyncio.to_thread(self._world.catalogue.read)
        records = [it for it in await self._world.store.records() if not given.forgets(it.server, it.model)]
        by_place = {(record.server, record.model): record for record in records}
        observed = (*(with_lacking(seen, by_place) for seen in observed), *planned)
        now, ours = self._timing.now(), self._world.fleet.owned()
        situation = Situation(
            now,
            before.plan.placement.places(),
            by_place,
            held_back(records, now),
            quarantined(records),
            dict(self.prober.found),
            before.leaving,
            {server: why for server, why in self._hung.items() if server in ours},
            {server: why for server, why in self._observer.scales.leaking.items() if server in ours},
            self._unsliced(deployments),
        )
        plan = plan_lifecycle(deployments, published, observed, situation)
        view = View(started_at, observed, published, plan, by_place, situation.broken, before.leaving, deployments)
        return replace(view, leaving=self._leaving(view, deployments, now))

    def _unsliced(self, deployments: tuple[Deployment, ...]) -> dict[DeploymentName, tuple[str, ...]]:
        """Return why replicas have no slice."""
        if self._world.slicer is None:
            return {}
        view = self._world.slicer.view
        return {it.name: reasons for it in deployments if (reasons := rejections_of(view, it.name))}

    def _leaving(
        self, view: View, deployments: tuple[Deployment, ...], now: datetime
    ) -> dict[tuple[ServerId, ModelName], datetime]:
        """Return since when no client is sent to what is ready."""
        listed = view.serving.listed(deployments)
        ready = {(entry.server.id, row.name) for entry in view.observed for row in entry.models}
        return {place: view.leaving.get(place, now) for place in sorted(ready - listed)}

    def _begin_executions(self, view: View, busy: frozenset[ServerId]) -> None:
        """Begin on every server that nothing was being done on when it was observed."""
        servers = {entry.server.id: entry.server for entry in view.observed}
        for server_id, steps in view.plan.by_server().items():
            if server_id not in busy and server_id not in self._busy:
                task = asyncio.create_task(
                    self._execute(servers[server_id], self._due(steps), view), name=f"execute on {server_id}"
                )
                self._busy[server_id] = task

    def _due(self, steps: tuple[PlannedAction, ...]) -> tuple[PlannedAction, ...]:
        """Return the loads; the unloads only where there are none. What was cancelled is left alone.

        Loads take long. An unload planned before them could hit a model that a new deployment needs by then, so it is
        planned anew after them.
        """
        wanted = tuple(step for step in steps if not self._world.journal.is_cancelled(step))
        return tuple(step for step in wanted if isinstance(step.action, Load)) or wanted

    async def _execute(self, server: Server, steps: tuple[PlannedAction, ...], view: View) -> None:
        async def keep(step: PlannedAction, outcome: Outcome) -> None:
            await self._keep(step, outcome, view)

        try:
            await self._executor.execute(server, steps, keep, self._world.journal.started)
            if self._world.distribution is not None and server.repository:
                needed = _needed_on(server.id, view)
                await asyncio.to_thread(self._world.distribution.retire, server, needed)
        except Exception as error:  # no wake: the interval keeps a bug from becoming a hot loop
            logger.exception("Unexpected error in the execution on server %s", server.id)
            self._take_note("execution", error)
        else:
            self.wake()
        finally:
            del self._busy[server.id]

    async def _keep(self, step: PlannedAction, outcome: Outcome, view: View) -> None:
        self._metrics.outcome(outcome)
        self._note_restarts(outcome)
        record = self._record(outcome, view.records.get((outcome.action.server, outcome.action.model)))
        if record is not None and self._world.fleet.has(record.server):
            await self._world.store.record(record)  # of one that left meanwhile all is forgotten already
        retry_at = record.retry_at if record is not None and record.failures < QUARANTINED_AFTER else None
        await self._world.journal.ended(step, outcome, retry_at)

    def _note_restarts(self, outcome: Outcome) -> None:
        server = outcome.action.server
        if isinstance(outcome.action, Restart):
            if self._hung.pop(server, None) is None:
                self._observer.restarted(server)
        elif isinstance(outcome, Failed) and outcome.hung:
            self._hung[server] = outcome.reason
            if server not in self._world.fleet.owned():
                logger.warning("Server %s is not ours to restart, though it should be: %s", server, outcome.reason)

    def _record(self, outcome: Outcome, before: ActionRecord | None) -> ActionRecord | None:
        """Return what to remember of `outcome`; None where nothing was tried."""
        action, now = outcome.action, self._timing.now()
        version = action.version if isinstance(action, Load) else NO_VERSION
        match outcome:
            case Loaded():
                healed = isinstance(action, Load) and action.setting(action.model).generation > 0
                record = ActionRecord(action.server, action.model, version, Result.LOADED, "", now)
                return self._loaded(record, before, healed=healed)
            case Unloaded():
                return ActionRecord(action.server, action.model, version, Result.UNLOADED, "", now)
            case Failed() if isinstance(action, Restart):
                logger.warning("Server %s could not be restarted: %s", action.server, outcome.reason)
                return None
            case Failed():
                again = before is not None and before.result is Result.FAILED and before.version == version
                failures = before.failures + 1 if again and before is not None else 1
                logger.warning("%s failed, %d in a row: %s", action, failures, outcome.reason)
                delay_s = retry_delay_s(failures, self._timing.jitter())
                retry_at = now + timedelta(seconds=delay_s)
                return ActionRecord(
                    action.server, action.model, version, Result.FAILED, outcome.reason, now, failures, retry_at
                )
            case Skipped() | Restarted():
                return None
            case _:
                assert_never(outcome)

    def _loaded(self, record: ActionRecord, before: ActionRecord | None, *, healed: bool) -> ActionRecord:
        """Slow down where a load does not last: Triton says yes and the model is not there, or somebody undoes it."""
        if before is None or before.result is not Result.LOADED or before.version != record.version:
            return record
        held_back_for = before.retry_at - before.at if before.retry_at is not None else timedelta()
        if record.at - before.at > held_back_for + (_SOON_HEALED if healed else _SOON):
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


def _needed_on(server: ServerId, view: View) -> frozenset[Pin]:
    """Return the versions that a server should hold, or holds."""
    seen = view.by_id.get(server)
    held = {Pin(row.name, row.version) for row in seen.models} if seen is not None else set()
    wanted = {
        pin
        for place in view.plan.placement.on(server)
        if place.deployment in view.deployments_by_name
        for pin in view.deployments_by_name[place.deployment].tracks[place.track].pins
    }
    return frozenset(held | wanted)
