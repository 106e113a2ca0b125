"""The ways to serve one demand: how many slices of each kind, none too many. Pure.

Demands of one model and objective differ by their rate alone, so what so many slices of each kind can do is worked out
once for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_MIXES = 3000
"""Combinations of slices that are looked at; their number grows with a power of how many slices there may be."""
_EXACT = 1e-9

Counts = NDArray[np.float64]
"""A row for each way: how many slices of each kind."""


@dataclass(frozen=True, slots=True)
class CoverTable:
    """Every combination of at most `most` slices, what it can do, and the least that one of its slices does."""

    most: int
    counts: Counts
    slices: NDArray[np.int64]
    total: NDArray[np.float64]
    least: NDArray[np.float64]
    best: float

    @classmethod
    def of(cls, capacities: Sequence[float]) -> "CoverTable":
        """Return the table for slices of these capacities, in requests per second; 0 is a kind that cannot serve."""
        usable = [index for index, it in enumerate(capacities) if it > 0]
        most = 1
        while comb(len(usable) + most + 1, most + 1) <= MOST_MIXES and most < 64:  # noqa: PLR2004 - enough for one kind
            most += 1
        own = _combinations(len(usable), most)[1:]
        counts = np.zeros((len(own), len(capacities)))
        counts[:, usable] = own
        each = np.array(capacities)
        least = np.where(counts > 0, each, np.inf).min(axis=1)
        return cls(most, counts, own.sum(axis=1).astype(np.int64), counts @ each, least, float(each.max()))

    def covers(self, rate: float, replicas: int = 1) -> Counts | None:
        """Return the ways to have `rate` served by at least `replicas` slices, from which none could be left out.

        Those of more than `most` slices are not among them (`floor` tells what they cost at least). None where so many
        slices are needed that combinations are not worth looking at.
        """
        if max(replicas, ceil(rate / self.best - _EXACT)) > max(1, self.most // 2):
            return None
        enough = (self.total >= rate * (1 - _EXACT)) & (self.slices >= replicas)
        tight = (self.total - self.least < rate * (1 - _EXACT)) | (self.slices == replicas)
        found: Counts = self.counts[enough & tight]
        return found

    def floor(self, rate: float, prices: Sequence[float], capacities: Sequence[float]) -> float:
        """Return what any way with more than `most` slices costs at these prices at least; infinite if there is none.

        The linear programme over one demand, by the corners of its dual: a price for the rate, and one for each slice.
        """
        usable = [(price, it) for price, it in zip(prices, capacities, strict=True) if it > 0]
        if ceil(rate / min(it for _, it in usable) - _EXACT) <= self.most:
            return float("inf")
        slope = min(price / it for price, it in usable)
        corners = [(slope, 0.0), (0.0, min(price for price, _ in usable))]
        for one, small in usable:
            for other, big in usable:
                if big > small:
                    part = (other - one) / (big - small)
                    corners.append((part, one - part * small))
        fit = [
            (part, each)
            for part, each in corners
            if part >= 0 and each >= 0 and all(part * it + each <= price + 1e-9 for price, it in usable)
        ]
        return max(part * rate + each * (self.most + 1) for part, each in fit)


def _combinations(kinds: int, most: int) -> NDArray[np.int64]:
    """Return every way to have at most `most` things of so many kinds, none first."""
    rows: Any = np.zeros((1, 0), np.int64)
    for _ in range(kinds):
        left = most - rows.sum(axis=1)
        rows = np.concatenate(
            [np.column_stack([rows[left >= n], np.full((left >= n).sum(), n)]) for n in range(most + 1)]
        )
    ordered: NDArray[np.int64] = rows[np.lexsort((*rows.T[::-1], rows.sum(axis=1)))]
    return ordered
