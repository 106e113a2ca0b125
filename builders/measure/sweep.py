"""Which point of a measurement comes next, and which are not worth one. Pure: the same past gives the same next point.

A sweep goes through the grid with instances outermost, so that each number of instances is loaded once, then batch
sizes, then concurrency, all ascending. `profile` keeps the results and the reasons for what was left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

FLAT_GROWTH = 0.03
"""A step that adds less than this share of throughput adds nothing: about the noise between two runs of one point."""
_FLAT_STEPS = 2

AS_CONFIGURED = 0
"""Stands for "as many instances as the configs say": an ensemble has none of its own."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One measurement: `concurrency` requests in flight, each of `batch_size` items, against `instances`."""

    instances: int
    batch_size: int
    concurrency: int

    def __str__(self) -> str:
        return f"{instances_text(self.instances)}, batch {self.batch_size}, concurrency {self.concurrency}"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a load: the latency of each answered request, over `seconds` (above 0) after the warm-up.

    `failed` requests got no answer, the first one for `reason`. `client_cpu_s` is the load generator's own CPU time.
    """

    latencies_ms: tuple[float, ...]
    seconds: float
    failed: int = 0
    reason: str = ""
    client_cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PointResult:
    """What a point gave. Latencies in milliseconds, None without samples; `throughput` in items per second.

    `samples` requests were answered and `failed` were not; `reason` is the first failure's. `client_cpu` is what the
    load generator itself used, in cores: near 1, the figures are its limit and not the server's.
    """

    point: Point
    throughput: float
    p50_ms: float | None
    p99_ms: float | None
    samples: int
    failed: int = 0
    reason: str = ""
    client_cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A point that was not measured, and why."""

    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Grid:
    """What may be measured. Each axis is kept sorted, each value once. `max_batch_size` 0: the model does not batch.

    Raises ValueError where an axis is empty or holds a number below 1; `instances` may be AS_CONFIGURED alone.
    """

    batch_sizes: tuple[int, ...]
    instances: tuple[int, ...]
    concurrency: tuple[int, ...]
    max_batch_size: int

    def __post_init__(self) -> None:
        for name in ("batch_sizes", "instances", "concurrency"):
            values = tuple(sorted(set(getattr(self, name))))
            if not values or (values[0] < 1 and not (name == "instances" and values == (AS_CONFIGURED,))):
                raise ValueError(f"{name}: expected numbers of at least 1, not {getattr(self, name)}")
            object.__setattr__(self, name, values)

    def __iter__(self) -> Iterator[Point]:
        """Every point, in the order of a sweep."""
        for instances in self.instances:
            for batch_size in self.batch_sizes:
                for concurrency in self.concurrency:
                    yield Point(instances, batch_size, concurrency)


def next_point(done: Sequence[PointResult], grid: Grid, refused: Mapping[int, str] | None = None) -> Point | None:
    """Return the point to measure after `done`, or None where nothing is left that would tell more.

    `refused` says why that many instances could not be loaded. Its reasons, and the others: `skipped_points`.
    """
    measured = {result.point for result in done}
    return next(
        (point for point in grid if point not in measured and _why_not(point, done, grid, refused or {}) is None), None
    )


def skipped_points(
    done: Sequence[PointResult], grid: Grid, refused: Mapping[int, str] | None = None
) -> tuple[Skipped, ...]:
    """Return the points of `grid` that `done` makes superfluous, each with its reason, in the order of a sweep."""
    measured = {result.point for result in done}
    reasons = ((point, _why_not(point, done, grid, refused or {})) for point in grid if point not in measured)
    return tuple(Skipped(point, reason) for point, reason in reasons if reason is not None)


def point_result(point: Point, ran: Ran) -> PointResult:
    """Return what a run amounts to as the result of `point`."""
    latencies = ran.latencies_ms
    return PointResult(
        point=point,
        throughput=len(latencies) * point.batch_size / ran.seconds,
        p50_ms=percentile(latencies, 50) if latencies else None,
        p99_ms=percentile(latencies, 99) if latencies else None,
        samples=len(latencies),
        failed=ran.failed,
        reason=ran.reason,
        client_cpu=ran.client_cpu_s / ran.seconds,
    )


