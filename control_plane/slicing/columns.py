"""What a GPU may become: which of its replicas stay where they are, and which slices are cut beside them. Pure.

Only the largest mixes of new slices count, since a slice that nobody gets is not cut. GPUs that are cut and used alike
become the same things, so they are one class with a number.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from control_plane.mig import Geometry, Placement, Product, SliceKind, illegality, mix_of
from control_plane.slicing.model import Fleet, FleetGpu, GpuId, ReplicaId, Wanted, Weights
from control_plane.wanted import Domain

LEAST_MOVE = 1e-3
"""What a move weighs that costs nothing: of answers that cost the same the one that moves least is taken."""


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Replicas that may stand in for each other. Those that are spread are told apart by their group."""

    choices: tuple[tuple[SliceKind, float], ...]
    value: float
    move_cost: float
    group: str = ""
    spread: str = Domain.NONE

    @classmethod
    def of(cls, wanted: Wanted) -> "Kind":
        """Return the kind of a replica."""
        choices = tuple(sorted((it.kind, it.risk) for it in wanted.choices))
        group = wanted.group if wanted.spread is not Domain.NONE else ""
        return cls(choices, wanted.value, wanted.move_cost, group, wanted.spread)

    def risk(self, kind: SliceKind) -> float | None:
        """Return the risk on a kind of slice; None where that cannot hold it."""
        return dict(self.choices).get(kind)


@dataclass(frozen=True)
class GpuClass:
    """GPUs alike: their product, and who may stay on which slice."""

    product: Product
    residents: tuple[tuple[Placement, Kind], ...]
    gpus: tuple[GpuId, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that a GPU of a class may become: who stays, what is cut beside them, and what that costs.

    `leaves` are those who have to go elsewhere, by kind.
    """

    stays: Geometry
    cuts: Geometry
    cost: float
    moves: float
    leaves: tuple[tuple[Kind, int], ...]

    def gives(self) -> Mapping[str, int]:
        """Return how many new slices of each profile there are."""
        return dict(mix_of(self.cuts))


def classes(fleet: Fleet, wanted: Mapping[ReplicaId, Wanted]) -> tuple[GpuClass, ...]:
    """Return the GPUs that may be used, by class. Who stands twice may stay on the first slice alone."""
    found: dict[tuple[str, tuple[tuple[Placement, Kind], ...]], list[FleetGpu]] = {}
    seen: set[ReplicaId] = set()
    for gpu in fleet.gpus:
        if not gpu.usable or gpu.cordoned:
            continue
        residents: list[tuple[Placement, Kind]] = []
        for it in gpu.slices:
            known = wanted.get(it.replica) if it.replica is not None else None
            if known is None or known.id in seen:
                continue
            seen.add(known.id)
            if known.choice_of(SliceKind(gpu.product.name, it.placement.profile)) is not None:
                residents.append((it.placement, Kind.of(known)))
        found.setdefault((gpu.product.name, tuple(residents)), []).append(gpu)
    return tuple(
        GpuClass(gpus[0].product, residents, tuple(gpu.id for gpu in gpus))
        for (_, residents), gpus in sorted(found.items(), key=lambda it: it[1][0].id)
    )


def columns(of: GpuClass, profiles: frozenset[str], weights: Weights) -> tuple[Column, ...]:
    """Return everything that a GPU of this class may become, where new slices are of these profiles."""
    found: list[Column] = []
    product = of.product
    for size in range(len(of.residents), -1, -1):
        for staying in combinations(of.residents, size):
            stays = tuple(placement for placement, _ in staying)
            leaving = Counter(kind for placement, kind in of.residents if placement not in stays)
            moves = sum(kind.move_cost * count for kind, count in leaving.items())
            risk = sum(kind.risk(SliceKind(product.name, placement.profile)) or 0.0 for placement, kind in staying)
            free = LEAST_MOVE * sum(count for kind, count in leaving.items() if not kind.move_cost)
            base = weights.move * moves + weights.risk * risk + free
            leaves = tuple(sorted(leaving.items()))
            for cuts in beside(product, stays, profiles):
                used = weights.gpu if stays or cuts else 0.0
                found.append(Column(stays, cuts, base + used, moves, leaves))
            if not stays:
                found.append(Column((), (), base, moves, leaves))
    return tuple(found)


def beside(product: Product, stays: Geometry, profiles: frozenset[str]) -> tuple[Geometry, ...]:
    """Return the largest sets of new slices of these profiles that fit beside what stays, one for each mix.

    Sets that other ones contain are left out; the empty one is there where nothing fits.
    """
    keys = sorted(profiles & product.profiles.keys())
    options = tuple(sorted(Placement(start, key) for key in keys for start in product.profiles[key].starts))
    return _beside(_Shape(product), stays, options)


class _Shape:
    """A product as a key: by its name and the figures that legality goes by."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._key = (
            product.name,
            product.memory_slices,
            product.compute_slices,
            tuple((it.key, it.g, it.memory_slices, it.most, it.starts) for it in product.profiles.values()),
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self._key == other._key


@cache
def _beside(shape: _Shape, stays: Geometry, options: Sequence[Placement]) -> tuple[Geometry, ...]:
    product = shape.product
    by_mix: dict[tuple[tuple[str, int], ...], Geometry] = {}

    def grow(chosen: Geometry, index: int) -> None:
        by_mix.setdefault(mix_of(chosen), chosen)
        for number in range(index, len(options)):
            if not illegality(product, [*stays, *chosen, options[number]]):
                grow((*chosen, options[number]), number + 1)

    grow((), 0)
    counts = {mix: Counter(dict(mix)) for mix in by_mix}
    largest = (mix for mix in by_mix if not any(counts[mix] < counts[other] for other in by_mix))
    return tuple(by_mix[mix] for mix in sorted(largest))
