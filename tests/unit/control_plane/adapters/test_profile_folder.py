"""Measured memory by version, from the folder of profiles."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from builders.measure.profile import HardwareProfile, InstanceCost, MeasuredDevice
from control_plane.adapters.profile_folder import measured_memory
from control_plane.state import ModelName, Pin

PROFILE = HardwareProfile(
    model="m",
    version=2,
    target="",
    device=MeasuredDevice("cpu", "a CPU"),
    measured_at="2026-01-01T00:00:00+00:00",
    requests="generated",
    seconds_per_point=1.0,
    points=(),
    costs=(InstanceCost(1, 0.5, 300, None), InstanceCost(2, 0.6, 200, None)),
)


def test_the_largest_figure_of_a_version_counts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(PROFILE.to_json())
    on_gpu = replace(PROFILE, device=MeasuredDevice("gpu", "a GPU"), costs=(InstanceCost(1, 0.5, 900, 700),))
    (tmp_path / "b.json").write_text(on_gpu.to_json())
    unread = replace(PROFILE, version=3, costs=(InstanceCost(1, 0.5, None, None),))
    (tmp_path / "c.json").write_text(unread.to_json())
    assert measured_memory(tmp_path) == {Pin(ModelName("m"), 2): 700}
    assert measured_memory(tmp_path / "none") == {}


def test_what_is_no_profile_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "torn.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert measured_memory(tmp_path) == {}
    assert "torn.json: not a HardwareProfile" in caplog.text
