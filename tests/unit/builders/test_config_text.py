"""Generated configs: what the signature says, what layers change, and that the same input gives the same bytes."""

from typing import Any

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from builders.config_text import generate_config
from builders.errors import ConfigError
from builders.model_config import BatchTensor, TensorConfig
from builders.onnx.signature import Signature, TensorSignature
from builders.pbtxt import parse_config
from builders.validate import config_problems

RAGGED = Signature(
    (
        TensorSignature("ids", "TYPE_INT64", (-1,)),
        TensorSignature("count", "TYPE_INT32", (-1, 1)),
        TensorSignature("ids_shape", "TYPE_INT32", (-1, 1)),
    ),
    (TensorSignature("embedding", "TYPE_FP32", (-1, 384)),),
)
FORM = {
    "input": [{"name": "ids", "dims": [-1], "allow_ragged_batch": True}],
    "batch_input": [
        {
            "kind": "BATCH_ITEM_SHAPE",
            "target_name": ["ids_shape"],
            "data_type": "TYPE_INT32",
            "source_input": ["ids"],
        }
    ],
    "dynamic_batching": {},
}
TEXT = """\
# Made by tritonfleet build from model.toml; edit that instead.
name: "encoder"
max_batch_size: 32
input {
  name: "ids"
  data_type: TYPE_INT64
  dims: [-1]
  allow_ragged_batch: true
}
input {
  name: "count"
  data_type: TYPE_INT32
  dims: [1]
}
output {
  name: "embedding"
  data_type: TYPE_FP32
  dims: [384]
}
instance_group {
  count: 2
  kind: KIND_CPU
}
default_model_filename: "onnxruntime-cpu-fp32.onnx"
dynamic_batching {
}
parameters {
  key: "a"
  value {
    string_value: "1"
  }
}
parameters {
  key: "b"
  value {
    string_value: "3"
  }
}
backend: "onnxruntime"
batch_input {
  kind: BATCH_ITEM_SHAPE
  target_name: "ids_shape"
  data_type: TYPE_INT32
  source_input: "ids"
}
"""


def generated(tensors: Signature, *layers: dict[str, Any], max_batch_size: int = 4) -> str:
    return generate_config("m", "onnxruntime", "f.onnx", tensors, max_batch_size=max_batch_size, layers=layers)


def of_input(*dims: int, name: str = "x") -> Signature:
    return Signature((TensorSignature(name, "TYPE_FP32", dims),), ())


def test_a_whole_config_from_signature_form_package_and_target() -> None:
    package = {"parameters": {"b": {"string_value": "2"}, "a": {"string_value": "1"}}}
    target = {"instance_group": [{"kind": "KIND_CPU", "count": 2}], "parameters": {"b": {"string_value": "3"}}}
    layers = (FORM, package, target)
    filename = "onnxruntime-cpu-fp32.onnx"
    text = generate_config("encoder", "onnxruntime", filename, RAGGED, max_batch_size=32, layers=layers)
    assert text == TEXT
    config = parse_config(text, path="c")
    assert config_problems(config, package="encoder") == []
    assert config.batch_inputs == (BatchTensor("BATCH_ITEM_SHAPE", ("ids_shape",), ("ids",), "TYPE_INT32"),)


@pytest.mark.parametrize(
    ("dims", "max_batch_size", "expected"),
    [
        ((-1, 3), 4, TensorConfig("x", "TYPE_FP32", (3,))),
        ((-1,), 4, TensorConfig("x", "TYPE_FP32", (1,), reshape=())),
        ((2, 3), 0, TensorConfig("x", "TYPE_FP32", (2, 3))),
        ((-1,), 0, TensorConfig("x", "TYPE_FP32", (-1,))),
    ],
)
def test_the_batch_dimension(dims: tuple[int, ...], max_batch_size: int, expected: TensorConfig) -> None:
    text = generated(of_input(*dims), max_batch_size=max_batch_size)
    assert parse_config(text, path="c").inputs == (expected,)


def test_a_layer_may_turn_batching_off() -> None:
    config = parse_config(generated(of_input(2, 3), {"max_batch_size": 0}), path="c")
    assert (config.max_batch_size, config.inputs[0].dims) == (0, (2, 3))


