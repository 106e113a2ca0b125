"""What a tritonserver and its stubs take of host memory (`/proc`), and what it says of device memory (its metrics)."""

import re
from collections.abc import Iterable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from control_plane.errors import ServerUnreachableError

PROC = Path("/proc")
_DEVICE_METRIC = "nv_gpu_memory_used_bytes"
_DEADLINE_S = 5.0
_PSS = re.compile(r"^Pss:\s+(\d+) kB$", re.MULTILINE)
_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def host_bytes(processes: Iterable[int]) -> int:
    """Return the bytes of memory that `processes` hold now; pages they share are counted once (PSS).

    A process that is gone holds none. One whose PSS may not be read counts with all its resident pages.
    """
    return sum(_process_bytes(pid) for pid in processes)


async def device_bytes(metrics: str) -> int | None:
    """Return the device memory in use by the metrics at `metrics` (`host:port`), of all its GPUs together.

    None where the server tells of no GPU. Raises ServerUnreachableError.
    """
    url = f"http://{metrics}/metrics"
    try:
        async with httpx.AsyncClient(timeout=_DEADLINE_S, trust_env=False) as client:
            response = await client.get(url)
            response.raise_for_status()
    except httpx.HTTPError as exc:
        raise ServerUnreachableError(f"{url} did not answer with metrics: {exc}") from exc
    return device_bytes_in(response.text)


def device_bytes_in(metrics: str) -> int | None:
    """Return the device memory in use that a Prometheus text tells of; None where it tells of none."""
    values = [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == _DEVICE_METRIC
    ]
    return int(sum(values)) if values else None


def _process_bytes(pid: int) -> int:
    for name, field in (("smaps_rollup", _PSS), ("status", _RSS)):
        try:
            found = field.search((PROC / str(pid) / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ProcessLookupError):
            return 0
        except OSError:  # not ours to read
            continue
        if found is not None:
            return int(found[1]) * 1024
    return 0
