"""A profile in columns: figures rounded for people, remarks where they need one, one line per reason."""

from dataclasses import replace

from builders.measure.profile import InstanceCost
from builders.measure.report import COST_COLUMNS, POINT_COLUMNS, cost_rows, device_text, point_rows, skipped_lines
from builders.measure.sweep import AS_CONFIGURED, Point, PointResult
from tests.unit.builders.measure.profiles import a_profile


def test_points_in_columns() -> None:
    rows = point_rows(a_profile())
    assert rows[0] == ("1", "1", "1", "9.50", "12.25", "100.0", "500", "")
    assert rows[1][-1] == "the load generator used 93% of a core and may be the limit"
    assert rows[2] == ("2", "8", "2", "", "", "0.0", "0", "7 failed: INTERNAL: <broken> & gone")
    assert {len(row) for row in rows} == {len(POINT_COLUMNS)}


def test_costs_in_columns() -> None:
    rows = cost_rows(a_profile())
    assert rows == [("1", "1.50", "50.0 MB", "unknown"), ("2", "2.25", "40.0 MB", "1.0 MB")]
    assert {len(row) for row in rows} == {len(COST_COLUMNS)}


def test_an_ensemble_has_the_instances_of_its_configs() -> None:
    profile = a_profile(PointResult(Point(AS_CONFIGURED, 1, 1), 1.0, 1.0, 1.0, 1))
    assert point_rows(profile)[0][0] == "as configured"
    costs = cost_rows(replace(profile, costs=(InstanceCost(AS_CONFIGURED, 1.0, 2_000_000, None),)))
    assert costs == [("as configured", "1.00", "2.0 MB (all together)", "unknown")]


def test_what_was_left_out_is_told_once_per_reason() -> None:
    assert skipped_lines(a_profile()) == ["2 points left out: because"]


def test_the_device_in_words() -> None:
    assert device_text(a_profile()) == "NVIDIA A100-SXM4-40GB (compute capability 8.0, MIG 1g.5gb, driver 550.54)"
