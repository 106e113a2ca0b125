"""BF16 between Triton and NumPy: the bits of a bfloat16 tensor as a `uint16` array, and back, through DLPack.

NumPy < 2 has no bfloat16 and Triton's `Tensor.as_numpy()` refuses it, but both speak DLPack and the element is two
bytes wide either way: relabelling the type code inside the capsule is all it takes, and nothing is copied. Used by
`triton_model` for the tensors that `session` passes to onnxruntime as bfloat16.

Source of the layout: dlpack.h, DLTensor as of the unversioned capsule "dltensor": data pointer (8 bytes), device (8),
ndim (4), then the type code (1), its bits (1) and lanes (2). kDLUInt = 1, kDLBfloat = 4.
"""

import ctypes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_TYPE_CODE_OFFSET: Final = 20
_UNSIGNED: Final = 1
_BFLOAT: Final = 4
_CPU_DEVICE: Final = (1, 0)

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.restype = ctypes.c_int
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]


class _Capsule:
    """What `numpy.from_dlpack` asks for, around a capsule that exists already."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: object) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU_DEVICE


def bits_from_bfloat16(capsule: Any) -> NDArray[np.uint16]:  # noqa: ANN401 - a PyCapsule has no static type
    """View the bfloat16 tensor in `capsule` (CPU) as its bits, same shape. The capsule is consumed."""
    _relabel(capsule, _UNSIGNED)
    bits: NDArray[np.uint16] = np.from_dlpack(_Capsule(capsule))
    return bits


def bfloat16_from_bits(bits: NDArray[np.uint16]) -> Any:  # noqa: ANN401 - a PyCapsule has no static type
    """Wrap `bits` (writable, C-contiguous) as a DLPack capsule of bfloat16 that keeps the array alive once consumed."""
    capsule = bits.__dlpack__()
    # Triton marks what it has consumed `used_dlpack`, a name at which NumPy's own destructor of the capsule fails.
    _set_destructor(capsule, None)
    _relabel(capsule, _BFLOAT)
    return capsule


def _relabel(capsule: object, code: int) -> None:
    tensor = _pointer_of(capsule, b"dltensor")
    ctypes.c_uint8.from_address(tensor + _TYPE_CODE_OFFSET).value = code
