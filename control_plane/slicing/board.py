"""A fleet while replicas are put on it and taken off: what holds what, which places are free, and who may stand where.

The one mutable thing of `slicing`; whoever plans makes one from a `Fleet` and reads the answer from it. GPUs that are
cut and used alike are looked at once, so a choice among a thousand GPUs takes as long as one among their geometries.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from control_plane.mig import Geometry, Placement, Product, SliceKind, illegality
from control_plane.slicing.model import Choice, Fleet, FleetGpu, GpuId, ReplicaId, Seat, Wanted
from control_plane.slicing.openness import Shapes
from control_plane.slicing.steps import Create, Destroy, Step
from control_plane.wanted import Domain

_Class = tuple[str, Geometry]


@dataclass
class _Held:
    """One GPU: the replicas by placement, and the slices that are cut and hold none."""

    gpu: FleetGpu
    replicas: dict[Placement, ReplicaId] = field(default_factory=dict)
    empty: set[Placement] = field(default_factory=set)

    @property
    def geometry(self) -> Geometry:
        """What holds a replica; the empty ones can go."""
        return tuple(sorted(self.replicas))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A free place for a replica: where, as which of its choices, and how much openness it would take away."""

    seat: Seat
    choice: Choice
    loss: float
    opens_gpu: bool