def test_what_triton_makes_itself_is_left_out() -> None:
    names = ("x", "start", "state_in")
    tensors = Signature(
        tuple(TensorSignature(name, "TYPE_FP32", (-1, 1)) for name in names),
        tuple(TensorSignature(name, "TYPE_FP32", (-1, 1)) for name in ("y", "state_out")),
    )
    sequence = {
        "control_input": [{"name": "start", "control": [{"fp32_false_true": [0, 1]}]}],
        "state": [{"input_name": "state_in", "output_name": "state_out", "data_type": "TYPE_FP32", "dims": [1]}],
    }
    config = parse_config(generated(tensors, {"sequence_batching": sequence}), path="c")
    assert [tensor.name for tensor in (*config.inputs, *config.outputs)] == ["x", "y"]
    assert config_problems(config, package="m") == []


@pytest.mark.parametrize(
    ("tensors", "layer", "said"),
    [
        (of_input(8, 3), {}, r"input 'x' has the fixed first dimension 8.*max_batch_size = 0"),
        (of_input(), {}, "input 'x' has no dimension, so it cannot share a batch"),
        (of_input(), {"max_batch_size": 0}, "input 'x' has no dimension, so Triton carries no scalar"),
        (of_input(-1, name="tokens"), {"input": [{"name": "token"}]}, "no input of the model; did you mean tokens?"),
        (of_input(-1), {"output": [{"name": "x"}]}, "output 'x' is no output of the model; it has "),
        (of_input(-1), {"dynamic_batchin": {}}, "did you mean dynamic_batching?"),
        (of_input(-1), {"max_batch_size": "8"}, "max_batch_size is '8'"),
        (of_input(-1), {"batch_input": [{"target_name": 3}]}, "target_name"),
        (of_input(-1), {"backend": 3}, "backend"),
    ],
)
def test_what_cannot_be_is_refused(tensors: Signature, layer: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^m/model.toml: .*{said}"):
        generated(tensors, layer)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
types = st.sampled_from(("TYPE_FP32", "TYPE_INT64", "TYPE_STRING", "TYPE_BF16"))
dims = st.lists(st.sampled_from((-1, 1, 3, 2**40)), max_size=3)
tensors = st.lists(st.tuples(words, types, dims), min_size=1, max_size=3, unique_by=lambda entry: entry[0]).map(
    lambda entries: tuple(TensorSignature(name, kind, (-1, *rest)) for name, kind, rest in entries)
)
layers = st.fixed_dictionaries(
    {},
    optional={
        "dynamic_batching": st.fixed_dictionaries({"preferred_batch_size": st.lists(st.integers(1, 4), max_size=2)}),
        "parameters": st.dictionaries(words, words.map(lambda word: {"string_value": word}), max_size=3),
        "metric_tags": st.dictionaries(words, words, max_size=2),
        "instance_group": st.lists(st.fixed_dictionaries({"count": st.integers(1, 4), "name": words}), max_size=2),
        "version_policy": st.sampled_from(
            ({"all": {}}, {"latest": {"num_versions": 2}}, {"specific": {"versions": [3]}})
        ),
        "response_cache": st.fixed_dictionaries({"enable": st.booleans()}),
    },
)


@settings(max_examples=30, deadline=None)
@given(tensors, tensors, layers, layers)
def test_a_generated_config_reads_back_as_it_was_meant(
    inputs: tuple[TensorSignature, ...],
    outputs: tuple[TensorSignature, ...],
    package: dict[str, Any],
    target: dict[str, Any],
) -> None:
    text = generated(Signature(inputs, outputs), package, target)
    assert text == generated(Signature(inputs, outputs), package, target)
    message = text_format.Parse(text, model_config_pb2.ModelConfig())
    back = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for name, value in (package | target).items():
        meant = {**package.get(name, {}), **value} if name in ("parameters", "metric_tags") else value
        expected = json_format.ParseDict({name: meant}, model_config_pb2.ModelConfig())
        assert back.get(name) == json_format.MessageToDict(expected, preserving_proto_field_name=True).get(name)
    config = parse_config(text, path="c")
    assert [tensor.name for tensor in config.inputs] == [tensor.name for tensor in inputs]
    assert [tensor.data_type for tensor in config.outputs] == [tensor.data_type for tensor in outputs]
    assert generated(Signature(inputs, outputs), back) == text
