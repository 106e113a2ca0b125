"""A driver's library in Python, below `nvidia-ml-py`: it answers as NVML does, error codes included, for made-up GPUs.

`installed` puts it where `pynvml` has the real one, so that the adapter itself runs without a GPU. It knows the calls
that the adapter makes, and refuses what the driver refuses: placements that are taken, instances and GPUs in use, a
mode that needs a reset. Handles are numbers behind pointers, as the real ones are.
"""

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from control_plane.mig.geometry import Placement, illegality
from control_plane.mig.products import (
    MIB,
    NVML_COMPUTE_PROFILES,
    NVML_PROFILES,
    MigProfile,
    Product,
    product_named,
)

SUCCESS, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE = 0, 2, 3, 6, 7
RESET_REQUIRED, IN_USE, INSUFFICIENT_RESOURCES = 16, 19, 23
_AMPERE = "8."

Handle = tuple[str, int, int]
"""What a handle stands for: its kind, the index of the GPU, and the id of the GPU instance."""


@dataclass
class SimulatedInstance:
    """A GPU instance; `compute` is the id of its compute instance, None without one. `processes` are pids on it."""

    id: int
    placement: Placement
    profile: MigProfile
    compute: int | None = None
    processes: set[int] = field(default_factory=set)


@dataclass
class SimulatedGpu:
    """A GPU of a product. Its instances do not survive a reset; a change of its mode may need one."""

    product: Product
    uuid: str
    mig: bool = False
    pending: bool = False
    instances: dict[int, SimulatedInstance] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)

    def reset(self) -> None:
        """Begin anew in the mode that was asked for, without an instance."""
        self.mig = self.pending
        self.instances.clear()


