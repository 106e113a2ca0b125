"""What is remembered of slices that were given out, and what follows from it and from what the GPUs really hold. Pure.

A record says that a replica is to have a slice, durable before the slice is cut. One that is `leaving` is given up once
nothing is on it any more. The fleet that is planned from is both together: what is real on a GPU wins, and what is
recorded and not there yet is as good as there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from control_plane.mig import Placement, illegality
from control_plane.mig.host import HostGpu
from control_plane.slicing.board import kind_of
from control_plane.slicing.model import Choice, Fleet, FleetGpu, GpuId, ReplicaId, Seat, Slice, Wanted
from control_plane.slicing.planning import SlicePlan
from control_plane.slicing.steps import Place, Remove
from control_plane.state import DeploymentName, ServerId

WARM = DeploymentName("(warm)")
"""Stands for the owner of a slice that is kept ready with an empty server, which no deployment can be called."""
FOREIGN = "foreign/"
"""Begins the name of what holds a slice that somebody else uses."""
_PINNED = 1e6
"""Value and move cost of what is not ours to move."""


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """A slice that was given to a replica, and the server that runs on it.

    `moved` tells that it was given for a move, which counts against the budget. `leaving` says why it is given up;
    empty where it is not.
    """

    server: ServerId
    node: str
    seat: Seat
    replica: ReplicaId
    deployment: DeploymentName
    created_at: datetime
    moved: bool = False
    leaving: str = ""


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """A GPU as its node tells it; `unusable` says why nothing may be put there, empty where something may.

    What is on one that is `lost` is lost too; on any other it stays. `running` are our servers on its node.
    """

    node: str
    zone: str
    gpu: HostGpu
    unusable: str = ""
    lost: bool = False
    running: frozenset[ServerId] = frozenset()


def fleet_of(gpus: Iterable[NodeGpu], records: Iterable[SliceRecord]) -> tuple[Fleet, tuple[Wanted, ...]]:
    """Return the fleet to plan from, and what stands on it that is not ours and stays where it is.

    Slices that are left are empty for the plan: what is put there waits until they are gone.
    """
    by_gpu: dict[GpuId, list[SliceRecord]] = {}
    for record in records:
        by_gpu.setdefault(record.seat.gpu, []).append(record)
    found: list[FleetGpu] = []
    foreign: list[Wanted] = []
    for it in gpus:
        gpu_id = GpuId(it.gpu.uuid)
        own = by_gpu.get(gpu_id, [])
        held = {record.seat.placement: record.replica for record in own if not record.leaving}
        ours = {record.seat.placement for record in own}
        for instance in it.gpu.instances:
            fits = not illegality(it.gpu.product, [*held, instance.placement])
            theirs = instance.processes and server_id(it, instance.placement) not in it.running
            if instance.placement not in ours and theirs and fits:
                held[instance.placement] = ReplicaId(f"{FOREIGN}{it.gpu.uuid}/{instance.id}")
        slices = [Slice(placement, replica) for placement, replica in held.items()]
        for placement in sorted({instance.placement for instance in it.gpu.instances} - held.keys()):
            if not illegality(it.gpu.product, [*(slot.placement for slot in slices), placement]):
                slices.append(Slice(placement))
        gpu = FleetGpu(
            gpu_id,
            it.gpu.product,
            tuple(sorted(slices, key=lambda slot: slot.placement)),
            it.node,
            it.zone,
            not it.lost,
            bool(it.unusable),
        )
        found.append(gpu)
        foreign.extend(
            Wanted(slot.replica, (Choice(kind_of(gpu, slot.placement)),), value=_PINNED, move_cost=_PINNED)
            for slot in gpu.slices
            if slot.replica is not None and slot.replica.startswith(FOREIGN)
        )
    return Fleet.of(found), tuple(foreign)


def recorded(
    plan: SlicePlan,
    records: Iterable[SliceRecord],
    owners: Mapping[ReplicaId, DeploymentName],
    gpus: Mapping[GpuId, NodeGpu],
    now: datetime,
) -> tuple[SliceRecord, ...]:
    """Return the records that a plan adds or changes; carrying them out is what follows from records.

    A slice that is left and not empty yet cannot be given to another replica: that comes with a later plan.
    """
    held = {record.seat: record for record in records}
    changed: dict[Seat, SliceRecord] = {}
    fresh: set[ReplicaId] = set()
    waiting: set[ReplicaId] = set()
    for step in plan.steps:
        known = held.get(step.seat)
        match step:
            case Place() if step.replica in owners:
                is_free = known is None or bool(known.leaving and known.deployment == WARM)  # nothing was ever on it
                has_room = is_free and _has_room(gpus[step.seat.gpu], step.seat, held.values())
                if not has_room or step.replica in fresh:  # a second move follows once the first one is done
                    waiting.add(step.replica)
                    continue
                fresh.add(step.replica)
                gpu, owner = gpus[step.seat.gpu], owners[step.replica]
                server = server_id(gpu, step.seat.placement)
                made = SliceRecord(server, gpu.node, step.seat, step.replica, owner, now, step.moved)
                held[step.seat] = changed[step.seat] = made
            case Remove() if known is not None and known.replica == step.replica and step.replica not in waiting:
                if not known.leaving:
                    held[step.seat] = changed[step.seat] = replace(known, leaving=step.reason)
            case _:
                pass
    return tuple(changed.values())


def _has_room(gpu: NodeGpu, seat: Seat, held: Iterable[SliceRecord]) -> bool:
    """Whether a slice fits beside those of its GPU that stay."""
    staying = (it.seat.placement for it in held if it.seat.gpu == seat.gpu and not it.leaving)
    return not illegality(gpu.gpu.product, [*staying, seat.placement])


def server_id(gpu: NodeGpu, placement: Placement) -> ServerId:
    """Return the id of the server on a slice: its node, the end of its GPU's UUID, profile and start."""
    profile = gpu.gpu.product.profiles[placement.profile].name.replace("+", "-")
    return ServerId(f"{gpu.node}-{gpu.gpu.uuid[-6:]}-{profile}-{placement.start}")


def given_back(refused: Iterable[Seat], records: Iterable[SliceRecord]) -> tuple[SliceRecord, ...]:
    """Return the records that change where slices cannot be cut and are dropped: who was to move there stays."""
    dropped = set(refused)
    kept = [it for it in records if it.seat not in dropped]
    nowhere = {it.replica for it in records if it.seat in dropped} - {it.replica for it in kept if not it.leaving}
    back: dict[ReplicaId, SliceRecord] = {}
    for it in sorted(kept, key=lambda it: it.created_at):
        if it.leaving and it.replica in nowhere:
            back[it.replica] = replace(it, leaving="")
    return tuple(back.values())


def moves_left(per_hour: int, records: Iterable[SliceRecord], now: datetime) -> int:
    """Return how many moves the budget leaves within this hour."""
    recent = sum(it.moved and now - it.created_at < timedelta(hours=1) for it in records)
    return max(0, per_hour - recent)
