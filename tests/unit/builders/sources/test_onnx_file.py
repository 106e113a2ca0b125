"""An ONNX file as a source: kept as it is, and its answers kept beside it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from builders.errors import SourceError
from builders.forms import ExportRequest, InputRange
from builders.reference import load_reference
from builders.sources.onnx_file import export_onnx_file

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
product (float[batch, 2] x, bool[batch, 1] negate) => (float[batch, 3] y) {
  plain = MatMul (x, weight)
  negative = Neg (plain)
  y = Where (negate, negative, plain)
}
"""


def write_model(path: Path, text: str = TEXT, *, beside: bool = False) -> Path:
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "weight"))
    onnx.save(model, path, save_as_external_data=beside, location="weights.bin", size_threshold=0)
    return path


def request(inputs: tuple[InputRange, ...] = (), batch: int = 4) -> ExportRequest:
    return ExportRequest(Path("package"), None, inputs, (1, 4), batch)


@pytest.mark.parametrize("beside", [False, True])
def test_it_is_made_one_file_and_answers(tmp_path: Path, *, beside: bool) -> None:
    source = write_model(tmp_path / "source.onnx", beside=beside)
    out = tmp_path / "out"
    out.mkdir()
    (form,) = export_onnx_file(source, request(), out)
    assert [entry.name for entry in form.inputs] == ["x", "negate"]
    assert form.inputs[0].max == (4, 2)
    assert {path.name for path in out.iterdir()} == {"model.onnx", "model.npz"}
    assert numpy_helper.to_array(onnx.load(out / form.onnx).graph.initializer[0]).tolist() == WEIGHT.tolist()
    found = load_reference(out / form.reference)
    assert {case.batch for case in found} >= {1, 4}
    for case in found:
        plain = case.inputs["x"] @ WEIGHT
        np.testing.assert_allclose(case.outputs["y"], np.where(case.inputs["negate"], -plain, plain), rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bool[batch, 1] negate", "bool[1, 1] negate", "negate: its first dimension does not vary"),
        ("float[batch, 2] x", "float[batch, width] x", "x: dimension 1 varies; give"),
        ("MatMul (x, weight)", "MatMul (weight, weight)", "ONNX Runtime cannot load the model|not a valid ONNX model"),
    ],
)
def test_a_graph_that_cannot_be_served(tmp_path: Path, old: str, new: str, message: str) -> None:
    source = write_model(tmp_path / "source.onnx", TEXT.replace(old, new))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SourceError, match=message) as refused:
        export_onnx_file(source, request(), out)
    assert "\n" not in str(refused.value)


def test_a_range_that_the_graph_does_not_bear(tmp_path: Path) -> None:
    text = TEXT.replace("float[batch, 2] x", "float[batch, width] x")
    source = write_model(tmp_path / "source.onnx", text)
    with pytest.raises(SourceError, match=r"the source model cannot take x \[\d, \d\]") as refused:
        export_onnx_file(source, request((InputRange("x", (1, 3), (2, 4), (4, 5)),)), tmp_path)
    assert "\n" not in str(refused.value)


def test_what_is_no_model(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\x08\xff" * 100)
    with pytest.raises(SourceError, match=r"garbage\.onnx: not an? (valid )?ONNX"):
        export_onnx_file(garbage, request(), tmp_path)
    with pytest.raises(SourceError, match="cannot be read"):
        export_onnx_file(tmp_path / "absent.onnx", request(), tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (TensorProto.STRING, "x: inputs of type STRING are not supported"),
        (TensorProto.BFLOAT16, "x: inputs of type BFLOAT16 are not supported"),
    ],
)
def test_inputs_that_no_reference_set_can_hold(tmp_path: Path, kind: int, message: str) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, ["batch"])],
        [helper.make_tensor_value_info("y", kind, ["batch"])],
    )
    path = tmp_path / "source.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(SourceError, match=message):
        export_onnx_file(path, request(), tmp_path)


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    one = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["x"], ["y"])],
        "length",
        [helper.make_value_info("x", helper.make_sequence_type_proto(one))],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    path = tmp_path / "source.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(SourceError, match="x: not a tensor"):
        export_onnx_file(path, request(), tmp_path)
