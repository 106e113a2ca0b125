"""Which GPU instances fit beside each other on one GPU, and all the ways to cut it. Pure.

Legal is a set of placements whose memory slices do not overlap, whose compute slices are no more than there are, with
at most `most` of each profile; media engines are a capacity of their own. A mix is what a geometry holds without where:
how many of each profile. Both are in canonical form: sorted, so that equal ones are equal.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from control_plane.mig.products import MigProfile, Product, products


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A GPU instance: its start in memory slices, and the key of its profile."""

    start: int
    profile: str


Geometry = tuple[Placement, ...]
"""The GPU instances of one GPU, by start."""

Mix = tuple[tuple[str, int], ...]
"""How many of each profile, by key; none of zero."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be used of what is legal: keys of profiles (None: all), and starts where fewer are allowed."""

    keys: frozenset[str] | None = None
    starts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def starts_of(self, profile: MigProfile) -> tuple[int, ...]:
        """Return where the profile may begin."""
        if self.keys is not None and profile.key not in self.keys:
            return ()
        allowed = self.starts.get(profile.key)
        return profile.starts if allowed is None else tuple(it for it in profile.starts if it in allowed)


ALL = Rules()


def illegality(product: Product, placements: Iterable[Placement]) -> str:  # noqa: PLR0911 - a reason each
    """Why these placements cannot be on one GPU together, in a sentence; empty where they can."""
    geometry = sorted(placements)
    for it in geometry:
        if it.profile not in product.profiles:
            return f"{product.name} has no profile {it.profile}"
        if it.start not in product.profiles[it.profile].starts:
            return f"{it.profile} cannot begin at memory slice {it.start}"
    profiles = [product.profiles[it.profile] for it in geometry]
    for one, other in pairwise(geometry):
        if one.start + product.profiles[one.profile].memory_slices > other.start:
            return f"{one.profile} at {one.start} overlaps {other.profile} at {other.start}"
    if (g := sum(it.g for it in profiles)) > product.compute_slices:
        return f"they take {g} compute slices of {product.compute_slices}"
    for key, count in sorted(Counter(it.key for it in profiles).items()):
        if count > product.profiles[key].most:
            return f"{count} of {key} are more than {product.profiles[key].most}"
    if any(it.takes_all_media for it in profiles) and sum(not it.has_no_media for it in profiles) > 1:
        return "one takes all media engines, and another one has some"
    return ""


def geometries(product: Product, rules: Rules = ALL) -> Iterator[Geometry]:
    """Yield every legal geometry, the empty one first, each once."""
    options = sorted(
        Placement(start, profile.key) for profile in product.profiles.values() for start in rules.starts_of(profile)
    )

    def grow(chosen: Geometry, index: int) -> Iterator[Geometry]:
        yield chosen
        for number in range(index, len(options)):
            more = (*chosen, options[number])
            if not illegality(product, more):
                yield from grow(more, number + 1)

    return grow((), 0)


def mix_of(geometry: Iterable[Placement]) -> Mix:
    """Return what a geometry holds."""
    return tuple(sorted(Counter(it.profile for it in geometry).items()))


def mixes(product: Product, rules: Rules = ALL) -> Mapping[Mix, Geometry]:
    """Return every mix that can be had, with the first geometry that has it."""
    return _mixes(product.name, rules.keys, tuple(sorted(rules.starts.items())))


@cache
def _mixes(
    name: str, keys: frozenset[str] | None, starts: tuple[tuple[str, tuple[int, ...]], ...]
) -> Mapping[Mix, Geometry]:
    found: dict[Mix, Geometry] = {}
    for geometry in geometries(products()[name], Rules(keys, dict(starts))):
        found.setdefault(mix_of(geometry), geometry)
    return found


def maximal_mixes(product: Product, rules: Rules = ALL) -> tuple[Mix, ...]:
    """Return the mixes that no other one contains, sorted."""
    every = [(mix, Counter(dict(mix))) for mix in mixes(product, rules)]
    return tuple(sorted(mix for mix, counts in every if not any(counts < other for _, other in every)))


def layout_of(product: Product, mix: Mix, rules: Rules = ALL) -> Geometry | None:
    """Return a geometry with just this mix; None where there is none."""
    return mixes(product, rules).get(mix)
