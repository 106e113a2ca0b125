"""A host whose GPUs are made up: the real NVML adapter over a driver's library in Python (`mig.simulated`).

Its GPUs outlive a process where a file keeps them, as real ones do; and who uses a slice is read from the processes of
this machine, by the device that they were started for (CUDA_VISIBLE_DEVICES).
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from control_plane.adapters.nvml import NvmlHost
from control_plane.mig import Placement
from control_plane.mig.host import GpuInstance, HostGpu
from control_plane.mig.simulated import SimulatedGpu, SimulatedInstance, SimulatedNvml, installed

_PROC = Path("/proc")
_VARIABLE = b"CUDA_VISIBLE_DEVICES="
_INSTALLING = threading.Lock()
"""The seam in `pynvml` is one for the whole process."""

_CHANGING = (
    "nvmlDeviceSetMigMode",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceDestroy",
)

T = TypeVar("T")


class SimulatedHost:
    """Made-up GPUs of these products, as many of each; `state` is the file that keeps how they are cut."""

    def __init__(self, gpus: Mapping[str, int], state: Path | None = None) -> None:
        self.library = SimulatedNvml(gpus)
        self._host, self._state = NvmlHost(), state
        self._file_lock = FileLock(f"{state}.lock") if state is not None else nullcontext()
        for name in _CHANGING:
            setattr(self.library, name, self._kept(getattr(self.library, name)))

    def gpus(self) -> tuple[HostGpu, ...]:
        """Read every GPU; see the port."""
        return self._call(self._host.gpus)

    def create(self, gpu: str, placement: Placement) -> GpuInstance:
        """Cut a GPU instance; see the port."""
        return self._call(lambda: self._host.create(gpu, placement))

    def destroy(self, gpu: str, instance: int) -> None:
        """Remove a GPU instance; see the port."""
        self._call(lambda: self._host.destroy(gpu, instance))

    def set_mig(self, gpu: str, *, enabled: bool) -> bool:
        """Ask for MIG to be on or off; see the port."""
        return self._call(lambda: self._host.set_mig(gpu, enabled=enabled))

    def _call(self, ask: Callable[[], T]) -> T:
        with _INSTALLING, self._file_lock, installed(self.library):
            self._load()
            self._find_users()
            return ask()

    def _kept(self, function: Callable[..., int]) -> Callable[..., int]:
        """Return a function of the library that leaves on disk what it changed, as a driver leaves it on the GPU."""

        def call(*given: Any) -> int:  # noqa: ANN401 - the library's
            code = function(*given)
            self.keep()
            return code

        return call

    def _find_users(self) -> None:
        users = _processes_by_device()
        for gpu in self.library.gpus:
            for instance in gpu.instances.values():
                instance.processes = users.get(self.library.mig_uuid(gpu, instance.id), set())

    def _load(self) -> None:
        if self._state is None or not self._state.exists():
            return
        kept = json.loads(self._state.read_text(encoding="utf-8"))
        for gpu in self.library.gpus:
            if gpu.uuid in kept:
                _restore(gpu, kept[gpu.uuid])

    def keep(self) -> None:
        """Leave on disk how the GPUs are cut."""
        if self._state is None:
            return
        kept = {
            gpu.uuid: {
                "mig": gpu.mig,
                "pending": gpu.pending,
                "instances": [
                    {"id": it.id, "start": it.placement.start, "profile": it.placement.profile, "compute": it.compute}
                    for it in gpu.instances.values()
                ],
            }
            for gpu in self.library.gpus
        }
        text = json.dumps(kept, indent=1)
        if not self._state.exists() or self._state.read_text(encoding="utf-8") != text:
            draft = self._state.with_name(f"{self._state.name}.new")
            draft.write_text(text, encoding="utf-8")
            draft.replace(self._state)


def _restore(gpu: SimulatedGpu, kept: Mapping[str, Any]) -> None:
    gpu.mig, gpu.pending = kept["mig"], kept["pending"]
    gpu.instances.clear()
    for it in kept["instances"]:
        placement = Placement(it["start"], it["profile"])
        profile = gpu.product.profiles[placement.profile]
        gpu.instances[it["id"]] = SimulatedInstance(it["id"], placement, profile, it["compute"])


def _processes_by_device() -> dict[str, set[int]]:
    """Return the pids of this user's processes by the MIG device that they were started for."""
    found: dict[str, set[int]] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # gone meanwhile, or somebody else's
            for variable in (entry / "environ").read_bytes().split(b"\0"):
                if variable.startswith(_VARIABLE + b"MIG-"):
                    found.setdefault(variable.removeprefix(_VARIABLE).decode(), set()).add(int(entry.name))
    return found
