"""A tiny model of operators that encoders have, for tests of engines."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from builders.forms import InputRange

WIDTH = 16
RANGE = InputRange("x", (1, WIDTH), (4, WIDTH), (32, WIDTH))


def tiny_model(element_type: int, operator: str = "Gelu") -> onnx.ModelProto:
    """Build x [batch, WIDTH] -> MatMul -> `operator` -> LayerNormalization -> y, all of one element type."""
    dtype = helper.tensor_dtype_to_np_dtype(element_type)
    weights = {
        "w": np.linspace(-1, 1, WIDTH * WIDTH).reshape(WIDTH, WIDTH),
        "scale": np.ones(WIDTH),
        "bias": np.zeros(WIDTH),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node(operator, ["product"], ["active"], name="activation"),
            helper.make_node("LayerNormalization", ["active", "scale", "bias"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", element_type, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", element_type, ["batch", WIDTH])],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
