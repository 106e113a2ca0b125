"""A HardwareProfile in words and columns, for a terminal. Pure; the command line draws the table."""

from builders.measure.profile import HardwareProfile, InstanceCost
from builders.measure.sweep import AS_CONFIGURED, PointResult

POINT_COLUMNS = (">instances", ">batch", ">concurrency", ">p50 ms", ">p99 ms", ">items/s", ">requests", "")
COST_COLUMNS = (">instances", ">load s", ">host memory per instance", ">device memory per instance")

BUSY_CLIENT = 0.8
"""Above this many cores the load generator, which has one thread, may be what limits the figures."""


def point_rows(profile: HardwareProfile) -> list[tuple[str, ...]]:
    """Return one row per measured point, under POINT_COLUMNS; the last column is what to know about it."""
    return [
        (
            _instances(it.point.instances),
            str(it.point.batch_size),
            str(it.point.concurrency),
            _ms(it.p50_ms),
            _ms(it.p99_ms),
            f"{it.throughput:.1f}",
            str(it.samples),
            _remark(it),
        )
        for it in profile.points
    ]


def cost_rows(profile: HardwareProfile) -> list[tuple[str, ...]]:
    """Return one row per number of instances, under COST_COLUMNS."""
    return [
        (_instances(it.instances), f"{it.load_seconds:.2f}", _bytes(it, it.host_bytes), _bytes(it, it.device_bytes))
        for it in profile.costs
    ]


def skipped_lines(profile: HardwareProfile) -> list[str]:
    """Return one line per reason, with how many points it spared, in the order of the sweep."""
    counts: dict[str, int] = {}
    for it in profile.skipped:
        counts[it.reason] = counts.get(it.reason, 0) + 1
    return [f"{count} {'point' if count == 1 else 'points'} left out: {reason}" for reason, count in counts.items()]


def device_text(profile: HardwareProfile) -> str:
    """Return the device in words, as in "NVIDIA H100 (compute capability 9.0, MIG 1g.10gb, driver 550.54)"."""
    device = profile.device
    more = [
        f"{device.cores} cores" if device.kind == "cpu" and device.cores else "",
        f"compute capability {device.compute_capability}" if device.compute_capability else "",
        f"MIG {device.mig_profile}" if device.mig_profile else "",
        f"driver {device.driver}" if device.driver else "",
    ]
    said = ", ".join(part for part in more if part)
    return f"{device.name} ({said})" if said else device.name


def _remark(result: PointResult) -> str:
    remarks = []
    if result.failed:
        remarks.append(f"{result.failed} failed: {result.reason}")
    if result.client_cpu > BUSY_CLIENT:
        remarks.append(f"the load generator used {result.client_cpu:.0%} of a core and may be the limit")
    return "; ".join(remarks)


def _instances(count: int) -> str:
    return "as configured" if count == AS_CONFIGURED else str(count)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _bytes(cost: InstanceCost, count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e6:.1f} MB" + (" (all together)" if cost.instances == AS_CONFIGURED else "")