class SimulatedNvml:
    """The library. Tests and simulated hosts reach its `gpus` directly, to run processes or to reset."""

    def __init__(self, gpus: Mapping[str, int]) -> None:
        names = [name for name, count in gpus.items() for _ in range(count)]
        self.gpus = [
            SimulatedGpu(product_named(name), f"GPU-{uuid5(NAMESPACE_OID, f'{name}/{number}')}")
            for number, name in enumerate(names)
        ]
        self.refuse: dict[str, int] = {}
        self._handles: list[Handle | None] = [None]

    def __getattribute__(self, name: str) -> Any:
        """Return a function of the library, or one that fails as it was told to."""
        if name.startswith("nvml") and name in object.__getattribute__(self, "refuse"):
            code = object.__getattribute__(self, "refuse")[name]
            return lambda *_: code
        return object.__getattribute__(self, name)

    @staticmethod
    def mig_uuid(gpu: SimulatedGpu, instance: int) -> str:
        """Return the UUID of the MIG device on a GPU instance."""
        there = gpu.instances.get(instance)
        where = f"{there.placement.profile}@{there.placement.start}" if there is not None else ""
        return f"MIG-{uuid5(NAMESPACE_OID, f'{gpu.uuid}/{instance}/{where}')}"

    def _put(self, where: Any, handle: Handle) -> int:
        """Write a handle behind a reference, or into an element of an array."""
        if handle not in self._handles:
            self._handles.append(handle)
        number = ctypes.c_void_p(self._handles.index(handle))
        ctypes.memmove(ctypes.addressof(getattr(where, "_obj", where)), ctypes.byref(number), ctypes.sizeof(number))
        return SUCCESS

    def _gpu(self, handle: Any) -> SimulatedGpu:
        return self.gpus[self._handle(handle)[1]]

    def _instance(self, handle: Any) -> SimulatedInstance | None:
        _, gpu, instance = self._handle(handle)
        return self.gpus[gpu].instances.get(instance)

    def _handle(self, handle: Any) -> Handle:
        found = self._handles[ctypes.cast(handle, ctypes.c_void_p).value or 0]
        assert found is not None, "a handle that was never given out"  # noqa: S101 - the real library would crash
        return found

    def nvmlInitWithFlags(self, _flags: int) -> int:
        return SUCCESS

    def nvmlShutdown(self) -> int:
        return SUCCESS

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return SUCCESS

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:
        return self._put(device, ("gpu", index.value, 0)) if index.value < len(self.gpus) else INVALID_ARGUMENT

    def nvmlDeviceGetUUID(self, device: Any, text: Any, _size: Any) -> int:
        kind, gpu, instance = self._handle(device)
        found = self.gpus[gpu]
        uuid = found.uuid if kind == "gpu" else self.mig_uuid(found, instance)
        text.value = uuid.encode()
        return SUCCESS

    def nvmlDeviceGetName(self, device: Any, text: Any, _size: Any) -> int:
        text.value = f"Simulated {self._gpu(device).product.name}".encode()
        return SUCCESS

    def nvmlDeviceGetCudaComputeCapability(self, device: Any, major: Any, minor: Any) -> int:
        numbers = self._gpu(device).product.compute_capability.split(".")
        major._obj.value, minor._obj.value = map(int, numbers)
        return SUCCESS

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        largest = max(self._gpu(device).product.profiles.values(), key=lambda it: it.memory_bytes)
        memory._obj.total = memory._obj.free = largest.memory_bytes
        return SUCCESS

    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: Any, count: Any, array: Any) -> int:
        kind, gpu, instance = self._handle(device)
        found = self.gpus[gpu]
        there = found.instances.get(instance)
        pids = sorted(found.processes if kind == "gpu" else there.processes if there is not None else ())
        room, count._obj.value = count._obj.value, len(pids)
        if not pids:
            return SUCCESS
        if room < len(pids):
            return INSUFFICIENT_SIZE
        for place, pid in enumerate(pids):
            array[place].pid = pid
        return SUCCESS

    def nvmlDeviceGetMigMode(self, device: Any, current: Any, pending: Any) -> int:
        gpu = self._gpu(device)
        if not gpu.product.has_mig:
            return NOT_SUPPORTED
        current._obj.value, pending._obj.value = int(gpu.mig), int(gpu.pending)
        return SUCCESS

    def nvmlDeviceSetMigMode(self, device: Any, mode: int, status: Any) -> int:
        """Ampere needs a reset for the other mode; what is newer changes at once. Neither does while in use."""
        gpu, wanted = self._gpu(device), bool(mode)
        if not gpu.product.has_mig:
            return NOT_SUPPORTED
        status._obj.value = SUCCESS
        if wanted == gpu.mig:
            gpu.pending = wanted
        elif gpu.processes or gpu.instances:
            status._obj.value = IN_USE
        else:
            gpu.pending = wanted
            if gpu.product.compute_capability.startswith(_AMPERE):
                status._obj.value = RESET_REQUIRED
            else:
                gpu.mig = wanted
        return SUCCESS

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any, count: Any) -> int:
        gpu = self._gpu(device)
        count._obj.value = gpu.product.compute_slices if gpu.product.has_mig else 0
        return SUCCESS

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: Any, mig: Any) -> int:
        gpu = self._handle(device)[1]
        there = [
            it.id for it in sorted(self.gpus[gpu].instances.values(), key=lambda it: it.id) if it.compute is not None
        ]
        return self._put(mig, ("mig", gpu, there[index.value])) if index.value < len(there) else NOT_FOUND

    def nvmlDeviceGetGpuInstanceId(self, mig: Any, number: Any) -> int:
        number._obj.value = self._handle(mig)[2]
        return SUCCESS

    def nvmlDeviceGetGpuInstanceProfileInfoV(self, device: Any, profile: int, info: Any) -> int:
        gpu = self._gpu(device)
        found = gpu.product.profiles.get(NVML_PROFILES.get(profile, ""))
        if found is None or found.profile_id is None:
            return NOT_SUPPORTED
        info._obj.id, info._obj.sliceCount, info._obj.instanceCount = found.profile_id, found.g, found.most
        info._obj.multiprocessorCount, info._obj.memorySizeMB = found.multiprocessors, found.memory_bytes // MIB
        info._obj.name = f"MIG {found.name}".encode()
        return SUCCESS

    def nvmlDeviceGetGpuInstancePossiblePlacements_v2(self, device: Any, profile: int, array: Any, count: Any) -> int:
        found = self._profile(self._gpu(device), profile)
        if found is None:
            return INVALID_ARGUMENT
        count._obj.value = len(found.starts)
        for place, start in enumerate(found.starts if array is not None else ()):
            array[place].start, array[place].size = start, found.memory_slices
        return SUCCESS

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, device: Any, profile: int, placement: Any, made: Any) -> int:
        index = self._handle(device)[1]
        gpu, found = self.gpus[index], self._profile(self._gpu(device), profile)
        if not gpu.mig:
            return NOT_SUPPORTED
        if found is None or placement._obj.size != found.memory_slices or placement._obj.start not in found.starts:
            return INVALID_ARGUMENT
        wanted = Placement(placement._obj.start, found.key)
        if illegality(gpu.product, [*(it.placement for it in gpu.instances.values()), wanted]):
            return INSUFFICIENT_RESOURCES
        number = next(it for it in range(1, 64) if it not in gpu.instances)
        gpu.instances[number] = SimulatedInstance(number, wanted, found)
        return self._put(made, ("instance", index, number))

    def nvmlDeviceGetGpuInstances(self, device: Any, profile: int, array: Any, count: Any) -> int:
        index = self._handle(device)[1]
        there = [it for it in self.gpus[index].instances.values() if it.profile.profile_id == profile]
        for place, it in enumerate(there):
            self._put(array[place], ("instance", index, it.id))
        count._obj.value = len(there)
        return SUCCESS

    def nvmlDeviceGetGpuInstanceById(self, device: Any, number: int, found: Any) -> int:
        index = self._handle(device)[1]
        return self._put(found, ("instance", index, number)) if number in self.gpus[index].instances else NOT_FOUND

    def nvmlGpuInstanceGetInfo(self, instance: Any, info: Any) -> int:
        found = self._instance(instance)
        if found is None:
            return NOT_FOUND
        info._obj.id, info._obj.profileId = found.id, found.profile.profile_id or 0
        info._obj.placement.start, info._obj.placement.size = found.placement.start, found.profile.memory_slices
        return SUCCESS

    def nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        self, instance: Any, profile: int, _engine: int, info: Any
    ) -> int:
        found = self._instance(instance)
        slices = next((g for g, number in NVML_COMPUTE_PROFILES.items() if number == profile), None)
        if found is None or slices is None or slices > found.profile.g:
            return NOT_SUPPORTED
        info._obj.id, info._obj.sliceCount, info._obj.instanceCount = profile, slices, 1
        return SUCCESS

    def nvmlGpuInstanceCreateComputeInstance(self, instance: Any, profile: int, made: Any) -> int:
        found = self._instance(instance)
        if found is None:
            return NOT_FOUND
        if found.compute is not None:
            return INSUFFICIENT_RESOURCES
        found.compute = profile
        _, gpu, number = self._handle(instance)
        return self._put(made, ("compute", gpu, number))

    def nvmlGpuInstanceGetComputeInstances(self, instance: Any, profile: int, array: Any, count: Any) -> int:
        found, (_, gpu, number) = self._instance(instance), self._handle(instance)
        there = found is not None and found.compute == profile
        count._obj.value = int(there)
        return self._put(array[0], ("compute", gpu, number)) if there else SUCCESS

    def nvmlComputeInstanceDestroy(self, compute: Any) -> int:
        found = self._instance(compute)
        if found is None or found.compute is None:
            return NOT_FOUND
        if found.processes:
            return IN_USE
        found.compute = None
        return SUCCESS

    def nvmlGpuInstanceDestroy(self, instance: Any) -> int:
        found = self._instance(instance)
        if found is None:
            return NOT_FOUND
        if found.compute is not None:
            return IN_USE
        del self._gpu(instance).instances[found.id]
        return SUCCESS

    @staticmethod
    def _profile(gpu: SimulatedGpu, number: int) -> MigProfile | None:
        return next((it for it in gpu.product.profiles.values() if it.profile_id == number), None)


@contextmanager
def installed(library: SimulatedNvml) -> Iterator[None]:
    """Have `pynvml` speak to this library in place of the driver's."""
    import pynvml  # noqa: PLC0415 - an extra

    before, cache = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache)
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        yield
    finally:
        pynvml.nvmlLib = before
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(cache)
