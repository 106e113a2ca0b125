"""The GPUs of this host through NVIDIA's management library (`nvidia-ml-py`): the real `MigHost`.

A GPU instance is created at its placement, never where the driver would put it. Its MIG device is found by walking the
MIG handles: nothing else leads from an instance to a UUID. What was half created is taken away again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_uint
from typing import Any

from control_plane.errors import MissingExtraError
from control_plane.mig.geometry import Placement
from control_plane.mig.host import (
    DriverError,
    GpuError,
    GpuInstance,
    HostGpu,
    InstanceInUseError,
    NoDriverError,
    NoInstanceError,
    PlacementTakenError,
)
from control_plane.mig.products import FULL, MIB, NVML_COMPUTE_PROFILES, NVML_PROFILES, MigProfile, Product

Handle = Any
"""A handle of the library's, which has no types."""


class NvmlHost:
    """Every call opens the library and closes it again: the driver may be replaced while nobody looks."""

    def __init__(self) -> None:
        try:
            import pynvml  # noqa: PLC0415 - an extra
        except ImportError as exc:
            raise MissingExtraError("GPUs cannot be read: pip install 'tritonfleet[gpu]', or nvidia-ml-py.") from exc
        self._nvml: Any = pynvml

    def gpus(self) -> tuple[HostGpu, ...]:
        """Read every GPU; see the port."""
        with self._open("read the GPUs"):
            return tuple(
                self._gpu(self._nvml.nvmlDeviceGetHandleByIndex(it)) for it in range(self._nvml.nvmlDeviceGetCount())
            )

    def create(self, gpu: str, placement: Placement) -> GpuInstance:
        """Create a GPU instance and its compute instance; see the port."""
        with self._open(f"create {placement.profile} at {placement.start} on {gpu}"):
            device = self._device(gpu)
            profile = self._product(device, "").profiles.get(placement.profile)
            if profile is None or profile.profile_id is None:
                raise PlacementTakenError(f"GPU {gpu} has no profile {placement.profile}.")
            if placement.start not in profile.starts:
                start = f"{placement.profile} cannot begin at memory slice {placement.start}"
                raise PlacementTakenError(f"On GPU {gpu}, {start}.")
            wanted = self._nvml.c_nvmlGpuInstancePlacement_t(placement.start, profile.memory_slices)
            made = self._nvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile.profile_id, byref(wanted))
            try:
                info = self._nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                    made, NVML_COMPUTE_PROFILES[profile.g], 0
                )
                self._nvml.nvmlGpuInstanceCreateComputeInstance(made, info.id)
            except self._nvml.NVMLError:
                self._nvml.nvmlGpuInstanceDestroy(made)
                raise
            return self._instance(device, made, profile)

    def destroy(self, gpu: str, instance: int) -> None:
        """Destroy the compute instances, then the GPU instance; see the port."""
        with self._open(f"destroy instance {instance} of {gpu}"):
            device = self._device(gpu)
            found = self._nvml.nvmlDeviceGetGpuInstanceById(device, instance)
            for compute in self._compute_instances(found):
                self._nvml.nvmlComputeInstanceDestroy(compute)
            self._nvml.nvmlGpuInstanceDestroy(found)

    def set_mig(self, gpu: str, *, enabled: bool) -> bool:
        """Set the MIG mode; see the port."""
        with self._open(f"set the MIG mode of {gpu}"):
            device = self._device(gpu)
            status = self._nvml.nvmlDeviceSetMigMode(device, int(enabled))
            if status == self._nvml.NVML_ERROR_IN_USE:
                raise InstanceInUseError(f"GPU {gpu} is in use: its MIG mode changes once no process uses it.")
            current, _ = self._nvml.nvmlDeviceGetMigMode(device)
            return bool(current) is enabled

    @contextmanager
    def _open(self, call: str) -> Iterator[None]:
        """Have the library open, and its errors translated."""
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as exc:
            raise NoDriverError(f"There is no NVIDIA driver to ask: {exc}.") from exc
        try:
            yield
        except self._nvml.NVMLError as exc:
            raise self._translated(exc, call) from exc
        finally:
            self._nvml.nvmlShutdown()

    def _translated(self, exc: Any, call: str) -> GpuError:  # noqa: ANN401 - the library's error
        kinds: dict[int, type[GpuError]] = {
            self._nvml.NVML_ERROR_INSUFFICIENT_RESOURCES: PlacementTakenError,
            self._nvml.NVML_ERROR_IN_USE: InstanceInUseError,
            self._nvml.NVML_ERROR_NOT_FOUND: NoInstanceError,
            self._nvml.NVML_ERROR_INVALID_ARGUMENT: NoInstanceError,
        }
        return kinds.get(exc.value, DriverError)(f"The driver could not {call}: {exc}.")

    def _device(self, uuid: str) -> Handle:
        for index in range(self._nvml.nvmlDeviceGetCount()):
            device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            if self._nvml.nvmlDeviceGetUUID(device) == uuid:
                return device
        raise NoInstanceError(f"There is no GPU {uuid} on this host.")

    def _gpu(self, device: Handle) -> HostGpu:
        name = self._nvml.nvmlDeviceGetName(device)
        product = self._product(device, name)
        current, pending = self._mode(device)
        instances = [
            self._instance(device, handle, profile)
            for profile in product.profiles.values()
            if current and profile.profile_id is not None
            for handle in self._listed(self._nvml.nvmlDeviceGetGpuInstances, device, profile.profile_id, profile.most)
        ]
        instances.sort(key=lambda it: it.placement)
        uuid = self._nvml.nvmlDeviceGetUUID(device)
        return HostGpu(uuid, name, product, current, pending, tuple(instances), self._processes(device))

    def _mode(self, device: Handle) -> tuple[bool, bool]:
        try:
            current, pending = self._nvml.nvmlDeviceGetMigMode(device)
        except self._nvml.NVMLError_NotSupported:
            return False, False
        return bool(current), bool(pending)

    def _product(self, device: Handle, name: str) -> Product:
        """Return what the driver says of the GPU: a whole card where it cannot be cut."""
        capability = ".".join(map(str, self._nvml.nvmlDeviceGetCudaComputeCapability(device)))
        profiles: dict[str, MigProfile] = {}
        for number, key in NVML_PROFILES.items():
            try:
                info = self._nvml.nvmlDeviceGetGpuInstanceProfileInfo(device, number)
            except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_InvalidArgument):
                continue
            places = self._placements(device, info.id)
            if places:
                profiles[key] = MigProfile(
                    key,
                    info.name.removeprefix("MIG "),
                    info.sliceCount,
                    places[0].size,
                    info.instanceCount,
                    tuple(sorted(place.start for place in places)),
                    info.memorySizeMB * MIB,
                    info.multiprocessorCount,
                    info.id,
                )
        if not profiles:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(device).total
            return Product(name, capability, 1, 1, {FULL: MigProfile(FULL, FULL, 1, 1, 1, (0,), memory, 0)})
        memory_slices = max(it.memory_slices for it in profiles.values())
        return Product(name, capability, memory_slices, max(it.g for it in profiles.values()), profiles)

    def _placements(self, device: Handle, profile: int) -> list[Any]:
        count = c_uint(0)
        self._nvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, None, byref(count))
        places = (self._nvml.c_nvmlGpuInstancePlacement_t * count.value)()
        self._nvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, places, byref(count))
        return list(places[: count.value])

    def _listed(self, call: Any, owner: Handle, profile: int, most: int) -> list[Handle]:  # noqa: ANN401
        """Return the handles that a call puts into an array."""
        kind = self._nvml.c_nvmlGpuInstance_t
        if call == self._nvml.nvmlGpuInstanceGetComputeInstances:
            kind = self._nvml.c_nvmlComputeInstance_t
        found, count = (kind * most)(), c_uint(most)
        call(owner, profile, found, byref(count))
        return [kind.from_buffer_copy(found[index]) for index in range(count.value)]

    def _compute_instances(self, instance: Handle) -> Iterator[Handle]:
        for number in NVML_COMPUTE_PROFILES.values():
            try:
                info = self._nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, number, 0)
            except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_InvalidArgument):
                continue
            call = self._nvml.nvmlGpuInstanceGetComputeInstances
            yield from self._listed(call, instance, info.id, max(1, info.instanceCount))

    def _instance(self, device: Handle, handle: Handle, profile: MigProfile) -> GpuInstance:
        info = self._nvml.nvmlGpuInstanceGetInfo(handle)
        placement = Placement(info.placement.start, profile.key)
        mig = self._mig_device(device, info.id)
        if mig is None:
            return GpuInstance(info.id, placement, info.placement.size)
        uuid, processes = self._nvml.nvmlDeviceGetUUID(mig), self._processes(mig)
        return GpuInstance(info.id, placement, info.placement.size, uuid, processes)

    def _mig_device(self, device: Handle, instance: int) -> Handle | None:
        """Walk the MIG handles to the one of a GPU instance."""
        for index in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
            try:
                mig = self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index)
            except self._nvml.NVMLError_NotFound:
                continue
            if self._nvml.nvmlDeviceGetGpuInstanceId(mig) == instance:
                return mig
        return None

    def _processes(self, device: Handle) -> tuple[int, ...]:
        return tuple(sorted(it.pid for it in self._nvml.nvmlDeviceGetComputeRunningProcesses(device)))
