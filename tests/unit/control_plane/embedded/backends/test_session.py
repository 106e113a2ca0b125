from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from control_plane.embedded.backends.onnxruntime.ort_serving.errors import ModelSetupError, RunError
from control_plane.embedded.backends.onnxruntime.ort_serving.providers import CPU, Provider
from control_plane.embedded.backends.onnxruntime.ort_serving.session import OnnxSession, model_file
from control_plane.embedded.backends.onnxruntime.ort_serving.settings import session_settings

ON_CPU = (Provider(CPU, {}, required=True),)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )
    return path


def test_signature_and_answer(relu: Path) -> None:
    session = OnnxSession(relu, session_settings({}), ON_CPU)
    assert session.signature.inputs["x"].dims == (-1, 2)
    (answer,) = session.run(["y"], {"x": np.array([[-1, 2]], np.float32)})
    assert answer.tolist() == [[0, 2]]


@pytest.mark.parametrize("bad", [np.zeros((1, 3), np.float32), np.zeros((1, 2), np.int8)])
def test_input_that_does_not_fit_is_the_callers_fault(relu: Path, bad: NDArray[Any]) -> None:
    with pytest.raises(RunError) as caught:
        OnnxSession(relu, session_settings({}), ON_CPU).run(["y"], {"x": bad})
    assert caught.value.invalid_argument


def test_folder_stands_for_the_model_in_it(relu: Path) -> None:
    assert model_file(relu.parent, "") == relu
    assert model_file(relu.parent.parent, relu.parent.name) == relu
    with pytest.raises(ModelSetupError, match=r"unable to find '.*absent.onnx'"):
        model_file(relu.parent, "absent.onnx")


def test_missing_provider_fails_only_where_it_is_required(relu: Path) -> None:
    OnnxSession(relu, session_settings({}), (Provider("NoSuchProvider", {}, required=False), *ON_CPU))
    with pytest.raises(ModelSetupError, match="no NoSuchProvider here"):
        OnnxSession(relu, session_settings({}), (Provider("NoSuchProvider", {}, required=True), *ON_CPU))


def test_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelSetupError, match="onnxruntime cannot load"):
        OnnxSession(path, session_settings({}), ON_CPU)


def test_missing_library_of_operators_is_named(relu: Path) -> None:
    settings = session_settings({"model_operations": {"op_library_filename": ["/absent.so"]}})
    with pytest.raises(ModelSetupError, match=r"/absent\.so"):
        OnnxSession(relu, settings, ON_CPU)
