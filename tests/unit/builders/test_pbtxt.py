"""config.pbtxt to data and to the load call's JSON."""

import json

import pytest

from builders.errors import ConfigError
from builders.model_config import DynamicBatching, EnsembleStep, InstanceGroup, TensorConfig
from builders.pbtxt import from_json, merge, parse_config, to_json

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
    assert config.inputs == (TensorConfig("x", "TYPE_INT64", (-1,), optional=True),)
    assert config.outputs == (TensorConfig("y", "TYPE_FP32", (3, 4)),)
    assert config.dynamic_batching == DynamicBatching((4, 8))
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


def test_the_loads_config_scales_the_first_instance_group() -> None:
    def groups(text: str) -> object:
        return json.loads(to_json(text, path="c", versions=[1], instances=3)).get("instance_group")

    assert groups('name: "m"') == [{"count": 3}]
    assert groups("instance_group [ { kind: KIND_GPU count: 2 gpus: [ 1 ] }, { kind: KIND_CPU } ]") == [
        {"count": 3, "kind": "KIND_GPU", "gpus": [1]}
    ]
    assert groups('platform: "ensemble"') is None
    assert groups('ensemble_scheduling { step [ { model_name: "a" model_version: -1 } ] }') is None


@pytest.mark.parametrize(
    ("text", "instances", "gpus", "groups"),
    [
        ("", 4, 2, [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}]),
        ("", 1, 2, [{"kind": "KIND_GPU", "count": 1, "gpus": [0]}]),
        (
            'instance_group { name: "g" kind: KIND_GPU rate_limiter { priority: 2 } }',
            5,
            4,
            [
                {"name": "g", "kind": "KIND_GPU", "count": 1, "gpus": [0, 1, 2, 3], "rate_limiter": {"priority": 2}},
                {"kind": "KIND_GPU", "count": 1, "gpus": [0], "rate_limiter": {"priority": 2}},
            ],
        ),
        ("instance_group { gpus: [ 1, 3 ] }", 3, 4, [
            {"kind": "KIND_GPU", "count": 1, "gpus": [1, 3]}, {"kind": "KIND_GPU", "count": 1, "gpus": [1]},
        ]),
        ("instance_group { kind: KIND_CPU }", 3, 4, [{"kind": "KIND_CPU", "count": 3}]),
        ("", 3, 1, [{"count": 3}]),
    ],
)  # fmt: skip
def test_instances_are_spread_over_several_gpus(text: str, instances: int, gpus: int, groups: object) -> None:
    config = json.loads(to_json(f'name: "m" {text}', path="c", versions=[1], instances=instances, gpus=gpus))
    assert config["instance_group"] == groups
    read = parse_config(from_json(config, header="h", where="c"), path="c")
    assert sum(it.instances_on(gpus) for it in read.instance_groups) == instances


def test_the_loads_config_has_more_parameters() -> None:
    text = 'parameters { key: "k" value { string_value: "v" } }'
    data = json.loads(to_json(text, path="c", versions=[1], parameters={"g": "2"}))
    assert data["parameters"] == {"k": {"string_value": "v"}, "g": {"string_value": "2"}}
    assert "instance_group" not in data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "m"\nmax_batch: 3', r"^c:2: .*max_batch"),
        ('name: "m"\ninput [ { name: "x" data_type: TYPE_FLOAT } ]', r"^c:2: .*TYPE_FLOAT"),
        ("name: ", r"^c:1: "),
        ('# \u00a0\nname:\u00a0"m"', r"^c:2: character '\\xa0' may only stand inside quotes"),
        ("max_batch_size: 1_0", r"^c:1: 1_0 is not a number"),
        ("name: 'a'\n'\\q'", r"^c:2: '\\\\q' is no escape"),
        (
            "ensemble_scheduling { max_inflight_requests: 1 }",
            r"^c: Triton 2.51 .* does not know .*max_inflight_requests",
        ),
        ("input [ { data_type: 99 } ]", "^c: .*99"),
        ("input [ { data_type: 99999999999999999999 } ]", "^c: Value out of range: 9+"),
    ],
)
def test_an_error_has_its_line_and_cause(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(text, path="c")


def test_from_data_to_the_same_text_whatever_the_order() -> None:
    one = {"name": "m", "parameters": {"b": {"string_value": "2"}, "a": {"string_value": "é"}}, "max_batch_size": 2}
    other = {"max_batch_size": 2, "parameters": {"a": {"string_value": "é"}, "b": {"string_value": "2"}}, "name": "m"}
    text = from_json(one, header="Made.", where="c")
    assert text == from_json(other, header="Made.", where="c")
    assert text.startswith('# Made.\nname: "m"\nmax_batch_size: 2\nparameters {\n  key: "a"\n')
    assert parse_config(text, path="c").parameters == {"a": "é", "b": "2"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_batch_size": "many"}, "^c: .*max_batch_size"),
        ({"model_metrics": {"metric_control": []}}, "^c: .*does not know the field model_metrics"),
        ({"input": [{"name": "x", "data_type": "TYPE_FLOAT"}]}, "^c: .*TYPE_FLOAT"),
    ],
)
def test_data_of_another_type_is_refused(config: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_json(config, header="Made.", where="c")


def test_layers_merge_messages_and_replace_the_rest() -> None:
    base = {
        "input": [{"name": "x", "dims": [1]}, {"name": "z", "dims": [2]}],
        "dynamic_batching": {"preferred_batch_size": [4], "preserve_ordering": True},
        "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "2"}},
        "instance_group": [{"count": 1}, {"count": 2}],
        "version_policy": {"latest": {"num_versions": 2}},
    }
    layer = {
        "input": [{"name": "z", "optional": True}, {"name": "new"}],
        "dynamic_batching": {"preferred_batch_size": [8]},
        "parameters": {"b": {"string_value": "3"}},
        "instance_group": [{"count": 3}],
        "version_policy": {"all": {}},
    }
    assert merge(base, layer, where="c") == {
        "input": [{"name": "x", "dims": [1]}, {"name": "z", "dims": [2], "optional": True}, {"name": "new"}],
        "dynamic_batching": {"preferred_batch_size": [8], "preserve_ordering": True},
        "parameters": {"a": {"string_value": "1"}, "b": {"string_value": "3"}},
        "instance_group": [{"count": 3}],
        "version_policy": {"all": {}},
    }
    assert merge(base, {"sequence_batching": {}}, where="c").keys() == base.keys() - {"dynamic_batching"} | {
        "sequence_batching"
    }


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"max_batchsize": 1}, "^c: ModelConfig has no field max_batchsize; did you mean max_batch_size\\?"),
        ({"dynamic_batching": {"prefered_batch_size": [1]}}, "dynamic_batching.prefered_batch_size; did you mean pref"),
        ({"instance_group": [{"size": 1}]}, "no field instance_group.size; there are count, gpus, "),
        ({"parameters": {"a": {"value": "b"}}}, "no field parameters.a.value; there are string_value"),
        ({"instance_group": 3}, "instance_group must be a list of tables"),
        ({"instance_group": "ab"}, "instance_group must be a list of tables"),
        ({"dynamic_batching": [1]}, "dynamic_batching must be a table"),
        ({"parameters": []}, "parameters must be a table"),
        ({"input": [{"dims": [1]}]}, "an entry of input has no name"),
    ],
)
def test_a_layer_that_is_no_config_is_refused(layer: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        merge({}, layer, where="c")