def percentile(values: Sequence[float], q: float) -> float:
    """Return the `q`-th percentile (0 to 100): the least observed value that `q` percent of `values` do not exceed.

    "Nearest rank", so never an interpolated value that nobody waited for. Raises ValueError on no values.
    """
    if not values:
        raise ValueError("a percentile of no values")
    # Rounded first: 0.07 * 100 is 7.000000000000001 in binary, and would be taken for rank 8.
    rank = math.ceil(round(q / 100 * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


def _why_not(point: Point, done: Sequence[PointResult], grid: Grid, refused: Mapping[int, str]) -> str | None:
    """Return why `point` need not be measured; the first rule that holds."""
    largest = max(grid.max_batch_size, 1)
    if point.batch_size > largest:
        return f"the model takes batches of at most {largest}"
    failed_load = min((count for count in refused if count <= point.instances), default=None)
    if failed_load is not None:
        return f"{instances_text(failed_load)} did not load: {refused[failed_load]}"
    fewer = next((count for count in grid.instances if point.concurrency <= count < point.instances), None)
    if fewer is not None:
        return f"{point.concurrency} in flight keep no more than {instances_text(fewer)} busy"
    return _end_of_series(point, done) or _larger_batches(point, done, grid) or _more_instances(point, done, grid)


def _end_of_series(point: Point, done: Sequence[PointResult]) -> str | None:
    """Look along concurrency: failures only, or a curve that has become flat, end the series."""
    series = sorted(
        (
            it
            for it in done
            if (it.point.instances, it.point.batch_size) == (point.instances, point.batch_size)
            and it.point.concurrency < point.concurrency
        ),
        key=lambda it: it.point.concurrency,
    )
    for result in series:
        if not result.samples:
            return f"every request failed at concurrency {result.point.concurrency}: {result.reason}"
    for last in range(_FLAT_STEPS, len(series)):
        window = series[last - _FLAT_STEPS : last + 1]
        if all(not _grew(one.throughput, other.throughput) for one, other in pairwise(window)):
            rates = ", ".join(f"{it.throughput:.4g}" for it in window)
            at = ", ".join(str(it.point.concurrency) for it in window)
            return f"throughput is flat: {rates} items/s at concurrency {at}"
    return None


def _larger_batches(point: Point, done: Sequence[PointResult], grid: Grid) -> str | None:
    """Look over batch sizes: after one that gave no more than the one before it, larger ones only wait longer."""
    best = {
        size: rate
        for size in grid.batch_sizes
        if size < point.batch_size and (rate := _best(done, point.instances, size)) is not None
    }
    for smaller, larger in pairwise(best):
        if not _grew(best[smaller], best[larger]):
            return _dominated(f"batch {larger}", best[larger], f"batch {smaller}", best[smaller])
    return None


def _more_instances(point: Point, done: Sequence[PointResult], grid: Grid) -> str | None:
    """Look over instances: after a number that gave no more at any batch size, still more only cost memory."""
    best = {
        count: rate
        for count in grid.instances
        if count < point.instances and (rate := _best(done, count, None)) is not None
    }
    for fewer, more in pairwise(best):
        if not _grew(best[fewer], best[more]):
            return _dominated(instances_text(more), best[more], instances_text(fewer), best[fewer])
    return None


def _best(done: Sequence[PointResult], instances: int, batch_size: int | None) -> float | None:
    """Return the highest throughput of a series, or of all with that many instances."""
    rates = [
        it.throughput
        for it in done
        if it.point.instances == instances and batch_size in {None, it.point.batch_size} and it.samples
    ]
    return max(rates, default=None)


def _grew(before: float, after: float) -> bool:
    return after >= before * (1 + FLAT_GROWTH)


def _dominated(larger: str, rate: float, smaller: str, least: float) -> str:
    return f"{larger} gave no more than {smaller} ({rate:.4g} against {least:.4g} items/s)"


def instances_text(instances: int) -> str:
    """Return the number of instances in words."""
    if instances == AS_CONFIGURED:
        return "instances as configured"
    return "1 instance" if instances == 1 else f"{instances} instances"
