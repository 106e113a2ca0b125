"""Published ways to place MIG slices as they are asked for, one at a time, on GPUs of one product.

For `live_placement`. Each says where its rule is from. None moves anything. A GPU is a sorted tuple of placements.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from control_plane.mig import Geometry, Placement, illegality, products

PRODUCT = products()["a100-80gb"]
PROFILES = {key: PRODUCT.profiles[key] for key in ("1g", "1g.2x", "2g", "3g", "4g", "7g")}

Gpus = Sequence[Geometry]
Choice = tuple[int, Placement]


class Rule(Protocol):
    """A way to choose a place."""

    name: str

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        """Return a GPU and a free place for a profile; None where the rule has none."""


@cache
def places(gpu: Geometry, profile: str) -> tuple[Placement, ...]:
    """Return the free places of a profile, by start."""
    options = (Placement(start, profile) for start in PROFILES[profile].starts)
    return tuple(it for it in options if not illegality(PRODUCT, [*gpu, it]))


@cache
def free_slices(gpu: Geometry) -> int:
    """Return the memory slices that nothing stands on."""
    return PRODUCT.memory_slices - sum(PROFILES[it.profile].memory_slices for it in gpu)


class FirstFit:
    """The first GPU and the lowest start that fit."""

    name = "first-fit"

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        return next(((it, free[0]) for it, gpu in enumerate(gpus) if (free := places(gpu, profile))), None)


class BestFit:
    """The GPU with the fewest free memory slices that fits, and the lowest start on it."""

    name = "best-fit"

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        fitting = [(free_slices(gpu), it) for it, gpu in enumerate(gpus) if places(gpu, profile)]
        return (it := min(fitting)[1], places(gpus[it], profile)[0]) if fitting else None


class DriversPlace:
    """First-fit among GPUs, and the driver's own start: the highest (as the MIG user guide's examples come out).

    NVIDIA documents no rule; in the guide a first 3g.20gb lies at 4:4 and a second at 0:4.
    """

    name = "driver's place"

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        return next(((it, free[-1]) for it, gpu in enumerate(gpus) if (free := places(gpu, profile))), None)


class AllBalanced:
    """Every GPU cut once for ever as mig-parted's `all-balanced`: 3g, 2g and two 1g; the smallest one that will do."""

    name = "all-balanced, static"
    _CUT = (Placement(0, "2g"), Placement(2, "1g"), Placement(3, "1g"), Placement(4, "3g"))

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        wanted = PROFILES[profile]
        for it in sorted(self._CUT, key=lambda it: PROFILES[it.profile].memory_slices):
            has = PROFILES[it.profile]
            if has.g >= wanted.g and has.memory_slices >= wanted.memory_slices:
                found = next((number for number, gpu in enumerate(gpus) if it not in gpu), None)
                if found is not None:
                    return found, it
        return None


class Templates:
    """HAMi's: a GPU in use keeps the template that it was given when it was empty; a full one is preferred (binpack).

    `knownMigGeometries` of Project-HAMi (device configuration): seven 1g; three 2g and a 1g; two 3g; one 7g. A request
    takes the smallest instance that is large enough, by memory.
    """

    name = "HAMi's templates"
    _TEMPLATES = (
        tuple(Placement(start, "1g") for start in range(7)),
        (Placement(0, "2g"), Placement(2, "2g"), Placement(4, "2g"), Placement(6, "1g")),
        (Placement(0, "3g"), Placement(4, "3g")),
        (Placement(0, "7g"),),
    )

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        wanted = PROFILES[profile]
        for number in sorted(range(len(gpus)), key=lambda it: (free_slices(gpus[it]), it)):
            gpu = set(gpus[number])
            for template in self._TEMPLATES:
                slots = (it for it in template if it not in gpu and gpu <= set(template))
                fit = [it for it in slots if self._will_do(it, wanted.memory_slices, wanted.g)]
                if fit:
                    return number, min(fit, key=lambda it: (PROFILES[it.profile].memory_slices, it.start))
        return None

    @staticmethod
    def _will_do(slot: Placement, memory_slices: int, g: int) -> bool:
        has = PROFILES[slot.profile]
        return has.memory_slices >= memory_slices and has.g >= g


class LeastFragmentation:
    """The place that makes a fragmentation score grow least, after Zambianco et al. (arXiv 2511.18906).

    The score, as far as it could be read: of every profile that the free memory slices would suffice for, the slices of
    each start that something stands in the way of. Ties go to the first.
    """

    name = "least fragmentation"

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        best: tuple[int, int, Placement] | None = None
        for number, gpu in enumerate(gpus):
            for it in places(gpu, profile):
                grown = self._score(tuple(sorted((*gpu, it)))) - self._score(gpu)
                if best is None or (grown, number, it) < best:
                    best = grown, number, it
        return best[1:] if best is not None else None

    @staticmethod
    @cache
    def _score(gpu: Geometry) -> int:
        free = free_slices(gpu)
        return sum(
            it.memory_slices * (len(it.starts) - len(places(gpu, key)))
            for key, it in PROFILES.items()
            if it.memory_slices <= free
        )


class PreferredStarts:
    """ParvaGPU's allocator (SC'24), one request at a time: first-fit with starts in order of preference.

    A 3g goes to start 4 alone; smaller ones go where they leave that free: 2g to 0, 2, then 4, 1g to 0 to 3, then on.
    """

    name = "ParvaGPU's starts"

    def choose(self, gpus: Gpus, profile: str) -> Choice | None:
        allowed = (4,) if profile == "3g" else PROFILES[profile].starts
        for number, gpu in enumerate(gpus):
            free = [it for it in places(gpu, profile) if it.start in allowed]
            if free:
                return number, free[0]
        return None


RULES: tuple[Rule, ...] = (
    FirstFit(), BestFit(), DriversPlace(), AllBalanced(), Templates(), LeastFragmentation(), PreferredStarts(),
)  # fmt: skip
LEFT_OUT = "Left out: the heuristic of Turkkan et al. (IBM, arXiv 2409.06646), whose text could not be had in full."
