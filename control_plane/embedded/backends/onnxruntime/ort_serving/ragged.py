"""Ragged batches: requests of different shapes in one call, without padding.

A ragged input is flattened and the requests' elements follow one another; `batch_input` tensors tell the graph where
each begins; `batch_output` gives each request its part back in the shape of its input. Pure; called by `batching`.

Source of what each kind holds: triton-inference-server/backend, src/backend_input_collector.cc (BatchInputShape,
SetElementCount, SetAccumulatedElementCount, SetBatchItemShape) and src/backend_output_responder.cc
(ProcessBatchOutput). Counts are per request and include the batch dimension; item shapes are per batch item.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, assert_never

import numpy as np

from .datatypes import Array
from .errors import RunError
from .model_config import BatchInputConfig, BatchInputKind, OutputConfig

Shape = Sequence[int]

_NUMPY_TYPE: Final[dict[str, np.dtype[Any]]] = {"TYPE_FP32": np.dtype(np.float32), "TYPE_INT32": np.dtype(np.int32)}


def flattened(arrays: Sequence[Array]) -> Array:
    """Join all elements of all `arrays`, in order, in one dimension. One array alone is not copied."""
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return np.concatenate([array.reshape(-1) for array in arrays])


def batch_input(entry: BatchInputConfig, shapes: Sequence[Shape]) -> Array:
    """Compute what `entry` derives from the `shapes` its source input has in each request, batch dimension first.

    Shapes, for R requests of N items in all, each item of D dimensions: element counts [R] (with zero: [R+1]); the
    maximum count as the length of a tensor of zeros (its content means nothing); item shapes [N, D], flat [N*D].
    """
    dtype = _NUMPY_TYPE[entry.data_type]
    kind = entry.kind
    match kind:
        case BatchInputKind.ELEMENT_COUNT:
            return np.array([math.prod(shape) for shape in shapes], dtype)
        case BatchInputKind.ACCUMULATED_ELEMENT_COUNT:
            return np.array(list(accumulate(math.prod(shape) for shape in shapes)), dtype)
        case BatchInputKind.ACCUMULATED_ELEMENT_COUNT_WITH_ZERO:
            return np.array(list(accumulate((math.prod(shape) for shape in shapes), initial=0)), dtype)
        case BatchInputKind.MAX_ELEMENT_COUNT_AS_SHAPE:
            return np.zeros(max(math.prod(shape) for shape in shapes), dtype)
        case BatchInputKind.ITEM_SHAPE:
            return _item_shapes(shapes, dtype)
        case BatchInputKind.ITEM_SHAPE_FLATTEN:
            return _item_shapes(shapes, dtype).reshape(-1)
        case _:
            assert_never(kind)


def _item_shapes(shapes: Sequence[Shape], dtype: np.dtype[Any]) -> Array:
    rows = [shape[1:] for shape in shapes for _ in range(shape[0])]
    return np.array(rows, dtype).reshape(len(rows), len(shapes[-1]) - 1)


def scattered(output: OutputConfig, values: Array, shapes: Sequence[Shape], *, batched: bool) -> list[Array]:
    """Cut `values` into one part per request; `shapes` are those of the input that `output` is scattered by.

    A part has the configured dims, the batch dimension before them where `batched`; a -1 among them is the size of the
    input's dimension at the same place.

    Raises:
        RunError: the model gave more or fewer elements than the parts need.

    """
    pattern = (-1, *output.dims) if batched else output.dims
    parts = [tuple(shape[at] if dim == -1 else dim for at, dim in enumerate(pattern)) for shape in shapes]
    ends = list(accumulate(math.prod(part) for part in parts))
    if ends[-1] != values.size:
        raise RunError(
            f"output '{output.name}' cannot be scattered by the shape of '{output.scatter_by}': "
            f"{ends[-1]} elements are needed, the model gave {values.size}",
            invalid_argument=False,
        )
    flat = values.reshape(-1)
    starts = [0, *ends[:-1]]
    return [flat[start:end].reshape(part) for start, end, part in zip(starts, ends, parts, strict=True)]
