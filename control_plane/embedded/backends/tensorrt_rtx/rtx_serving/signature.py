"""What an engine says of itself: its tensors and its optimization profiles, as plain values.

`execution` reads it from an opened engine; `validation` holds the configuration against it and `profiles` chooses by
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

CONFIG_TYPE_BY_ENGINE: Final[Mapping[str, str]] = {
    "BOOL": "TYPE_BOOL",
    "UINT8": "TYPE_UINT8",
    "INT8": "TYPE_INT8",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "HALF": "TYPE_FP16",
    "FLOAT": "TYPE_FP32",
}
"""TensorRT's DataType by name, those that Triton and NumPy can carry: not BF16, FP8, INT4, FP4, E8M0."""

DTYPE: Final[Mapping[str, type[np.generic]]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_INT8": np.int8,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output. `dims` holds every dimension, the batch one too; -1 is a variable one.

    `data_type` is Triton's configuration name, or `TYPE_INVALID`; `engine_type` is TensorRT's.
    """

    name: str
    data_type: str
    engine_type: str
    dims: Shape


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Least, usual and largest shape of one input in one optimization profile."""

    min: Shape
    opt: Shape
    max: Shape

    def holds(self, shape: Shape) -> bool:
        """Tell whether `shape` lies in the range."""
        return len(shape) == len(self.min) and all(
            low <= dim <= high for low, dim, high in zip(self.min, shape, self.max, strict=True)
        )


Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True, slots=True)
class EngineSignature:
    """Inputs and outputs by name in the engine's order; its optimization profiles by index: a range for each input."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    profiles: tuple[Profile, ...]
