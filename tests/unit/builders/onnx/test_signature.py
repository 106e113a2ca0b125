"""What an ONNX file takes and gives, read without its weights, and the sentences for what Triton cannot carry."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from builders.errors import SourceError
from builders.onnx.signature import Signature, TensorSignature, load_signature, save_signature, signature


def saved(path: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto], *names: str) -> Path:
    """Write a model with these tensors; `names` are initializers, whose data lies in a file that is not there."""
    initializers = []
    for name in names:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="nowhere.bin")
        initializers.append(tensor)
    graph = helper.make_graph([], "g", inputs, outputs, initializers)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_names_types_and_shapes_without_the_weights(tmp_path: Path) -> None:
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", None, 3]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("text", TensorProto.STRING, [0, 1]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, [])]
    path = saved(tmp_path / "m.onnx", inputs, outputs, "scale")
    read = signature(path)
    assert read == Signature(
        (TensorSignature("ids", "TYPE_INT64", (-1, -1, 3)), TensorSignature("text", "TYPE_STRING", (-1, 1))),
        (TensorSignature("y", "TYPE_BF16", ()),),
    )
    kept = tmp_path / "m.json"
    save_signature(kept, read)
    first = kept.read_bytes()
    assert load_signature(kept) == read
    save_signature(kept, load_signature(kept))
    assert kept.read_bytes() == first


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (helper.make_tensor_value_info("y", TensorProto.COMPLEX64, [1]), "'y' has elements of type COMPLEX64"),
        (helper.make_tensor_value_info("y", TensorProto.FLOAT8E4M3FN, [1]), "'y' has elements of type FLOAT8E4M3FN"),
        (helper.make_tensor_value_info("y", 99, [1]), "'y' has elements of type 99"),
        (helper.make_tensor_value_info("y", TensorProto.FLOAT, None), "'y' has no shape"),
        (helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1]), "'y' is a sequence"),
        (onnx.ValueInfoProto(name="y"), "'y' is a value without a type"),
    ],
)
def test_what_triton_cannot_carry_is_told(tmp_path: Path, output: onnx.ValueInfoProto, said: str) -> None:
    path = saved(tmp_path / "m.onnx", [], [output])
    with pytest.raises(SourceError, match=f"m.onnx: {said}"):
        signature(path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x08\x08"])
def test_a_file_of_garbage_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"m\.onnx: not an ONNX model: .*export it again"):
        signature(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        signature(tmp_path / "m.onnx")


@pytest.mark.parametrize("text", ["", "{}", '{"inputs": [{}], "outputs": []}', '{"inputs": 3, "outputs": []}'])
def test_a_kept_signature_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(SourceError, match="not the signature of an export"):
        load_signature(path)
