"""Carrying a sweep out on a fake server: what is loaded when, what is kept, and what a stop or a failure leaves."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from builders.measure.profile import HardwareProfile, MeasuredDevice
from builders.measure.sweep import AS_CONFIGURED, Grid, Point
from builders.targets import Gpu, Host
from control_plane.errors import LoadFailedError
from control_plane.measuring import (
    Circumstances,
    Measurement,
    measure,
    measured_device,
    profile_of,
    with_instances,
)
from tests.fakes.measured import FakeMeasuredServer

GRID = Grid((1,), (1, 2), (1, 2), 8)
CPU = MeasuredDevice("cpu", "A CPU", 2)
ABOUT = Circumstances("m", 3, "", "2026-11-23T12:00:00+00:00", "generated", 1.0)


def swept(server: FakeMeasuredServer, grid: Grid = GRID) -> Measurement:
    seen = Measurement()
    asyncio.run(measure(server, grid, 1.0, seen))
    return seen


def profile(seen: Measurement, grid: Grid = GRID) -> HardwareProfile:
    return profile_of(seen, grid, CPU, {"triton": "2.51.0"}, ABOUT)


def test_each_number_of_instances_is_loaded_once_and_nothing_stays_loaded() -> None:
    server = FakeMeasuredServer()
    got = profile(swept(server))
    assert server.calls == ["load 1", "run 1 1", "run 1 2", "unload", "load 2", "run 1 2", "unload"]
    assert [(str(it.point), it.throughput, it.p99_ms, it.client_cpu) for it in got.points] == [
        ("1 instance, batch 1, concurrency 1", 100.0, 10.0, 0.1),
        ("1 instance, batch 1, concurrency 2", 100.0, 20.0, 0.1),
        ("2 instances, batch 1, concurrency 2", 200.0, 10.0, 0.1),
    ]
    assert [(it.point, it.reason) for it in got.skipped] == [
        (Point(2, 1, 1), "1 in flight keep no more than 1 instance busy")
    ]
    assert got.complete


def test_costs_are_per_instance() -> None:
    costs = profile(swept(FakeMeasuredServer(on_gpu=True))).costs
    assert [(it.instances, it.load_seconds, it.host_bytes, it.device_bytes) for it in costs] == [
        (1, 0.5, 100_000_007, 1_000_000),
        (2, 1.0, 100_000_004, 500_000),
    ]
    as_configured = profile(swept(FakeMeasuredServer(), Grid((1,), (AS_CONFIGURED,), (1,), 8))).costs
    assert [(it.instances, it.host_bytes, it.device_bytes) for it in as_configured] == [
        (AS_CONFIGURED, 100_000_007, None)
    ]


def test_instances_that_do_not_load_are_left_out_with_the_reason() -> None:
    server = FakeMeasuredServer({2: "out of memory"})
    got = profile(swept(server))
    assert [it.point.instances for it in got.points] == [1, 1]
    assert {it.reason for it in got.skipped} == {
        "2 instances did not load: out of memory",
    }
    assert got.complete
    assert server.instances is None


def test_a_version_that_does_not_load_at_all_is_an_error() -> None:
    with pytest.raises(LoadFailedError, match="broken"):
        swept(FakeMeasuredServer({1: "broken"}))


def test_a_server_that_dies_leaves_what_was_measured() -> None:
    got = profile(swept(FakeMeasuredServer(dies_at=2)))
    assert [(it.samples, it.failed, it.reason) for it in got.points][:2] == [(100, 0, ""), (0, 2, "UNAVAILABLE: gone")]


def test_a_sweep_that_is_stopped_keeps_its_points_and_is_not_complete() -> None:
    server = FakeMeasuredServer()
    seen = Measurement()

    def stop(point: Point) -> None:
        if point.instances == 2:
            raise asyncio.CancelledError

    async def body() -> None:
        await measure(server, GRID, 1.0, seen, stop)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_run(body))
    got = profile(seen)
    assert [it.point.concurrency for it in got.points] == [1, 2]
    assert [it.instances for it in got.costs] == [1]
    assert not got.complete


async def _run(body: Callable[[], Awaitable[None]]) -> None:
    await body()


@pytest.mark.parametrize(
    ("given", "group"),
    [
        ({}, {"count": 3}),
        ({"instance_group": [{"kind": "KIND_CPU", "count": 2}]}, {"kind": "KIND_CPU", "count": 3}),
        (
            {"instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": [1, 2], "name": "a"}, {"kind": "KIND_CPU"}]},
            {"kind": "KIND_GPU", "count": 3, "gpus": [1]},
        ),
    ],
)
def test_a_config_gets_one_group_of_instances_on_one_device(given: dict[str, object], group: dict[str, object]) -> None:
    changed = json.loads(with_instances(json.dumps({"name": "m", **given}), 3))
    assert changed == {"name": "m", "instance_group": [group]}


def test_as_configured_leaves_the_config_as_it_is() -> None:
    assert with_instances('{"name":  "m"}', AS_CONFIGURED) == '{"name":  "m"}'


HOST = Host("A CPU", (Gpu("A", "8.0", 1, "1.0"), Gpu("B", "9.0", 1, "1.0")))


@pytest.mark.parametrize(
    ("visible", "on_gpu", "name"),
    [
        ("", False, "A CPU"),
        ("1", False, "A CPU"),
        ("", True, "A"),
        ("1,0", True, "B"),
        ("GPU-uuid", True, "A"),
        ("7", True, "unknown GPU"),
    ],
)
def test_the_device_is_what_the_instances_ran_on(visible: str, on_gpu: bool, name: str) -> None:  # noqa: FBT001 - a table
    device = measured_device(HOST, 2, visible, "1g.5gb", on_gpu=on_gpu)
    assert (device.name, device.kind) == (name, "gpu" if on_gpu else "cpu")
    assert device.mig_profile == ("1g.5gb" if on_gpu else "")
