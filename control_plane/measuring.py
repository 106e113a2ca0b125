"""Measuring a version: carries a sweep out on a server that is there for nothing else, and makes its HardwareProfile.

`builders.measure` decides what comes next; the server is a port (`MeasuredServer`; the real one is
`adapters.measured_server`), so this is the same for a server started for it and one that runs already.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from builders.measure.profile import HardwareProfile, InstanceCost, MeasuredDevice
from builders.measure.sweep import (
    AS_CONFIGURED,
    Grid,
    Point,
    PointResult,
    Ran,
    next_point,
    point_result,
    skipped_points,
)
from builders.targets import Host
from control_plane.errors import DeadlineExceededError, LoadFailedError


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A model is loaded. `seconds` is the load call's own time; `on_gpu` whether Triton placed instances on a GPU."""

    seconds: float
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes above those of the empty server, at their peak since the last load; None where they cannot be read."""

    host_bytes: int | None
    device_bytes: int | None


class MeasuredServer(Protocol):
    """One model on one server that serves nothing else meanwhile. Every call has a deadline of its own."""

    async def load(self, instances: int) -> LoadResult:
        """Load the model with so many instances, members first; AS_CONFIGURED leaves the config as it is.

        Raises LoadFailedError with the cause, DeadlineExceededError, ServerUnreachableError, AdminKeyRefusedError.
        """

    async def run(self, batch_size: int, concurrency: int, seconds: float) -> Ran:
        """Keep `concurrency` requests in flight for `seconds` after a warm-up; at least one of each is waited for.

        Requests that fail are part of the answer. Raises LoadFailedError where nothing is loaded, and
        ControlPlaneError where the load generator itself failed.
        """

    async def memory(self) -> Memory:
        """Return what the loaded model takes."""

    async def unload(self) -> None:
        """Unload the model and its members; nothing happens where it is not loaded."""


@dataclass(slots=True)
class Measurement:
    """What a sweep has measured so far. Whoever stops the sweep still has this."""

    points: list[PointResult] = field(default_factory=list)
    costs: dict[int, InstanceCost] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a profile says beside the figures; `measured_at` is ISO 8601."""

    model: str
    version: int
    target: str
    measured_at: str
    requests: str
    seconds_per_point: float


async def measure(
    server: MeasuredServer,
    grid: Grid,
    seconds: float,
    seen: Measurement,
    report: Callable[[Point], None] = lambda _point: None,
) -> None:
    """Measure what is worth it of `grid` into `seen`, `seconds` each; `report` is called before every point.

    A number of instances that does not load is noted and left out, unless nothing could be measured at all: then its
    error is raised. Raises like the calls of `MeasuredServer`. The model is unloaded at the end, and stays where this
    is stopped.
    """
    loaded: int | None = None
    load_seconds = 0.0
    while (point := next_point(seen.points, grid, seen.refused)) is not None:
        report(point)
        if point.instances != loaded:
            await server.unload()
            loaded = None
            try:
                result = await server.load(point.instances)
            except (LoadFailedError, DeadlineExceededError) as error:
                if not seen.points:
                    raise
                seen.refused[point.instances] = str(error)
                continue
            loaded, load_seconds = point.instances, result.seconds
            seen.on_gpu = seen.on_gpu or result.on_gpu
        ran = await server.run(point.batch_size, point.concurrency, seconds)
        seen.points.append(point_result(point, ran))
        seen.costs[point.instances] = _cost(point.instances, load_seconds, await server.memory())
    await server.unload()


def profile_of(
    seen: Measurement, grid: Grid, device: MeasuredDevice, software: dict[str, str], about: Circumstances
) -> HardwareProfile:
    """Return the profile of what was measured; it is complete where nothing of `grid` is left to measure."""
    return HardwareProfile(
        model=about.model,
        version=about.version,
        target=about.target,
        device=device,
        measured_at=about.measured_at,
        requests=about.requests,
        seconds_per_point=about.seconds_per_point,
        points=tuple(seen.points),
        costs=tuple(seen.costs[count] for count in sorted(seen.costs)),
        skipped=skipped_points(seen.points, grid, seen.refused),
        software=software,
        complete=next_point(seen.points, grid, seen.refused) is None,
    )


def measured_device(host: Host, cores: int, visible: str, mig_profile: str, *, on_gpu: bool) -> MeasuredDevice:
    """Return the device of `host` that instances ran on: a GPU, or the CPU with `cores` cores.

    `visible` is CUDA_VISIBLE_DEVICES as the server had it: its first entry is the GPU where it is a number, else the
    host's first one is.
    """
    if not on_gpu:
        return MeasuredDevice("cpu", host.cpu, cores)
    first = visible.split(",", 1)[0].strip()
    index = int(first) if first.isdecimal() else 0
    if index >= len(host.gpus):
        return MeasuredDevice("gpu", "unknown GPU", mig_profile=mig_profile)
    gpu = host.gpus[index]
    return MeasuredDevice("gpu", gpu.name, 0, gpu.compute_capability, mig_profile, gpu.driver)


def with_instances(config: str, instances: int) -> str:
    """Return a load call's `config` with `instance_group` set to one group of `instances`, on one device.

    Kind and GPU are those of the config's first group. AS_CONFIGURED returns the config as it is.
    """
    if instances == AS_CONFIGURED:
        return config
    data = json.loads(config)
    first = (data.get("instance_group") or [{}])[0]
    group = {key: value for key, value in first.items() if key in {"kind", "gpus", "profile", "host_policy"}}
    if "gpus" in group:
        group["gpus"] = group["gpus"][:1]
    data["instance_group"] = [{**group, "count": instances}]
    return json.dumps(data, sort_keys=True)


def _cost(instances: int, load_seconds: float, memory: Memory) -> InstanceCost:
    def each(count: int | None) -> int | None:
        return None if count is None else round(count / max(instances, 1))

    return InstanceCost(instances, load_seconds, each(memory.host_bytes), each(memory.device_bytes))
