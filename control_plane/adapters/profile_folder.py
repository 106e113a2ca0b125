"""What instances were measured to take of memory, from the folder of HardwareProfiles of `tritonfleet measure`."""

import logging
from functools import lru_cache
from pathlib import Path

from builders.errors import BuildError
from builders.measure.profile import HardwareProfile, parse_profile
from control_plane.state import ModelName, Pin

logger = logging.getLogger(__name__)


def measured_memory(folder: Path) -> dict[Pin, int]:
    """Return the bytes that an instance of a version takes: of device memory where it was told, else of the host's.

    Of several profiles of a version the largest figure counts: placement must not promise what one device cannot hold.
    A file that is no profile is passed over.
    """
    found: dict[Pin, int] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            status = path.stat()
        except OSError:
            continue
        profile = _read(path, status.st_mtime_ns, status.st_size)
        if profile is None:
            continue
        pin = Pin(ModelName(profile.model), profile.version)
        sizes = (cost.device_bytes or cost.host_bytes or 0 for cost in profile.costs)
        found[pin] = max(found.get(pin, 0), max(sizes, default=0))
    return {pin: size for pin, size in found.items() if size}


@lru_cache(maxsize=4096)  # every pass of the loop asks
def _read(path: Path, _changed_ns: int, _bytes: int) -> HardwareProfile | None:
    try:
        return parse_profile(path.read_bytes(), path=str(path))
    except (BuildError, OSError) as error:
        logger.warning("A profile is passed over: %s", error)
        return None
