"""Small ONNX graphs for the tests of candidates: an attention-like block in FP32, and the cases it answers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from builders.parity import onnx_runner
from builders.reference import Case

WIDTH = 32


def block(path: Path, *, outlier: float = 1.0) -> Path:
    """Write x [batch, WIDTH] -> y: three products of one input, a softmax, a GELU as exporters write it, a product.

    `outlier` scales one channel of the input of the products.
    """
    rng = np.random.default_rng(7)
    arrays = {f"w{n}": rng.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32) for n in range(4)}
    arrays |= {f"b{n}": rng.normal(0, 0.1, WIDTH).astype(np.float32) for n in range(4)}
    arrays["scale"] = np.ones(WIDTH, np.float32)
    arrays["scale"][3] = outlier
    arrays |= {"gamma": np.ones(WIDTH, np.float32), "beta": np.zeros(WIDTH, np.float32)}
    nodes = [helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["normal"], "normalise")]
    nodes.append(helper.make_node("Mul", ["normal", "scale"], ["h"], "scale"))
    for n in range(3):
        nodes.append(helper.make_node("MatMul", ["h", f"w{n}"], [f"p{n}"], f"product{n}"))
        nodes.append(helper.make_node("Add", [f"p{n}", f"b{n}"], [f"s{n}"], f"bias{n}"))
    nodes += [
        helper.make_node("Max", ["s0", "huge"], ["masked"], "mask"),
        helper.make_node("Softmax", ["masked"], ["weights"], "softmax", axis=-1),
        helper.make_node("Mul", ["weights", "s1"], ["attended"], "attend"),
        helper.make_node("Add", ["attended", "s2"], ["sum"], "sum"),
        helper.make_node("MatMul", ["sum", "w3"], ["p3"], "product3"),
        helper.make_node("Add", ["p3", "b3"], ["s3"], "bias3"),
        helper.make_node("Div", ["s3", "sqrt2"], ["d"], "divide"),
        helper.make_node("Erf", ["d"], ["e"], "erf"),
        helper.make_node("Add", ["e", "one"], ["e1"], "plus"),
        helper.make_node("Mul", ["s3", "e1"], ["m"], "gate"),
        helper.make_node("Mul", ["m", "half"], ["y"], "halve"),
    ]
    return save(path, nodes, {**arrays, "sqrt2": 2**0.5, "one": 1.0, "half": 0.5, "huge": -3e38})


def save(path: Path, nodes: list[onnx.NodeProto], arrays: Mapping[str, npt.ArrayLike]) -> Path:
    """Write a graph x -> y of these nodes, with `arrays` as FP32 constants."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "block", value[:1], value[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def cases(path: Path, count: int = 6) -> list[Case]:
    """Return what the graph in `path` answers to random inputs, as golden and measure cases in turn."""
    rng = np.random.default_rng(3)
    run = onnx_runner(path, threads=1)
    made = []
    for number in range(count):
        inputs = {"x": rng.normal(0, 1, (4, WIDTH)).astype(np.float32)}
        made.append(Case(f"case {number}", "measure" if number % 2 else "golden", 4, inputs, run(inputs)))
    return made
