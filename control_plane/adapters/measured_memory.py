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
    async with metrics_client() as client:
        return await device_bytes_by(client, metrics)


def metrics_client() -> httpx.AsyncClient:
    """Return a client for the metrics of many servers; whoever asked closes it."""
    return httpx.AsyncClient(timeout=_DEADLINE_S, trust_env=False, verify=False)  # noqa: S501 - metrics are plain HTTP


async def device_bytes_by(client: httpx.AsyncClient, metrics: str, uuids: frozenset[str] | None = None) -> int | None:
    """Like `device_bytes`, by a client that is there, of all GPUs or of those with these UUIDs."""
    url = f"http://{metrics}/metrics"
    try:
        response = await client.get(url)
        response.raise_for_status()
    except httpx.HTTPError as exc:
        raise ServerUnreachableError(f"{url} did not answer with metrics: {exc}") from exc
    return device_bytes_in(response.text, uuids)


def device_bytes_in(metrics: str, uuids: frozenset[str] | None = None) -> int | None:
    """Return the device memory in use that a Prometheus text tells of; None where it tells of none of these GPUs."""
    lines = "\n".join(line for line in metrics.splitlines() if line.startswith(_DEVICE_METRIC))
    values = [
        sample.value
        for family in text_string_to_metric_families(f"{lines}\n")
        for sample in family.samples
        if uuids is None or sample.labels.get("gpu_uuid") in uuids
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
