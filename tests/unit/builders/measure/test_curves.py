"""The drawn curves: well-formed, one line per series in both charts, inside the picture, axes around the values."""

import re
from xml.etree import ElementTree

import pytest

from builders.measure.curves import curves_svg, linear_axis, log_axis
from builders.measure.sweep import Point, PointResult
from tests.unit.builders.measure.profiles import a_profile

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*points: PointResult) -> ElementTree.Element:
    return ElementTree.fromstring(curves_svg(a_profile(*points)))  # noqa: S314 - written by the code under test


def series(instances: int, batch_size: int, *rates: float) -> list[PointResult]:
    return [
        PointResult(Point(instances, batch_size, 2**number), rate, 5.0, 8.0 * 2**number, 100)
        for number, rate in enumerate(rates)
    ]


def lines_of(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    texts = [it.get("points", "") for it in root.iter(f"{SVG}polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())] for text in texts]


def test_each_series_is_a_line_in_both_charts_and_in_the_legend() -> None:
    root = drawn(*series(1, 1, 100, 190, 200), *series(1, 8, 300, 500), *series(2, 8, 320, 990))
    words = [it.text for it in root.iter(f"{SVG}text")]
    for name in ("1 instance, batch 1", "1 instance, batch 8", "2 instances, batch 8"):
        assert words.count(name) == 1
    assert [len(line) for line in lines_of(root)] == [3, 2, 2] * 2 + [2, 2, 2]
    box = [float(it) for it in root.get("viewBox", "").split()]
    for line in lines_of(root):
        for x, y in line:
            assert box[0] <= x <= box[2]
            assert box[1] <= y <= box[3]


def test_more_throughput_is_higher_and_more_in_flight_is_further_right() -> None:
    throughput, latency, *_ = lines_of(drawn(*series(1, 1, 100, 200, 350)))
    assert [y for _, y in throughput] == sorted((y for _, y in throughput), reverse=True)
    assert [x for x, _ in throughput] == sorted(x for x, _ in throughput)
    steps = [one - other for (one, _), (other, _) in zip(throughput[1:], throughput, strict=False)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2), "doubling is one step of a logarithmic axis"
    assert [y for _, y in latency] == sorted((y for _, y in latency), reverse=True)


def test_instances_differ_by_dashes_and_batch_sizes_by_colour() -> None:
    root = drawn(*series(1, 1, 1, 2), *series(1, 8, 3, 4), *series(2, 1, 5, 6))
    looks = [(it.get("class"), it.get("stroke-dasharray")) for it in root.iter(f"{SVG}polyline")][:3]
    assert looks == [("line l0", None), ("line l1", None), ("line l0", "7 4")]


def test_names_are_escaped_and_failed_points_are_not_drawn() -> None:
    text = curves_svg(a_profile())
    root = ElementTree.fromstring(text)  # noqa: S314 - written by the code under test
    assert [len(line) for line in lines_of(root)] == [2, 2, 2]
    assert "broken" not in text
    assert "prefers-color-scheme: dark" in text


def test_nothing_measured_is_an_empty_picture() -> None:
    root = drawn(PointResult(Point(1, 1, 1), 0.0, None, None, 0, 1, "broken"))
    assert lines_of(root) == []


def test_a_single_point_has_a_place() -> None:
    for line in lines_of(drawn(*series(1, 1, 100))):
        assert all(re.fullmatch(r"\d+\.\d", f"{value:.1f}") for pair in line for value in pair)


@pytest.mark.parametrize("largest", [0.0, 1e-3, 0.9, 1.0, 7.0, 60.0, 61.0, 12345.6, 9.99e6])
def test_a_linear_axis_covers_its_values_with_a_few_round_ticks(largest: float) -> None:
    axis = linear_axis("a", [0.0, largest])
    assert axis.ticks[0] == 0
    assert 3 <= len(axis.ticks) <= 8
    assert axis.place(axis.ticks[-1]) == pytest.approx(1)
    assert 0 <= axis.place(largest) <= 1 + 1e-9


@pytest.mark.parametrize("base", [2, 10])
@pytest.mark.parametrize("values", [[1.0], [0.5, 300.0], [3.0, 3.0], [2.0, 5.0], [1e-3, 1e3]])
def test_a_logarithmic_axis_covers_its_values(base: int, values: list[float]) -> None:
    axis = log_axis("a", values, base)
    assert axis.place(axis.ticks[0]) == pytest.approx(0)
    assert axis.place(axis.ticks[-1]) == pytest.approx(1)
    assert all(-1e-6 <= axis.place(value) <= 1 + 1e-6 for value in values)
    assert len(axis.ticks) >= 2
