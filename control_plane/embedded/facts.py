"""What an embedded server runs models with: this machine's GPUs, the backends here, and the runtimes installed beside.

Handed to the control plane with the server (`process`), which chooses by it what the server loads.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from builders.host import observe_host
from builders.targets import Gpu, Host
from control_plane.embedded.layout import OWN_BACKENDS

TRITON_VERSION = "2.51.0"
"""Of the tritonserver in nvidia-pytriton 0.7.0, the release that is pinned."""

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_cu12_bindings"),
}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """As `Server` has them."""

    compute_capabilities: tuple[str, ...]
    backends: frozenset[str]
    versions: Mapping[str, str]


def host_facts(visible: str | None) -> HostFacts:
    """Return what a server of this machine has whose CUDA_VISIBLE_DEVICES is `visible`; None where that is not set."""
    host = _host()
    found = {
        runtime: next((host.distributions[name] for name in names if name in host.distributions), None)
        for runtime, names in _DISTRIBUTIONS.items()
    }
    backends = {path.parent.name for path in OWN_BACKENDS.glob("*/model.py")}
    return HostFacts(
        compute_capabilities=visible_capabilities(host.gpus, visible),
        backends=frozenset({"python", *backends}),
        versions={runtime: version for runtime, version in found.items() if version is not None},
    )


@cache
def _host() -> Host:
    """Look once: neither GPUs nor packages come and go while this process runs."""
    return observe_host()


def memory_bytes(meminfo: Path = MEMINFO, limits: tuple[Path, ...] = CGROUP_LIMITS) -> int:
    """Return the bytes of memory that this machine has for its processes: its own, or less where a cgroup limits them.

    0 where neither tells.
    """
    found = []
    with suppress(OSError):
        found += [int(size) * 1024 for size in re.findall(r"^MemTotal:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)]
    for limit in limits:
        with suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(limit.read_text()))
    return min(found, default=0)


def visible_capabilities(gpus: tuple[Gpu, ...], visible: str | None) -> tuple[str, ...]:
    """Return the compute capabilities of the GPUs that a server may use, `visible` being CUDA_VISIBLE_DEVICES.

    Where that names them otherwise than by numbers, all are meant.
    """
    if visible is None:
        return tuple(gpu.compute_capability for gpu in gpus)
    words = [word.strip() for word in visible.split(",") if word.strip()]
    if words == ["-1"]:
        return ()
    if not all(word.isdecimal() for word in words):
        return tuple(gpu.compute_capability for gpu in gpus)
    return tuple(gpus[int(word)].compute_capability for word in words if int(word) < len(gpus))
