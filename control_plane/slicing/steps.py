"""The steps that change a fleet's slices, and what a fleet is after each. Pure; a step that cannot be done is refused.

Their order is what keeps requests safe: a replica is placed on its new slice before it is removed from the old one, and
a GPU instance is destroyed only when nothing is on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from control_plane.mig import illegality
from control_plane.slicing.model import Fleet, FleetGpu, ReplicaId, Seat, Slice


@dataclass(frozen=True, slots=True)
class Create:
    """Cut a GPU instance."""

    seat: Seat
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Have a replica serve from a slice that is there and empty. `moved` tells that it serves elsewhere until then."""

    seat: Seat
    replica: ReplicaId
    reason: str = ""
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a replica from a slice: it serves elsewhere, or is wanted no more."""

    seat: Seat
    replica: ReplicaId
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Destroy:
    """Give a GPU instance's room back; nothing is on it."""

    seat: Seat
    reason: str = ""


Step = Create | Place | Remove | Destroy


class StepError(ValueError):
    """A step cannot be done on this fleet. `str()` says why."""


def after(fleet: Fleet, steps: Iterable[Step]) -> Fleet:
    """Return the fleet once the steps are done, one after the other. Raises StepError."""
    gpus = dict(fleet.by_id)
    for step in steps:
        gpu = gpus.get(step.seat.gpu)
        if gpu is None:
            raise StepError(f"there is no GPU {step.seat.gpu}")
        gpus[gpu.id] = replace(gpu, slices=_slices_after(gpu, step))
    return Fleet(tuple(gpus.values()))


def _slices_after(gpu: FleetGpu, step: Step) -> tuple[Slice, ...]:
    placement = step.seat.placement
    there = next((it for it in gpu.slices if it.placement == placement), None)
    where = f"{placement.profile} at {placement.start} of {gpu.id}"
    if isinstance(step, Create):
        if why := illegality(gpu.product, [*gpu.geometry, placement]):
            raise StepError(f"{where} cannot be created: {why}")
        return tuple(sorted((*gpu.slices, Slice(placement)), key=lambda it: it.placement))
    if there is None:
        raise StepError(f"{where} is not there")
    match step:
        case Destroy():
            if there.replica is not None:
                raise StepError(f"{where} holds {there.replica}")
            return tuple(it for it in gpu.slices if it != there)
        case Place():
            if there.replica is not None:
                raise StepError(f"{where} holds {there.replica} already")
            return _with(gpu, there, step.replica)
        case Remove():
            if there.replica != step.replica:
                raise StepError(f"{where} does not hold {step.replica}")
            return _with(gpu, there, None)
        case _:
            assert_never(step)


def _with(gpu: FleetGpu, old: Slice, replica: ReplicaId | None) -> tuple[Slice, ...]:
    return tuple(replace(it, replica=replica) if it == old else it for it in gpu.slices)
