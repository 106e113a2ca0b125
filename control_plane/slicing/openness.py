"""What still fits beside what a GPU holds, and how much of it a placement would take away. Pure, and remembered.

A placement on a cut GPU costs more than its slices: it closes starts for other profiles. The openness of a geometry is
the number of places that each profile still has there, each worth its memory slices times how much that profile is
asked for, as a part of an empty GPU's. The placement that takes the least of it leaves the most for whatever comes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from control_plane.mig import Geometry, Placement, Product, SliceKind, illegality


@dataclass(frozen=True, slots=True)
class Shape:
    """A geometry of a product: every placement that still fits, by profile, and how open it is (0 to 1)."""

    free: Mapping[str, tuple[Placement, ...]]
    openness: float
    free_slices: int


@dataclass
class Shapes:
    """The shapes of products under a demand: `asked` is how often each kind of slice is asked for.

    Of a product that nobody asked anything of, every plain profile counts alike.
    """

    asked: Mapping[SliceKind, float] = field(default_factory=dict)
    _known: dict[tuple[str, Geometry], Shape] = field(default_factory=dict)
    _blocking: dict[tuple[str, Geometry, Placement, int], tuple[Geometry, ...]] = field(default_factory=dict)

    @classmethod
    def for_kinds(cls, kinds: Iterable[SliceKind]) -> "Shapes":
        """Return shapes for a demand that asked for these, each as often as it is in there."""
        return cls(dict(Counter(kinds)))

    def of(self, product: Product, geometry: Geometry) -> Shape:
        """Return the shape of a legal geometry in canonical order. Products of one name must be the same."""
        key = product.name, geometry
        if key not in self._known:
            self._known[key] = self._made(product, geometry)
        return self._known[key]

    def loss(self, product: Product, geometry: Geometry, more: Placement) -> float:
        """Return how much openness a placement takes away: 0 to 1."""
        then = tuple(sorted((*geometry, more)))
        return self.of(product, geometry).openness - self.of(product, then).openness

    def in_the_way(self, product: Product, geometry: Geometry, more: Placement, most: int) -> tuple[Geometry, ...]:
        """Return the smallest sets of placements without which another one fits, each of at most `most`.

        The largest of a set first. None where it fits anyway.
        """
        key = product.name, geometry, more, most
        if key not in self._blocking:
            self._blocking[key] = _in_the_way(product, geometry, more, most)
        return self._blocking[key]

    def _made(self, product: Product, geometry: Geometry) -> Shape:
        free = {
            key: tuple(
                Placement(start, key)
                for start in profile.starts
                if not illegality(product, (*geometry, Placement(start, key)))
            )
            for key, profile in product.profiles.items()
        }
        taken = sum(product.profiles[it.profile].memory_slices for it in geometry)
        full = self._worth(product, {key: len(profile.starts) for key, profile in product.profiles.items()})
        open_part = self._worth(product, {key: len(places) for key, places in free.items()}) / full
        return Shape(free, open_part, product.memory_slices - taken)

    def _worth(self, product: Product, places: Mapping[str, int]) -> float:
        weights = {key: self.asked.get(SliceKind(product.name, key), 0.0) for key in product.profiles}
        if not any(weights.values()):
            weights = {key: float(key in product.plain) for key in product.profiles}
        return sum(weights[key] * product.profiles[key].memory_slices * count for key, count in places.items())


def _in_the_way(product: Product, geometry: Geometry, more: Placement, most: int) -> tuple[Geometry, ...]:
    found: list[frozenset[Placement]] = []
    for size in range(1, most + 1):
        for leaving in map(frozenset, combinations(geometry, size)):
            staying = [it for it in geometry if it not in leaving]
            if not any(it <= leaving for it in found) and not illegality(product, [*staying, more]):
                found.append(leaving)

    def largest_first(it: Placement) -> tuple[int, Placement]:
        return -product.profiles[it.profile].memory_slices, it

    return (
        ()
        if not illegality(product, [*geometry, more])
        else tuple(tuple(sorted(it, key=largest_first)) for it in found)
    )
