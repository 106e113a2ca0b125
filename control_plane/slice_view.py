"""What the slicer saw of GPUs and decided, and what follows from it for deployments: a refusal, servers that would be.

Pure data and functions of it: `slicer` makes one in every pass, `api` shows it, a change is tried out on one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control_plane.slicing import Fleet, GpuId, Rejection, Wanted
from control_plane.slicing.demand import POOL, Demand, SliceOffer
from control_plane.slicing.planning import SlicePlan
from control_plane.slicing.records import NodeGpu, SliceRecord, server_id
from control_plane.state import DeploymentName, ObservedServer, ServerCondition


@dataclass(frozen=True)
class SliceView:
    """What the last pass saw of GPUs and decided about them. `problems` are by server, `away` by node."""

    gpus: tuple[NodeGpu, ...] = ()
    records: tuple[SliceRecord, ...] = ()
    fleet: Fleet = field(default_factory=Fleet)
    wanted: tuple[Wanted, ...] = ()
    demand: Demand = field(default_factory=lambda: Demand((), {}, {}))
    plan: SlicePlan = field(default_factory=SlicePlan)
    offers: tuple[SliceOffer, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    away: Mapping[str, str] = field(default_factory=dict)
    moves_left: int = 0

    @property
    def by_id(self) -> Mapping[GpuId, NodeGpu]:
        """The GPUs, by id."""
        return {GpuId(it.gpu.uuid): it for it in self.gpus}


def rejections_of(view: SliceView, deployment: DeploymentName) -> tuple[str, ...]:
    """Say why replicas of a deployment have no slice, and what would help; empty where each has one."""
    reasons = view.demand.impossible.get(deployment)
    if not view.gpus and not view.away:
        return ()  # nobody has looked yet
    found: list[Rejection] = [it for it in view.plan.rejected if view.demand.owners.get(it.replica) == deployment]
    if not found:
        return ()
    if reasons:
        away = [f"node {name} is away: {why}" for name, why in sorted(view.away.items())]
        return (f"No slice can hold it: {'; '.join([*reasons, *away])}",)
    told = dict.fromkeys(f"{it.reason}; it takes {it.remedy}" if it.remedy else it.reason for it in found)
    return tuple(f"{len(found)} replica{'s have' if len(found) > 1 else ' has'} no slice: {it}." for it in told)


def planned_servers(view: SliceView) -> tuple[ObservedServer, ...]:
    """Return the servers of the slices that a plan would give out, as they would be."""
    offers = {it.product.name: it for it in view.offers}
    known = {(it.seat, it.replica) for it in view.records if not it.leaving}
    found: list[ObservedServer] = []
    for replica, seat in view.plan.seats.items():
        owner = view.demand.owners.get(replica)
        if owner is None or (seat, replica) in known:
            continue
        gpu = view.by_id[seat.gpu]
        server = offers[gpu.gpu.product.name].server_on(gpu.gpu.product.profiles[seat.placement.profile])
        made = replace(server, id=server_id(gpu, seat.placement), pool=POOL, reserved_for=owner)
        found.append(ObservedServer(made, ServerCondition.HEALTHY))
    return tuple(found)
