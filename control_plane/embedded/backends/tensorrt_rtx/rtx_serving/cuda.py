"""Device memory, copies and a stream through the CUDA driver's own library, by ctypes.

`libcuda.so.1` is there wherever a GPU is, and a dozen of its calls are all that running an engine needs: no CUDA
package has to be installed beside the driver (TensorRT-RTX carries its runtime inside). Used by `execution`. Never run
on a GPU: the calls are tested against a stand-in library with the same symbols.
"""

import ctypes
from typing import Any, Final

from .errors import ModelSetupError, RunError
from .signature import Array

LIBRARY: Final = "libcuda.so.1"

_MAJOR: Final = 75
_MINOR: Final = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR (cuda.h, CUdevice_attribute)."""
_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the default stream."""

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_ADDRESS = ctypes.c_uint64
"""CUdeviceptr."""
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # The names with _v2 are what cuda.h's macros turn the plain ones into.
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (ctypes.POINTER(_INT),),
    "cuDeviceGet": (ctypes.POINTER(_INT), _INT),
    "cuDeviceGetAttribute": (ctypes.POINTER(_INT), _INT, _INT),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_POINTER), _INT),
    "cuCtxSetCurrent": (_POINTER,),
    "cuStreamCreate": (ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cuStreamSynchronize": (_POINTER,),
    "cuMemAlloc_v2": (ctypes.POINTER(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, _ADDRESS, _SIZE, _POINTER),
    "cuGetErrorString": (_INT, ctypes.POINTER(ctypes.c_char_p)),
}


class CudaError(Exception):
    """A call of the driver failed. `str()` names the call and the driver's reason."""


class Cuda:
    """One GPU: its primary context, which the engine's runtime shares, and one stream."""

    def __init__(self, ordinal: int, library: str = LIBRARY) -> None:
        """Take GPU number `ordinal`, as CUDA counts.

        Raises:
            ModelSetupError: no driver, or no such GPU.

        """
        self._driver = _load(library)
        try:
            self._call("cuInit", 0)
            count = self._integer("cuDeviceGetCount")
            if ordinal >= count:
                raise ModelSetupError(f"there is no GPU {ordinal} on this machine: CUDA sees {count}")
            device = self._integer("cuDeviceGet", ordinal)
            major, minor = (self._integer("cuDeviceGetAttribute", which, device) for which in (_MAJOR, _MINOR))
            self._context = self._pointer("cuDevicePrimaryCtxRetain", device)
            self.make_current()
            self.stream: int = self._pointer("cuStreamCreate", _NON_BLOCKING)
        except CudaError as exc:
            raise ModelSetupError(f"GPU {ordinal} cannot be used: {exc}") from exc
        self.compute_capability = f"{major}.{minor}"

    def make_current(self) -> None:
        """Make this GPU the calling thread's. Every run begins with it: Triton may call from another thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU. Raises CudaError where they are not there."""
        address = _ADDRESS()
        self._call("cuMemAlloc_v2", ctypes.byref(address), size)
        return int(address.value)

    def free(self, address: int) -> None:
        """Give back what `allocate` returned."""
        self._call("cuMemFree_v2", address)

    def upload(self, address: int, array: Array) -> None:
        """Copy a C-contiguous array to the GPU, in the stream's order."""
        self._call("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self.stream)

    def download(self, array: Array, address: int) -> None:
        """Copy from the GPU into a C-contiguous array, in the stream's order; it is there after `synchronize`."""
        self._call("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self.stream)

    def synchronize(self) -> None:
        """Wait until the stream has done all that it was given."""
        self._call("cuStreamSynchronize", self.stream)

    def _integer(self, name: str, *arguments: int) -> int:
        value = _INT()
        self._call(name, ctypes.byref(value), *arguments)
        return value.value

    def _pointer(self, name: str, *arguments: int) -> int:
        value = _POINTER()
        self._call(name, ctypes.byref(value), *arguments)
        return value.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            raise CudaError(f"{name}: {(text.value or b'unknown error').decode(errors='replace')} ({code})")


def _load(library: str) -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(library)
    except OSError as exc:
        raise ModelSetupError(f"an engine of TensorRT-RTX needs an NVIDIA GPU, and no driver is here ({exc})") from exc
    for name, arguments in _SIGNATURES.items():
        function = getattr(driver, name)
        function.argtypes, function.restype = list(arguments), _INT
    return driver


def run_error(error: CudaError) -> RunError:
    """Return the error of a request that failed by `error`."""
    return RunError(f"CUDA error in {error}", invalid_argument=False)
