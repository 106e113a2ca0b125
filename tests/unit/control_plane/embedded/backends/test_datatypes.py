import tracemalloc

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from control_plane.embedded.backends.onnxruntime.ort_serving.datatypes import config_type, strings_for_onnxruntime
from control_plane.embedded.backends.onnxruntime.ort_serving.dlpack import bfloat16_from_bits, bits_from_bfloat16
from control_plane.embedded.backends.onnxruntime.ort_serving.errors import RunError


def echo_session() -> ort.InferenceSession:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "echo",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [None])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


ECHO = echo_session()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9), max_size=8))
def test_texts_reach_onnxruntime_unchanged(texts: list[str]) -> None:
    values = np.array([text.encode() for text in texts], dtype=np.object_)
    (answer,) = ECHO.run(["y"], {"x": strings_for_onnxruntime(values)})
    assert answer.tolist() == texts


def test_text_ends_at_a_nul_as_in_the_cpp_backend() -> None:
    (answer,) = ECHO.run(["y"], {"x": strings_for_onnxruntime(np.array([b"a\0b"], dtype=np.object_))})
    assert answer.tolist() == ["a"]


def test_one_long_text_among_many_does_not_multiply() -> None:
    values = np.array([b"x" * 1_000_000] + [b"y"] * 10_000, dtype=np.object_)
    tracemalloc.start()
    converted = strings_for_onnxruntime(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
    assert converted[0] == "x" * 1_000_000
    values[1] = b"\xff"
    with pytest.raises(RunError, match="not UTF-8"):
        strings_for_onnxruntime(values)


def test_shape_is_kept() -> None:
    values = np.array([[b"a", b"bc"], [b"", b"d"]], dtype=np.object_)
    assert strings_for_onnxruntime(values).shape == (2, 2)
    assert strings_for_onnxruntime(np.empty((0, 3), dtype=np.object_)).shape == (0, 3)


def test_bfloat16_bits_survive_both_ways() -> None:
    bits = np.arange(12, dtype=np.uint16).reshape(3, 4)
    again = bits_from_bfloat16(bfloat16_from_bits(bits))
    np.testing.assert_array_equal(again, bits)
    assert np.shares_memory(again, bits)


def test_types_triton_cannot_carry_are_invalid() -> None:
    assert config_type("tensor(bfloat16)") == "TYPE_BF16"
    assert config_type("seq(tensor(float))") == "TYPE_INVALID"
