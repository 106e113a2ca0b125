"""Element types: Triton's configuration names, ONNX Runtime's names and the NumPy types that carry them.

BF16 has no NumPy type: here it travels as its bits in `uint16` (see `dlpack`). Strings are BYTES: object arrays of
`bytes` in requests, of `str` in what onnxruntime returns.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import RunError

Array = NDArray[Any]

STRING: Final = "TYPE_STRING"
BF16: Final = "TYPE_BF16"

CONFIG_TYPE_BY_ONNX: Final[dict[str, str]] = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": BF16,
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": STRING,
}

MAX_FIXED_WIDTH_BYTES: Final = 16 << 20
"""Above this a padded copy of the strings is not made: one long string would multiply by the number of elements."""


def config_type(onnx_type: str) -> str:
    """Return Triton's configuration name of ONNX Runtime's `onnx_type`; `TYPE_INVALID` for what Triton cannot carry."""
    return CONFIG_TYPE_BY_ONNX.get(onnx_type, "TYPE_INVALID")


def strings_for_onnxruntime(values: Array) -> Array:
    """Turn Triton's BYTES array (objects of `bytes`) into an array that onnxruntime reads as strings, same shape.

    onnxruntime would take `str(b"x")` of an object array of bytes. Fixed-width bytes pass raw, cut at the first NUL:
    the C++ backend hands C strings over, with the same effect. Large tensors are decoded instead, so there, and only
    there, text has to be UTF-8.

    Raises:
        RunError: a large tensor holds bytes that are not UTF-8.

    """
    flat: list[bytes] = values.reshape(-1).tolist()
    # One byte more than the longest: onnxruntime reads up to a NUL, past the end of an element that fills its width.
    width = max(map(len, flat), default=0) + 1
    if width * len(flat) <= MAX_FIXED_WIDTH_BYTES:
        return np.array(flat, dtype=f"S{width}").reshape(values.shape)
    decoded = np.empty(len(flat), dtype=np.object_)
    try:
        decoded[:] = [text.split(b"\0", 1)[0].decode() for text in flat]
    except UnicodeDecodeError as exc:
        raise RunError(f"a string element is not UTF-8: {exc}", invalid_argument=True) from exc
    return decoded.reshape(values.shape)
