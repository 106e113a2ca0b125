"""Tidying up: what moving replicas together would free, and what that costs. A plan of its own, for idle times.

It is the optimiser's plan with nobody coming and nobody leaving, so what it frees is whole GPUs, and room for larger
slices on the others. It is worth its moves by the same weights as any plan, or there is none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.mig import SliceKind, illegality
from control_plane.mig.geometry import Placement
from control_plane.slicing.model import Fleet, FleetGpu, Wanted, Weights
from control_plane.slicing.steps import after
from control_plane.slicing.whole import Optimised, optimise


@dataclass(frozen=True)
class Defragmentation:
    """The plan, the GPUs that are empty before and after it, and how many slices of each kind would fit at a time."""

    optimised: Optimised
    empty_before: int
    empty_after: int
    room_before: Mapping[SliceKind, int] = field(default_factory=dict)
    room_after: Mapping[SliceKind, int] = field(default_factory=dict)

    @property
    def is_worth_it(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.optimised.plan.moved)


def defragment(
    fleet: Fleet,
    wanted: Iterable[Wanted],
    weights: Weights | None = None,
    seconds: float = 10.0,
    most_moves: int | None = None,
) -> Defragmentation:
    """Return what moving would free. Only replicas that stand on a slice take part."""
    there = [it for it in wanted if any(fleet.by_id[seat.gpu].usable for seat in fleet.seats.get(it.id, ()))]
    found = optimise(fleet, there, weights, seconds, most_moves)
    known = frozenset(it.id for it in there)
    before, then = _held(fleet, known), _held(after(fleet, found.plan.steps), known)
    return Defragmentation(found, _empty(before), _empty(then), _room(before), _room(then))


def _held(fleet: Fleet, known: frozenset[str]) -> list[tuple[FleetGpu, tuple[Placement, ...]]]:
    """Return the GPUs that may be used, each with the slices that hold one of those."""
    return [(gpu, tuple(it.placement for it in gpu.slices if it.replica in known)) for gpu in fleet.gpus if gpu.usable]


def _empty(gpus: Iterable[tuple[FleetGpu, tuple[Placement, ...]]]) -> int:
    return sum(not held for _, held in gpus)


def _room(gpus: Iterable[tuple[FleetGpu, tuple[Placement, ...]]]) -> dict[SliceKind, int]:
    """Return how many slices of each kind fit beside what is held, if all of them were of that kind."""
    room: dict[SliceKind, int] = {}
    for gpu, held in gpus:
        for key, profile in gpu.product.profiles.items():
            placed = list(held)
            for start in profile.starts:
                if not illegality(gpu.product, [*placed, Placement(start, key)]):
                    placed.append(Placement(start, key))
            kind = SliceKind(gpu.product.name, key)
            room[kind] = room.get(kind, 0) + len(placed) - len(held)
    return room
