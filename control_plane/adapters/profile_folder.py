"""What versions were measured to take of memory and how fast they answer: HardwareProfiles of `tritonfleet measure`."""

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from builders.errors import BuildError
from builders.measure.profile import HardwareProfile, parse_profile
from control_plane.state import MeasuredLatency, ModelName, Pin

logger = logging.getLogger(__name__)


def measured_memory(folder: Path) -> dict[Pin, int]:
    """Return the bytes that an instance of a version takes: of device memory where it was told, else of the host's.

    Of several profiles of a version the largest figure counts: placement must not promise what one device cannot hold.
    A file that is no profile is passed over.
    """
    found: dict[Pin, int] = {}
    for pin, profile in _profiles(folder):
        sizes = (cost.device_bytes or cost.host_bytes or 0 for cost in profile.costs)
        found[pin] = max(found.get(pin, 0), max(sizes, default=0))
    return {pin: size for pin, size in found.items() if size}


def measured_latencies(folder: Path) -> dict[Pin, tuple[MeasuredLatency, ...]]:
    """Return the least p99 of each version on each kind of GPU or slice: what it has there when it is not crowded."""
    found: dict[Pin, list[MeasuredLatency]] = {}
    for pin, profile in _profiles(folder):
        p99s = [it.p99_ms for it in profile.points if it.p99_ms is not None and not it.failed]
        device = profile.device
        if p99s and device.compute_capability:
            latency = MeasuredLatency(device.compute_capability, device.mig_profile, min(p99s))
            found.setdefault(pin, []).append(latency)
    return {pin: tuple(latencies) for pin, latencies in found.items()}


def _profiles(folder: Path) -> Iterator[tuple[Pin, HardwareProfile]]:
    for path in sorted(folder.glob("*.json")):
        try:
            status = path.stat()
        except OSError:
            continue
        profile = _read(path, status.st_mtime_ns, status.st_size)
        if profile is not None:
            yield Pin(ModelName(profile.model), profile.version), profile


@lru_cache(maxsize=4096)  # every pass of the loop asks
def _read(path: Path, _changed_ns: int, _bytes: int) -> HardwareProfile | None:
    try:
        return parse_profile(path.read_bytes(), path=str(path))
    except (BuildError, OSError) as error:
        logger.warning("A profile is passed over: %s", error)
        return None
