"""The CUDA driver, as far as a compile needs it: which GPUs are here, and which of them the compiler shall use.

`libcuda.so.1` comes with the driver: where it cannot be loaded there is no GPU. Used by `toolkit` for TensorRT alone,
for TensorRT-RTX compiles without a GPU, and by whatever runs engines to prove them. Never run on hardware yet.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, Final

LIBRARY: Final = "libcuda.so.1"

_MAJOR: Final = 75
_MINOR: Final = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h, CUdevice_attribute)."""
_NAME_BYTES: Final = 256


class NoGpuError(Exception):
    """There is no GPU that can be used, or not the one asked for. `str()` says which there are."""


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One GPU (or MIG slice) as CUDA numbers it. `compute_capability` as "8.9"."""

    ordinal: int
    name: str
    compute_capability: str


def find_device(compute_capability: str, library: str = LIBRARY) -> CudaDevice:
    """Return the first GPU of `compute_capability`, the one that `use_device` takes. Raises NoGpuError."""
    return _find(_driver(library), compute_capability)


def use_device(compute_capability: str, library: str = LIBRARY) -> CudaDevice:
    """Make the first GPU of `compute_capability` this thread's current one. Raises NoGpuError."""
    driver = _driver(library)
    chosen = _find(driver, compute_capability)
    # The primary context is the one that the CUDA runtime inside the compiler uses when it is current.
    context = ctypes.c_void_p()
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), chosen.ordinal), "cuDevicePrimaryCtxRetain")
    _check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    return chosen


def _find(driver: Any, compute_capability: str) -> CudaDevice:  # noqa: ANN401 - a foreign library
    devices = [_device(driver, ordinal) for ordinal in range(_count(driver))]
    chosen = next((device for device in devices if device.compute_capability == compute_capability), None)
    if chosen is None:
        here = ", ".join(f"{device.name} ({device.compute_capability})" for device in devices) or "none"
        raise NoGpuError(f"there is no GPU of compute capability {compute_capability} here, only: {here}")
    return chosen


def _driver(library: str) -> Any:  # noqa: ANN401 - a foreign library
    try:
        driver = ctypes.CDLL(library)
    except OSError as exc:
        raise NoGpuError(f"there is no NVIDIA driver here ({exc})") from exc
    _check(driver.cuInit(0), "cuInit")
    return driver


def _count(driver: Any) -> int:  # noqa: ANN401 - a foreign library
    count = ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    return count.value


def _device(driver: Any, ordinal: int) -> CudaDevice:  # noqa: ANN401 - a foreign library
    handle, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    _check(driver.cuDeviceGet(ctypes.byref(handle), ordinal), "cuDeviceGet")
    _check(driver.cuDeviceGetName(name, _NAME_BYTES, handle), "cuDeviceGetName")
    major, minor = (_attribute(driver, attribute, handle) for attribute in (_MAJOR, _MINOR))
    return CudaDevice(ordinal, name.value.decode(errors="replace"), f"{major}.{minor}")


def _attribute(driver: Any, attribute: int, handle: ctypes.c_int) -> int:  # noqa: ANN401 - a foreign library
    value = ctypes.c_int()
    _check(driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle), "cuDeviceGetAttribute")
    return value.value


def _check(code: int, call: str) -> None:
    if code:
        raise NoGpuError(f"{call} gave CUDA error {code}")
