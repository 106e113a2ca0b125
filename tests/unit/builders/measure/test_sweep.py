"""What a sweep measures next: order, early stops with their reasons, and that every point is accounted for."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.measure.sweep import (
    AS_CONFIGURED,
    Grid,
    Point,
    PointResult,
    Ran,
    next_point,
    percentile,
    point_result,
    skipped_points,
)

Server = Callable[[Point], float]


def grows(point: Point) -> float:
    """Gain by everything."""
    return 100.0 * point.instances * point.batch_size * point.concurrency


def result(point: Point, throughput: float) -> PointResult:
    return PointResult(point, throughput, 1.0, 2.0, 10 if throughput else 0, 0 if throughput else 3, reason="broken")


def sweep(grid: Grid, server: Server, refused: dict[int, str] | None = None) -> list[PointResult]:
    done: list[PointResult] = []
    while (point := next_point(done, grid, refused)) is not None:
        done.append(result(point, server(point)))
    return done


def points(done: list[PointResult]) -> list[tuple[int, int, int]]:
    return [(it.point.instances, it.point.batch_size, it.point.concurrency) for it in done]


def reasons(done: list[PointResult], grid: Grid, refused: dict[int, str] | None = None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for it in skipped_points(done, grid, refused):
        counts[it.reason] = counts.get(it.reason, 0) + 1
    return counts


def test_instances_are_outermost_and_all_axes_ascend() -> None:
    grid = Grid((4, 1), (2, 1), (4, 2), 8)
    done = sweep(grid, grows)
    assert points(done) == [(1, 1, 2), (1, 1, 4), (1, 4, 2), (1, 4, 4), (2, 1, 2), (2, 1, 4), (2, 4, 2), (2, 4, 4)]
    assert skipped_points(done, grid) == ()


def test_a_flat_curve_ends_after_two_steps_that_add_nothing() -> None:
    rates = {1: 100.0, 2: 150.0, 4: 152.0, 8: 155.0, 16: 1000.0, 32: 1000.0}
    grid = Grid((1,), (1,), tuple(rates), 8)
    done = sweep(grid, lambda point: rates[point.concurrency])
    assert points(done) == [(1, 1, 1), (1, 1, 2), (1, 1, 4), (1, 1, 8)]
    assert reasons(done, grid) == {"throughput is flat: 150, 152, 155 items/s at concurrency 2, 4, 8": 2}


def test_one_flat_step_ends_nothing() -> None:
    rates = {1: 100.0, 2: 101.0, 4: 150.0, 8: 151.0, 16: 200.0}
    assert len(sweep(Grid((1,), (1,), tuple(rates), 8), lambda point: rates[point.concurrency])) == 5


def test_larger_batches_stop_after_one_that_gave_no_more() -> None:
    rates = {1: 100.0, 2: 200.0, 4: 201.0, 8: 900.0}
    grid = Grid(tuple(rates), (1,), (1,), 8)
    done = sweep(grid, lambda point: rates[point.batch_size])
    assert points(done) == [(1, 1, 1), (1, 2, 1), (1, 4, 1)]
    assert reasons(done, grid) == {"batch 4 gave no more than batch 2 (201 against 200 items/s)": 1}


def test_more_instances_stop_after_a_number_that_gave_no_more() -> None:
    grid = Grid((1,), (1, 2, 4), (4,), 8)
    done = sweep(grid, lambda _point: 100.0)
    assert points(done) == [(1, 1, 4), (2, 1, 4)]
    assert reasons(done, grid) == {"2 instances gave no more than 1 instance (100 against 100 items/s)": 1}


def test_instances_that_would_idle_are_left_out_only_where_fewer_are_measured() -> None:
    grid = Grid((1,), (1, 4), (1, 2, 4), 8)
    done = sweep(grid, grows)
    assert points(done) == [(1, 1, 1), (1, 1, 2), (1, 1, 4), (4, 1, 2), (4, 1, 4)]
    assert reasons(done, grid) == {"1 in flight keep no more than 1 instance busy": 1}


def test_batches_above_what_the_model_takes_are_left_out() -> None:
    grid = Grid((1, 8, 32), (1,), (1,), 8)
    assert points(sweep(grid, grows)) == [(1, 1, 1), (1, 8, 1)]
    assert reasons([], grid) == {"the model takes batches of at most 8": 1}
    unbatched = Grid((1, 8), (1,), (1,), 0)
    assert points(sweep(unbatched, grows)) == [(1, 1, 1)]
    assert reasons([], unbatched) == {"the model takes batches of at most 1": 1}


def test_a_series_ends_where_every_request_fails_and_the_next_goes_on() -> None:
    grid = Grid((1, 2), (1,), (1, 2, 4), 8)
    done = sweep(grid, lambda point: 0.0 if (point.batch_size, point.concurrency) == (1, 2) else grows(point))
    assert points(done) == [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (1, 2, 4)]
    assert reasons(done, grid) == {"every request failed at concurrency 2: broken": 1}


def test_instances_that_did_not_load_are_left_out_with_all_above() -> None:
    grid = Grid((1,), (1, 2, 4), (8,), 8)
    refused = {2: "out of memory"}
    done = sweep(grid, grows, refused)
    assert points(done) == [(1, 1, 8)]
    assert reasons(done, grid, refused) == {"2 instances did not load: out of memory": 2}


@pytest.mark.parametrize("axis", ["batch_sizes", "instances", "concurrency"])
@pytest.mark.parametrize("values", [(), (0,), (-1, 2)])
def test_an_axis_without_numbers_of_at_least_1_is_refused(axis: str, values: tuple[int, ...]) -> None:
    axes = {"batch_sizes": (1,), "instances": (1,), "concurrency": (1,), axis: values}
    if (axis, values) == ("instances", (AS_CONFIGURED,)):
        assert next(iter(Grid(**axes, max_batch_size=1))).instances == AS_CONFIGURED
    else:
        with pytest.raises(ValueError, match=f"{axis}: expected numbers of at least 1"):
            Grid(**axes, max_batch_size=1)


axes = st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple)


@settings(max_examples=60, deadline=None)
@given(batch_sizes=axes, instances=axes, concurrency=axes, most=st.integers(0, 64), data=st.data())
def test_every_point_is_measured_or_skipped_and_nothing_twice(
    batch_sizes: tuple[int, ...],
    instances: tuple[int, ...],
    concurrency: tuple[int, ...],
    most: int,
    data: st.DataObject,
) -> None:
    grid = Grid(batch_sizes, instances, concurrency, most)
    done = sweep(grid, lambda _point: data.draw(st.sampled_from((0.0, 50.0, 51.0, 80.0, 160.0))))
    measured = [it.point for it in done]
    assert measured == sorted(set(measured))
    skipped = [it.point for it in skipped_points(done, grid)]
    assert sorted([*measured, *skipped]) == list(grid)
    assert all(it.reason for it in skipped_points(done, grid))


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([5.0], 99, 5.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 99, 4.0),
        ([1.0, 2.0], 0, 1.0),
        ([float(it) for it in range(1, 101)], 99, 99.0),
        ([float(it) for it in range(1, 101)], 7, 7.0),
        ([float(it) for it in range(1, 1001)], 99, 990.0),
    ],
)
def test_percentiles_are_observed_values(values: list[float], q: float, expected: float) -> None:
    assert percentile(values, q) == expected


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_run_becomes_items_per_second_and_cores() -> None:
    ran = Ran((4.0, 2.0, 3.0), seconds=2.0, failed=1, reason="UNAVAILABLE: gone", client_cpu_s=1.0)
    got = point_result(Point(1, 8, 2), ran)
    assert got == PointResult(Point(1, 8, 2), 12.0, 3.0, 4.0, 3, 1, "UNAVAILABLE: gone", 0.5)
    assert point_result(Point(1, 1, 1), Ran((), 1.0)).p99_ms is None
