"""From how many slices of each kind every demand gets to GPUs with replicas at their placements. Pure.

The replicas of a demand go to as many GPUs as can be; where one asks for more GPUs than its slices ended up on, it is
given a further one, so that what was asked for is always kept.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.mig import Placement, Product, SliceKind, layout_of
from control_plane.mig.geometry import Mix
from control_plane.sizing.model import Admission, Demand, Gpu, OperatingPoint, Replica


@dataclass(frozen=True, slots=True)
class Wanted:
    """A demand, how each kind of slice would run it, and how many of each it gets."""

    demand: Demand
    points: Mapping[SliceKind, OperatingPoint]
    slices: Mapping[SliceKind, int]


@dataclass(slots=True)
class _Cut:
    """A GPU while it is filled: what is free, and who is on it."""

    product: Product
    free: dict[str, list[Placement]] = field(default_factory=dict)
    taken: list[tuple[Placement, Wanted, SliceKind]] = field(default_factory=list)

    def holds(self, wanted: Wanted) -> int:
        return sum(it.demand.name == wanted.demand.name for _, it, _ in self.taken)

    def take(self, wanted: Wanted, kind: SliceKind) -> None:
        self.taken.append((self.free[kind.profile].pop(), wanted, kind))


def lay_out(
    wanted: Sequence[Wanted], mixes: Sequence[tuple[Product, Mix]], admission: Admission, products: Sequence[Product]
) -> tuple[Gpu, ...]:
    """Return the GPUs, each cut as one of `mixes`, with every slice that is used; those without any are left out."""
    cuts = [_cut(product, mix, admission) for product, mix in mixes]
    by_kind: dict[SliceKind, list[_Cut]] = {}
    for cut in reversed(cuts):
        for key in cut.free:
            by_kind.setdefault(SliceKind(cut.product.name, key), []).append(cut)
    for it in sorted(wanted, key=lambda it: (-it.demand.replicas, -sum(it.slices.values()), it.demand.name)):
        for kind, count in sorted(it.slices.items()):
            for _ in range(count):
                there = by_kind[kind]
                chosen = min(there, key=lambda cut: cut.holds(it)) if it.demand.replicas > 1 else there[-1]
                chosen.take(it, kind)
                if not chosen.free[kind.profile]:
                    there.remove(chosen) if chosen is not there[-1] else there.pop()
    for it in wanted:  # once all have what was counted for them: what is free now is nobody's
        if it.demand.replicas > 1:
            _spread(it, cuts, admission, products)
    totals = {it.demand.name: _capacity(it, cuts) for it in wanted if it.demand.replicas > 1}
    totals |= {it.demand.name: _sum(it) for it in wanted if it.demand.replicas == 1}
    return tuple(_gpu(cut, totals) for cut in cuts if cut.taken)


def _cut(product: Product, mix: Mix, admission: Admission) -> _Cut:
    geometry = layout_of(product, mix, admission.rules_of(product)) or ()
    free: dict[str, list[Placement]] = {}
    for placement in reversed(geometry):
        free.setdefault(placement.profile, []).append(placement)
    return _Cut(product, free)


def _spread(wanted: Wanted, cuts: list[_Cut], admission: Admission, products: Sequence[Product]) -> None:
    """Give a demand replicas on further GPUs until it is on as many as it asks for: free slices, then new GPUs."""
    while sum(cut.holds(wanted) > 0 for cut in cuts) < wanted.demand.replicas:
        free = [
            (cut, SliceKind(cut.product.name, key))
            for cut in cuts
            if not cut.holds(wanted)
            for key, places in sorted(cut.free.items())
            if places and SliceKind(cut.product.name, key) in wanted.points
        ]
        if not free:
            product, key = next(
                (product, key)
                for product in products
                for key in sorted(product.profiles)
                if SliceKind(product.name, key) in wanted.points
            )
            cut = _cut(product, ((key, 1),), admission)
            cuts.append(cut)
            free = [(cut, SliceKind(product.name, key))]
        free[0][0].take(wanted, free[0][1])


def _sum(wanted: Wanted) -> float:
    return sum(wanted.points[kind].throughput * count for kind, count in wanted.slices.items())


def _capacity(wanted: Wanted, cuts: Sequence[_Cut]) -> float:
    return sum(
        it.points[kind].throughput for cut in cuts for _, it, kind in cut.taken if it.demand.name == wanted.demand.name
    )


def _gpu(cut: _Cut, totals: Mapping[str, float]) -> Gpu:
    replicas = [
        Replica(
            it.demand.name,
            it.demand.model,
            placement,
            it.points[kind],
            it.demand.rate * it.points[kind].throughput / totals[it.demand.name],
        )
        for placement, it, kind in sorted(cut.taken, key=lambda taken: taken[0])
    ]
    return Gpu(cut.product.name, tuple(replicas))


def mix_counts(gpus: Sequence[Gpu]) -> Counter[tuple[str, tuple[Placement, ...]]]:
    """Count the GPUs that are cut alike: by product and geometry."""
    return Counter((gpu.product, tuple(it.placement for it in gpu.replicas)) for gpu in gpus)