class Board:
    """Begin with what a fleet holds; replicas that are not in `wanted` are not put on it (they depart)."""

    def __init__(self, fleet: Fleet, wanted: Mapping[ReplicaId, Wanted], shapes: Shapes | None = None) -> None:
        self.wanted = dict(wanted)
        self.shapes = shapes or Shapes.for_kinds(
            choice.kind for _, it in sorted(wanted.items()) for choice in it.choices[:1]
        )
        self.seats: dict[ReplicaId, Seat] = {}
        self._held = {gpu.id: _Held(gpu) for gpu in fleet.gpus}
        self._domains: Counter[tuple[str, Domain, str]] = Counter()
        self._alike: dict[_Class, list[GpuId]] = {}
        self._before: dict[GpuId, _Held] | None = None
        self.changes = 0  # counts them, so that what was found out can be known to hold still
        for gpu in fleet.gpus:
            held = self._held[gpu.id]
            for it in gpu.slices:
                known = self.wanted.get(it.replica) if it.replica is not None else None
                if known is None or known.id in self.seats or not gpu.usable:
                    held.empty.add(it.placement)
                else:
                    held.replicas[it.placement] = known.id
                    self.seats[known.id] = Seat(gpu.id, it.placement)
                    self._count(known, gpu, 1)
            self._join(held)

    def gpu(self, gpu: GpuId) -> FleetGpu:
        """Return a GPU as it was given."""
        return self._held[gpu].gpu

    def alike(self) -> Iterator[tuple[Product, Geometry, Sequence[GpuId]]]:
        """Yield the GPUs that may be used by how they are cut and used, each class with its GPUs by id."""
        for (_, geometry), gpus in sorted(self._alike.items()):
            yield self._held[gpus[0]].gpu.product, geometry, tuple(gpus)

    def gpus(self) -> Iterable[GpuId]:
        """Return the GPUs that may be used, by id."""
        return sorted(gpu for group in self._alike.values() for gpu in group)

    def geometry(self, gpu: GpuId) -> Geometry:
        """Return the placements of a GPU that hold a replica."""
        return self._held[gpu].geometry

    def kind(self, seat: Seat) -> SliceKind:
        """Return what kind of slice a seat is."""
        return kind_of(self.gpu(seat.gpu), seat.placement)

    def residents(self, gpu: GpuId) -> Mapping[Placement, ReplicaId]:
        """Return the replicas of a GPU, by placement."""
        return self._held[gpu].replicas

    def put(self, wanted: Wanted, seat: Seat) -> tuple[Step, ...]:
        """Put a replica that is on no slice on a free place; returns what is destroyed and created for it."""
        steps = self._room(seat)
        self._hold(wanted, seat)
        return steps

    def move(self, replica: ReplicaId, seat: Seat) -> tuple[Seat, tuple[Step, ...]]:
        """Have a replica stand on a free place before it leaves its present one, which is empty then.

        Returns the seat that it left, and what is destroyed and created. KeyError where it is on none.
        """
        old, steps = self.seats[replica], self._room(seat)
        self._hold(self.wanted[replica], seat)
        self._let_go(replica, old)
        return old, steps

    def take(self, replica: ReplicaId) -> Seat:
        """Take a replica off; its slice stays, empty. KeyError where it is on none."""
        seat = self.seats.pop(replica)
        self._let_go(replica, seat)
        return seat

    @contextmanager
    def attempt(self) -> Iterator[Callable[[], None]]:
        """Have all that is changed within be undone at the end, unless what this yields was called: it is to stay."""
        before = self._before
        self._before, kept = {}, []
        try:
            yield lambda: kept.append(True)
        finally:
            touched, self._before = self._before, before
            if not kept:
                self._restore(touched)
            else:
                self.changes += 1
                if before is not None:
                    self._before = {**touched, **before}

    def discard(self, seat: Seat) -> Destroy:
        """Give the room of an empty slice back."""
        self._touch(seat.gpu).empty.discard(seat.placement)
        return Destroy(seat)

    def empties(self) -> Iterator[Seat]:
        """Yield every slice that is cut and holds nothing, on GPUs that may be used."""
        for gpu in self.gpus():
            for placement in sorted(self._held[gpu].empty):
                yield Seat(gpu, placement)

    def is_cut(self, seat: Seat) -> bool:
        """Whether this slice is there and empty."""
        return seat.placement in self._held[seat.gpu].empty

    def forbids(self, wanted: Wanted, gpu: GpuId) -> str:
        """Return why a replica cannot be on this GPU because of its group; empty where it can.

        Its own present seat does not count.
        """
        if wanted.spread is Domain.NONE:
            return ""
        name = self._held[gpu].gpu.domain(wanted.spread)
        count = self._domains[wanted.group, wanted.spread, name]
        seat = self.seats.get(wanted.id)
        if seat is not None:
            count -= self._held[seat.gpu].gpu.domain(wanted.spread) == name
        return f"{wanted.spread} {name} holds another replica of {wanted.group}" if name and count > 0 else ""

    def candidates(self, wanted: Wanted, allowed: Callable[[Seat], bool] | None = None) -> Iterator[Candidate]:
        """Yield the free places of a replica: of GPUs that are alike, the first one that may be taken.

        A slice that is cut and empty comes before one that would have to be cut.
        """
        choices: dict[str, list[Choice]] = {}
        for choice in wanted.choices:
            choices.setdefault(choice.kind.product, []).append(choice)
        for (product, geometry), alike in self._alike.items():
            gpus = [it for it in alike if not self.forbids(wanted, it)] if wanted.spread is not Domain.NONE else alike
            if not gpus:
                continue
            for choice in choices.get(product, ()):
                kind = self._held[gpus[0]].gpu.product
                for placement in self.shapes.of(kind, geometry).free.get(choice.kind.profile, ()):
                    seat = self._first(gpus, placement, allowed)
                    if seat is not None:
                        yield Candidate(seat, choice, self.shapes.loss(kind, geometry, placement), not geometry)

    def _first(self, gpus: list[GpuId], placement: Placement, allowed: Callable[[Seat], bool] | None) -> Seat | None:
        seats = (Seat(it, placement) for it in gpus if placement in self._held[it].empty)
        others = (Seat(it, placement) for it in gpus)
        return next((it for it in (*seats, *others) if allowed is None or allowed(it)), None)

    def _room(self, seat: Seat) -> tuple[Step, ...]:
        """Return the destruction of empty slices in the way, and the creation, where the slice is not there."""
        held = self._touch(seat.gpu)
        if seat.placement in held.empty:
            return ()
        steps: list[Step] = []
        product = held.gpu.product
        for empty in sorted(held.empty, key=lambda it: (not illegality(product, (it, seat.placement)), it)):
            if illegality(product, (*held.geometry, *held.empty, seat.placement)):
                held.empty.discard(empty)
                steps.append(Destroy(Seat(seat.gpu, empty), "It is empty, and in the way."))
        return (*steps, Create(seat))

    def _hold(self, wanted: Wanted, seat: Seat) -> None:
        held = self._touch(seat.gpu)
        self._leave(held)
        held.replicas[seat.placement] = wanted.id
        held.empty.discard(seat.placement)
        self._join(held)
        self.wanted[wanted.id] = wanted
        self.seats[wanted.id] = seat
        self._count(wanted, held.gpu, 1)

    def _let_go(self, replica: ReplicaId, seat: Seat) -> None:
        held = self._touch(seat.gpu)
        self._leave(held)
        del held.replicas[seat.placement]
        held.empty.add(seat.placement)
        self._join(held)
        self._count(self.wanted[replica], held.gpu, -1)

    def _touch(self, gpu: GpuId) -> _Held:
        """Return a GPU that is about to change, and remember how it was where that may have to be undone."""
        self.changes += self._before is None
        held = self._held[gpu]
        if self._before is not None and gpu not in self._before:
            self._before[gpu] = _Held(held.gpu, dict(held.replicas), set(held.empty))
        return held

    def _restore(self, before: Mapping[GpuId, _Held]) -> None:
        for gpu in before:
            held = self._held[gpu]
            self._leave(held)
            for replica in held.replicas.values():
                self.seats.pop(replica, None)
                self._count(self.wanted[replica], held.gpu, -1)
        for gpu, held in before.items():
            self._held[gpu] = held
            self._join(held)
            for placement, replica in held.replicas.items():
                self.seats[replica] = Seat(gpu, placement)
                self._count(self.wanted[replica], held.gpu, 1)

    def _leave(self, held: _Held) -> None:
        """Take a GPU, whose geometry is about to change, from those that are alike."""
        if not held.gpu.usable or held.gpu.cordoned:
            return
        alike = self._alike[self._class(held)]
        del alike[bisect_left(alike, held.gpu.id)]
        if not alike:
            del self._alike[self._class(held)]

    def _join(self, held: _Held) -> None:
        if not held.gpu.usable or held.gpu.cordoned:
            return
        insort(self._alike.setdefault(self._class(held), []), held.gpu.id)

    @staticmethod
    def _class(held: _Held) -> _Class:
        return held.gpu.product.name, held.geometry

    def _count(self, wanted: Wanted, gpu: FleetGpu, by: int) -> None:
        if wanted.spread is not Domain.NONE:
            self._domains[wanted.group, wanted.spread, gpu.domain(wanted.spread)] += by


def kind_of(gpu: FleetGpu, placement: Placement) -> SliceKind:
    """Return what kind of slice this is."""
    return SliceKind(gpu.product.name, placement.profile)
