"""Departure: the first layer, in the graph's order, that is off; nothing where nothing is."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from builders.onnx.departure import first_departure
from tests.unit.builders.onnx.tiny_graphs import block, cases


def test_the_first_layer_that_departs_is_named(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx")
    some = cases(source, 2)
    assert first_departure(source, source, some) is None
    model = onnx.load(source)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((32, 32), np.float32), "w2"))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    told = first_departure(source, broken, some)
    assert (
        told
        == "MatMul 'product2', whose output 'p2' is off by 100.00% of its largest element (limit 1.00%), on case case 0"
    )


def test_a_candidate_that_does_not_run_here_has_no_known_departure(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx")
    model = onnx.load(source)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "broken.onnx")
    assert first_departure(source, tmp_path / "broken.onnx", cases(source, 1)) is None


def test_a_small_departure_is_told_where_no_layer_is_far_off(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx")
    model = onnx.load(source)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.002), "w2"))
    near = tmp_path / "near.onnx"
    onnx.save(model, near)
    told = first_departure(source, near, cases(source, 2))
    assert told is not None
    assert told.startswith("MatMul 'product2'")
    assert told.endswith("(limit 0.10%), on case case 0")
