"""Giving slices out and up: plan, remember, then bring the GPUs to what is remembered.

Part of every pass of `reconciler`, before it looks at servers: a slice that is given out is a server from then on. What
the pure part (`slicing`) decides is durable before anything is done about it, and what is done follows from the records
and from what the nodes really have, so a control plane or a node that is killed at any step goes on from there. A slice
is given up only once its server holds nothing.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from control_plane.errors import ControlPlaneError, ServerUnreachableError
from control_plane.mig import illegality
from control_plane.nodes import GpuNode, NodeSlice, NodeView
from control_plane.planning import retry_delay_s
from control_plane.planning.fitting import GRACE
from control_plane.planning.placement import Placement
from control_plane.ports import Catalogue
from control_plane.slice_view import SliceView
from control_plane.slicing import Destroy, GpuId, Seat, Weights
from control_plane.slicing.demand import SliceOffer, demand_of, warm_slices
from control_plane.slicing.planning import SlicePlan, plan_slices
from control_plane.slicing.records import (
    WARM,
    NodeGpu,
    SliceRecord,
    fleet_of,
    given_back,
    moves_left,
    recorded,
    server_id,
)
from control_plane.state import (
    Deployment,
    ModelState,
    ObservedServer,
    Published,
    ServerCondition,
    ServerId,
)

_LOOK_S, _LOOK_AGAIN_S = 5.0, 1.0
"""How long a node may take to answer, and one that did not the last time: the pass waits for it."""
_GIVEN_UP_AFTER = 3
"""Failures in a row after which a slice is looked for elsewhere."""
_SHUNNED = timedelta(minutes=10)
"""How long a GPU that would not be cut is left alone."""

logger = logging.getLogger(__name__)


class SliceStore(Protocol):
    """What is remembered of slices. What a call wrote is durable when it returns."""

    async def slices(self) -> tuple[SliceRecord, ...]:
        """Return every record, by server."""

    async def write_slices(self, changed: Iterable[SliceRecord], dropped: Iterable[ServerId] = ()) -> None:
        """Write and drop records, all or none; of a server that is dropped, mark and records go too."""


class SliceServers(Protocol):
    """Where the servers of slices are told to."""

    def take(self, records: Iterable[SliceRecord], views: Mapping[str, NodeView]) -> None:
        """Have these be the slices that were given out, and this what the nodes run."""

    def changed(self) -> None:
        """Tell those who listen that something is different."""


@dataclass(frozen=True, slots=True)
class SlicerParts:
    """What it works with. `moves_per_hour` is the budget of moves; `alone` tells whether there is no other server.

    `warm` are the slices to keep ready, so many by the profile's published name.
    """

    nodes: tuple[GpuNode, ...]
    store: SliceStore
    catalogue: Catalogue
    servers: SliceServers
    now: Callable[[], datetime]
    alone: Callable[[], bool] = lambda: True
    moves_per_hour: int = 12
    warm: Mapping[str, int] = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    jitter: Callable[[], float] = random.SystemRandom().random


@dataclass(slots=True)
class _Failing:
    count: int
    reason: str
    again_at: datetime


class Slicer:
    """Use from one event loop; `view` is what the last pass saw."""

    def __init__(self, parts: SlicerParts) -> None:
        self._parts = parts
        self._nodes = {node.name: node for node in parts.nodes}
        self._views: dict[str, tuple[datetime, NodeView]] = {}
        self._away: dict[str, str] = {}
        self._busy: dict[ServerId, asyncio.Task[None]] = {}
        self._failing: dict[ServerId, _Failing] = {}
        self._shunned: dict[GpuId, tuple[datetime, str]] = {}
        self._remembering = asyncio.Lock()
        self._begun_at: datetime | None = None
        self.view = SliceView()

    async def settle(
        self, deployments: Iterable[Deployment], seen: Mapping[ServerId, ObservedServer], placement: Placement
    ) -> None:
        """Look at the nodes, plan, remember, and begin what is due. `seen` and `placement` are of the pass before."""
        published, _ = await asyncio.gather(asyncio.to_thread(self._parts.catalogue.read), self._look())
        async with self._remembering:
            records = await self._give_back(await self._parts.store.slices())
            view = self._planned(deployments, published, records)
            changed: tuple[SliceRecord, ...] = ()
            gone: list[ServerId] = []
            if not self._awaited(records):
                changed = recorded(view.plan, records, view.demand.owners, view.by_id, self._parts.now())
                gone = [it.server for it in records if it.leaving and it.seat.gpu not in view.by_id]
            if changed or gone:
                await self._parts.store.write_slices(changed, gone)
                for it in changed:
                    logger.info("Slice %s: %s", it.server, it.leaving or f"given to {it.replica}")
                records = await self._parts.store.slices()
        self.view = replace(view, records=records, problems=self._problems())
        self._tell(records)
        self._begin(records, seen, placement)

    def _awaited(self, records: Iterable[SliceRecord]) -> bool:
        """Whether a node that holds slices was not seen yet, and may still answer: nothing is decided without it."""
        now = self._parts.now()
        self._begun_at = self._begun_at or now
        unseen = {it.node for it in records} & self._nodes.keys() - self._views.keys()
        return bool(unseen) and now - self._begun_at < GRACE

    def awaits(self, seen: Mapping[ServerId, ObservedServer], placement: Placement) -> bool:
        """Whether a slice that is left has become empty by now, so that the next pass can give it up."""
        running = {server for _, view in self._views.values() for server in view.servers}
        return any(
            it.leaving
            and it.server not in self._busy
            and it.node not in self._away
            and self._is_due(it.server)
            and self._is_idle(it.server, seen, placement, runs=it.server in running)
            for it in self.view.records
        )

    async def work_ended(self) -> None:
        """Wait for what is being cut or given back now."""
        await asyncio.gather(*self._busy.values())

    async def stop(self) -> None:
        """End what is under way; the next one goes on from what is there."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to be done, under way or left."""
        idle = not self._busy and not self.view.plan.steps
        return idle and bool(self.view.gpus) and not any(it.leaving for it in self.view.records)

    async def apply(self, plan: SlicePlan) -> int:
        """Remember a plan that was made of `view`, so that it is carried out; returns how many slices change.

        What the fleet became meanwhile counts: a step that does not fit it any more is left out.
        """
        async with self._remembering:
            records = await self._parts.store.slices()
            changed = recorded(plan, records, self.view.demand.owners, self.view.by_id, self._parts.now())
            await self._parts.store.write_slices(changed)
        self._parts.servers.changed()
        return len(changed)

    def plan_for(self, deployments: Iterable[Deployment], published: Published) -> SliceView:
        """Return what would be planned for other deployments, on the fleet as it was seen last. Touches nothing."""
        return self._planned(deployments, published, self.view.records)

    def _planned(
        self, deployments: Iterable[Deployment], published: Published, records: tuple[SliceRecord, ...]
    ) -> SliceView:
        gpus, offers = self._gpus(), self._offers()
        fleet, foreign = fleet_of(gpus, records)
        demand = demand_of(deployments, published, offers, alone=self._parts.alone())
        warm = warm_slices(self._parts.warm, offers)
        demand = replace(demand, owners={**demand.owners, **{it.id: WARM for it in warm}})
        left = moves_left(self._parts.moves_per_hour, records, self._parts.now())
        wanted = (*demand.wanted, *warm, *foreign)
        plan = plan_slices(fleet, wanted, self._parts.weights, left)
        return SliceView(gpus, records, fleet, wanted, demand, plan, offers, self._problems(), dict(self._away), left)

    async def _look(self) -> None:
        async def look(node: GpuNode) -> None:
            patience_s = _LOOK_S if node.name not in self._away else _LOOK_AGAIN_S
            try:
                async with asyncio.timeout(patience_s):
                    view = await node.look()
            except TimeoutError:
                self._away[node.name] = f"did not answer within {patience_s:g} s"
            except ControlPlaneError as error:
                self._away[node.name] = str(error)
            else:
                self._views[node.name] = self._parts.now(), view
                self._away.pop(node.name, None)

        await asyncio.gather(*(look(node) for node in self._parts.nodes))

    def _gpus(self) -> tuple[NodeGpu, ...]:
        found: list[NodeGpu] = []
        now = self._parts.now()
        for name, (at, view) in sorted(self._views.items()):
            away = ""
            if name in self._away and now - at >= GRACE:
                away = f"node {name} is away since {at:%H:%M:%S} UTC: {self._away[name]}"
            for gpu in view.gpus:
                shunned_until, why = self._shunned.get(GpuId(gpu.uuid), (now, ""))
                shunned = why if now < shunned_until else ""
                whole = f"processes {_pids(gpu.processes)} use it whole" if not gpu.mig and gpu.processes else ""
                why_not = away or shunned or whole
                found.append(NodeGpu(name, view.zone, gpu, why_not, bool(away), frozenset(view.servers)))
        return tuple(found)

    def _offers(self) -> tuple[SliceOffer, ...]:
        offers: dict[str, SliceOffer] = {}
        for _, (_, view) in sorted(self._views.items()):
            for gpu in view.gpus:
                capabilities = () if view.simulated else (gpu.product.compute_capability,)
                pattern = replace(view.pattern, compute_capabilities=capabilities)
                offers.setdefault(gpu.product.name, SliceOffer(gpu.product, pattern, view.triton_version))
        return tuple(offers.values())

    async def _give_back(self, records: tuple[SliceRecord, ...]) -> tuple[SliceRecord, ...]:
        """Drop the slices that could not be made ready often enough, and leave their GPU alone for a while."""
        refused = [
            it for it in records if not it.leaving and it.server in self._failing and self._has_failed(it.server)
        ]
        if not refused:
            return records
        for it in refused:
            failing = self._failing.pop(it.server)
            self._shunned[it.seat.gpu] = self._parts.now() + _SHUNNED, f"it could not be cut: {failing.reason}"
            logger.warning("GPU %s is left alone for a while: %s", it.seat.gpu, failing.reason)
        changed = given_back([it.seat for it in refused], records)
        await self._parts.store.write_slices(changed, [it.server for it in refused])
        return await self._parts.store.slices()

    def _has_failed(self, server: ServerId) -> bool:
        return self._failing[server].count >= _GIVEN_UP_AFTER and server not in self._busy

    def _begin(
        self,
        records: tuple[SliceRecord, ...],
        seen: Mapping[ServerId, ObservedServer],
        placement: Placement,
    ) -> None:
        """Begin to cut what is given out and not there, and to give up what is left and empty."""
        running = {server for _, view in self._views.values() for server in view.servers}
        gpus = self.view.by_id
        for it in records:
            gpu = gpus.get(it.seat.gpu)
            if gpu is None or it.server in self._busy or it.node in self._away or not self._is_due(it.server):
                continue
            there = any(instance.placement == it.seat.placement for instance in gpu.gpu.instances)
            node, wanted = self._nodes[it.node], NodeSlice(it.server, it.seat)
            if it.leaving and self._is_idle(it.server, seen, placement, runs=it.server in running):
                self._start(it.server, self._given_up(node, wanted))
            elif not it.leaving and not (there and it.server in running) and (there or _fits(gpu, it.seat)):
                self._start(it.server, self._made_ready(node, wanted))
        known = {it.seat for it in records}
        for step in self.view.plan.steps:
            if isinstance(step, Destroy) and step.seat not in known and step.seat.gpu in gpus:
                gpu = gpus[step.seat.gpu]
                server = server_id(gpu, step.seat.placement)
                used = any(i.processes for i in gpu.gpu.instances if i.placement == step.seat.placement)
                ours = server in running or not used
                if ours and server not in self._busy and gpu.node not in self._away and self._is_due(server):
                    self._start(server, self._given_up(self._nodes[gpu.node], NodeSlice(server, step.seat)))

    def _is_idle(
        self,
        server: ServerId,
        seen: Mapping[ServerId, ObservedServer],
        placement: Placement,
        *,
        runs: bool,
    ) -> bool:
        """Whether nothing is on a server, and nothing is to be; one that is away for long holds nothing for anybody."""
        if not runs:
            return True
        entry = seen.get(server)
        if entry is None:
            return False
        if entry.condition is ServerCondition.UNREACHABLE:
            return entry.since is not None and self._parts.now() - entry.since >= GRACE
        empty = all(row.state is ModelState.UNAVAILABLE for row in entry.models)
        return empty and not placement.on(server)

    async def _made_ready(self, node: GpuNode, wanted: NodeSlice) -> None:
        await node.create(wanted)

    async def _given_up(self, node: GpuNode, left: NodeSlice) -> None:
        await node.destroy(left)
        await self._parts.store.write_slices((), [left.server])

    def _start(self, server: ServerId, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except ControlPlaneError as error:
                before = self._failing[server].count if server in self._failing else 0
                # That a node does not answer says nothing of its GPU.
                count = max(1, before + (not isinstance(error, ServerUnreachableError)))
                delay = timedelta(seconds=retry_delay_s(count, self._parts.jitter()))
                self._failing[server] = _Failing(count, str(error), self._parts.now() + delay)
                logger.warning("Slice %s: %s", server, error)
            except Exception as error:
                logger.exception("Unexpected error with slice %s", server)
                self._failing[server] = _Failing(1, f"unexpected: {error}", self._parts.now() + GRACE)
            else:
                self._failing.pop(server, None)
            finally:
                del self._busy[server]
                self._parts.servers.changed()

        self._busy[server] = asyncio.create_task(run(), name=f"slice {server}")

    def _is_due(self, server: ServerId) -> bool:
        return server not in self._failing or self._failing[server].again_at <= self._parts.now()

    def _tell(self, records: tuple[SliceRecord, ...]) -> None:
        self._parts.servers.take(records, {name: view for name, (_, view) in self._views.items()})

    def _problems(self) -> dict[str, str]:
        return {str(it): failing.reason for it, failing in sorted(self._failing.items())}


def _fits(gpu: NodeGpu, seat: Seat) -> bool:
    """Whether a slice fits beside those that are cut now."""
    return not illegality(gpu.gpu.product, [*gpu.gpu.geometry, seat.placement])


def _pids(pids: Iterable[int]) -> str:
    return ", ".join(map(str, pids))
