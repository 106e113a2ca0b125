"""A HardwareProfile for tests."""

from builders.measure.profile import HardwareProfile, InstanceCost, MeasuredDevice
from builders.measure.sweep import Point, PointResult, Skipped

DEVICE = MeasuredDevice("gpu", "NVIDIA A100-SXM4-40GB", 0, "8.0", "1g.5gb", "550.54")


def a_profile(*points: PointResult, complete: bool = True) -> HardwareProfile:
    """Return a profile of `points`, or of three that were measured and one that was not."""
    usual = (
        PointResult(Point(1, 1, 1), 100.0, 9.5, 12.25, 500),
        PointResult(Point(1, 1, 2), 180.0, 10.0, 15.5, 900, client_cpu=0.93),
        PointResult(Point(2, 8, 2), 0.0, None, None, 0, 7, "INTERNAL: <broken> & gone"),
    )
    return HardwareProfile(
        model="encoder",
        version=3,
        target="onnxruntime-cpu-fp32",
        device=DEVICE,
        measured_at="2026-11-23T12:00:00+00:00",
        requests="generated: X float32 [1]",
        seconds_per_point=5.0,
        points=points or usual,
        costs=(InstanceCost(1, 1.5, 50_000_000, None), InstanceCost(2, 2.25, 40_000_000, 1_000_000)),
        skipped=(Skipped(Point(2, 8, 4), "because"), Skipped(Point(2, 8, 8), "because")),
        software={"triton": "2.51.0"},
        complete=complete,
    )
