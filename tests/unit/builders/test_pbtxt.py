"""config.pbtxt to data and to the load call's JSON."""

import json

import pytest

from builders.errors import ConfigError
from builders.model_config import DynamicBatching, EnsembleStep, InstanceGroup, TensorConfig
from builders.pbtxt import parse_config, to_json

TEXT = """
name: "m" backend: "onnxruntime" max_batch_size: 8
input [ { name: "x" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true optional: true } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3, 4 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_GPU gpus: [ 0, 1 ] } ]
parameters { key: "k" value: { string_value: "v" } }
version_policy: { latest: { num_versions: 2 } }
model_warmup [ { name: "w" batch_size: 1 } ]
"""


def test_reads_what_is_reasoned_about() -> None:
    config = parse_config(TEXT, path="c")
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 8)
    assert config.inputs == (TensorConfig("x", "TYPE_INT64", (-1,), optional=True, allow_ragged_batch=True),)
    assert config.outputs == (TensorConfig("y", "TYPE_FP32", (3, 4)),)
    assert config.dynamic_batching == DynamicBatching((4, 8), 100)
    assert config.instance_groups == (InstanceGroup("KIND_CPU", 2), InstanceGroup("KIND_GPU", 1, (0, 1)))
    assert config.parameters == {"k": "v"}
    assert not config.is_ensemble


def test_reads_ensembles() -> None:
    config = parse_config(
        'platform: "ensemble" ensemble_scheduling { step [ '
        '{ model_name: "b" model_version: -1 input_map { key: "p" value: "q" } output_map { key: "r" value: "s" } }, '
        '{ model_name: "a" model_version: 2 } ] }',
        path="c",
    )
    assert config.is_ensemble
    assert config.members == ("a", "b")
    assert config.ensemble_steps[0] == EnsembleStep("b", -1, {"p": "q"}, {"r": "s"})


def test_the_loads_config_keeps_every_field_and_pins_versions() -> None:
    text = to_json(TEXT, path="c", versions=[3, 1])
    data = json.loads(text)
    assert data["version_policy"] == {"specific": {"versions": ["1", "3"]}}
    assert data["model_warmup"] == [{"name": "w", "batch_size": 1}]
    assert text == to_json(TEXT, path="c", versions=[1, 3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "m"\nmax_batch: 3', r"^c:2: .*max_batch"),
        ('name: "m"\ninput [ { name: "x" data_type: TYPE_FLOAT } ]', r"^c:2: .*TYPE_FLOAT"),
        ("name: ", r"^c:1: "),
    ],
)
def test_an_error_has_its_line_and_cause(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(text, path="c")
