import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.embedded.backends.onnxruntime.ort_serving.errors import RunError
from control_plane.embedded.backends.onnxruntime.ort_serving.model_config import (
    BatchInputConfig,
    BatchInputKind,
    OutputConfig,
)
from control_plane.embedded.backends.onnxruntime.ort_serving.ragged import batch_input, scattered

SHAPES = [(1, 3), (2, 4), (1, 1)]


def derived(kind: BatchInputKind, data_type: str = "TYPE_INT32") -> Any:
    return batch_input(BatchInputConfig(kind, ("t",), data_type, "x"), SHAPES)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (BatchInputKind.ELEMENT_COUNT, [3, 8, 1]),
        (BatchInputKind.ACCUMULATED_ELEMENT_COUNT, [3, 11, 12]),
        (BatchInputKind.ACCUMULATED_ELEMENT_COUNT_WITH_ZERO, [0, 3, 11, 12]),
        (BatchInputKind.ITEM_SHAPE, [[3], [4], [4], [1]]),
        (BatchInputKind.ITEM_SHAPE_FLATTEN, [3, 4, 4, 1]),
    ],
)
@pytest.mark.parametrize(("data_type", "numpy_type"), [("TYPE_INT32", np.int32), ("TYPE_FP32", np.float32)])
def test_every_kind(kind: BatchInputKind, expected: list[Any], data_type: str, numpy_type: type) -> None:
    values = derived(kind, data_type)
    assert values.tolist() == expected
    assert values.dtype == numpy_type


def test_maximum_count_is_a_shape() -> None:
    assert derived(BatchInputKind.MAX_ELEMENT_COUNT_AS_SHAPE).shape == (8,)


def test_item_shapes_of_several_dimensions() -> None:
    entry = BatchInputConfig(BatchInputKind.ITEM_SHAPE, ("t",), "TYPE_INT32", "x")
    assert batch_input(entry, [(2, 5, 7), (1, 1, 2)]).tolist() == [[5, 7], [5, 7], [1, 2]]


@given(st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=6))
def test_kinds_agree_with_each_other(shapes: list[list[int]]) -> None:
    def values(kind: BatchInputKind) -> Any:
        return batch_input(BatchInputConfig(kind, ("t",), "TYPE_INT32", "x"), shapes)

    counts = values(BatchInputKind.ELEMENT_COUNT)
    assert np.cumsum(counts).tolist() == values(BatchInputKind.ACCUMULATED_ELEMENT_COUNT).tolist()
    assert [0, *np.cumsum(counts)] == values(BatchInputKind.ACCUMULATED_ELEMENT_COUNT_WITH_ZERO).tolist()
    assert values(BatchInputKind.MAX_ELEMENT_COUNT_AS_SHAPE).shape == (max(counts),)
    items = values(BatchInputKind.ITEM_SHAPE)
    assert items.shape == (sum(shape[0] for shape in shapes), 2)
    assert items.reshape(-1).tolist() == values(BatchInputKind.ITEM_SHAPE_FLATTEN).tolist()
    assert sum(math.prod(row) for row in items.tolist()) == counts.sum()


def test_scattered_parts_take_dims_from_configuration_and_input() -> None:
    output = OutputConfig("y", "TYPE_FP32", (-1, 2), "x")
    parts = scattered(output, np.arange(22), [(1, 3, 9), (2, 4, 9)], batched=True)
    assert [part.shape for part in parts] == [(1, 3, 2), (2, 4, 2)]
    assert parts[1].reshape(-1).tolist() == list(range(6, 22))


def test_scattered_output_of_another_size_is_refused() -> None:
    output = OutputConfig("y", "TYPE_FP32", (-1,), "x")
    with pytest.raises(RunError, match="5 elements are needed, the model gave 4"):
        scattered(output, np.arange(4), [(1, 3), (1, 2)], batched=True)
