"""Overrides judged before there is a graph: which field is told, and that nothing is refused that a graph may bear."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.config_text import generate_config
from builders.errors import ConfigError
from builders.onnx.signature import Signature, TensorSignature
from builders.overrides import broken_rules, override_layers
from builders.pbtxt import parse_config
from builders.targets import Target
from builders.validate import config_problems

CPU, GPU = Target("onnxruntime", "cpu", "fp32"), Target("tensorrt", "sm_90", "fp16")
CACHE = {"response_cache": {"enable": True}}
DECOUPLED = {"model_transaction_policy": {"decoupled": True}}
WARM = {"name": "w", "batch_size": 1, "inputs": {"x": {"data_type": "TYPE_INT64", "dims": [3], "zero_data": True}}}


def told(package: Mapping[str, Any], cpu: Mapping[str, Any] | None = None, gpu: Mapping[str, Any] | None = None) -> Any:
    return list(broken_rules("m", package, [(CPU, cpu or {}), (GPU, gpu or {})]))


@pytest.mark.parametrize(
    ("package", "location", "said"),
    [
        ({**CACHE, **DECOUPLED}, ("config", "model_transaction_policy"), "for a decoupled model"),
        ({"instance_group": [{"kind": 77}]}, ("config", "instance_group"), "no name defined for value 77"),
        ({"max_batch_size": "8"}, ("config", "max_batch_size"), "must be a whole number"),
        ({"backend": "a/b"}, ("config", "backend"), "must be a plain name"),
        ({"platform": "ensemble"}, ("config", "platform"), "and no backend"),
        ({"metric_tags": {"a b": "c"}}, ("config", "metric_tags"), "cannot be a label"),
        ({"input": [{"name": "x", "dims": [0]}]}, ("config", "input"), "has dimension 0"),
        (
            {"input": [{"name": "x", "dims": [4], "reshape": {"shape": [3]}}]},
            ("config", "input"),
            "cannot be reshaped from [4] to [3]",
        ),
        ({"input": [{"name": "x", "dims": [4], "format": "FORMAT_NHWC"}]}, ("config", "input"), "needs 3 dims"),
        ({"output": [{"name": "y", "label_filename": "../y"}]}, ("config", "output"), "must be a plain path"),
        (
            {"batch_input": [{"target_name": ["b"], "source_input": ["x"], "data_type": "TYPE_INT64"}]},
            ("config", "batch_input"),
            "has data_type TYPE_INT64",
        ),
        ({"batch_output": [{"source_input": ["x"]}]}, ("config", "batch_output"), "names no target_name"),
        ({"model_warmup": [{**WARM, "batch_size": 2}]}, ("config", "model_warmup"), "has batch_size 2"),
        (
            {"input": [{"name": "x", "dims": [2]}], "model_warmup": [WARM]},
            ("config", "input"),
            "the shape [3]; it takes [2]",
        ),
        (
            {"sequence_batching": {"direct": {"minimum_slot_utilization": 1.5}}},
            ("config", "sequence_batching"),
            "minimum_slot_utilization is 1.5",
        ),
    ],
)
def test_a_broken_rule_is_told_once_with_the_field_that_breaks_it(
    package: dict[str, Any], location: tuple[str, ...], said: str
) -> None:
    ((where, problem),) = told(package)
    assert where == location
    assert problem.startswith(f"{'.'.join(location)}: ")
    assert said in problem


def test_of_fields_that_do_not_go_together_the_targets_own_is_told() -> None:
    ((where, _),) = told(CACHE, gpu=DECOUPLED)
    assert where == ("targets", 1, "config", "model_transaction_policy")
    ((where, _),) = told(DECOUPLED, cpu=CACHE)
    assert where == ("targets", 0, "config", "response_cache")


def test_a_batch_too_small_is_told_of_the_target_that_makes_it_so() -> None:
    preferred = {"max_batch_size": 8, "dynamic_batching": {"preferred_batch_size": [8]}}
    assert told(preferred, gpu={"max_batch_size": 4}) == [
        (
            ("targets", 1, "config", "max_batch_size"),
            "targets.1.config.max_batch_size: preferred_batch_size 8 is above max_batch_size 4",
        )
    ]


def test_the_same_mistake_twice_is_told_of_each_place_that_matters() -> None:
    wrong = {"version_policy": {"latest": {"num_versions": 0}}}
    assert [where for where, _ in told(wrong, gpu=wrong)] == [
        ("config", "version_policy"),
        ("targets", 1, "config", "version_policy"),
    ]


def test_what_every_target_puts_right_is_no_mistake() -> None:
    batched = {"max_batch_size": 8}
    assert told({"dynamic_batching": {"preferred_batch_size": [8]}}, batched, batched) == []
    # On a GPU the package's instance groups do not count.
    on_cpu = {"instance_group": [{"kind": "KIND_CPU"}]}
    assert told({"instance_group": [{"kind": "KIND_GPU", "profile": ["0"]}]}, on_cpu) == []


@pytest.mark.parametrize(
    "package",
    [
        {},
        {"input": [{"name": "x", "reshape": {"shape": [3]}}]},
        {"input": [{"name": "x", "format": "FORMAT_NHWC"}]},
        {"model_warmup": [WARM], "input": [{"name": "x", "allow_ragged_batch": True}]},
        {"batch_input": [{"target_name": ["b"], "source_input": ["nowhere"], "data_type": "TYPE_FP32"}]},
        {"ensemble_scheduling": {"step": [{"model_name": "a"}]}},
    ],
)
def test_what_the_graph_decides_is_left_to_it(package: dict[str, Any]) -> None:
    assert told(package) == []


# Right, wrong, and right or wrong by what stands beside it.
FIELDS: dict[str, list[Any]] = {
    "max_batch_size": [0, 4, -1],
    "dynamic_batching": [{}, {"preferred_batch_size": [4]}, {"priority_levels": 2, "default_priority_level": 3}],
    "input": [
        [{"name": "x", "dims": [3]}],
        [{"name": "x", "dims": [4], "reshape": {"shape": [2, 2]}}],
        [{"name": "x", "reshape": {"shape": [3]}}],
        [{"name": "x", "format": "FORMAT_NHWC"}, {"name": "z", "optional": True}],
        [{"name": "x", "dims": [0]}],
    ],
    "output": [[{"name": "y", "dims": [1], "is_shape_tensor": True}], [{"name": "y", "label_filename": "labels"}]],
    "batch_input": [
        [{"target_name": ["z"], "source_input": ["x"], "data_type": "TYPE_FP32"}],
        [{"target_name": ["x"], "source_input": ["z"]}],
    ],
    "batch_output": [[{"target_name": ["y"], "source_input": ["x"]}], [{"target_name": ["y", "y"]}]],
    "model_warmup": [
        [WARM],
        [{**WARM, "batch_size": 4}],
        [{"name": "w", "batch_size": 1, "inputs": {"z": {"dims": [3, 1, 1], "random_data": True}}}],
    ],
    "sequence_batching": [{}, {"control_input": [{"name": "z"}]}, {"oldest": {"preferred_batch_size": [2]}}],
    "instance_group": [[{"kind": "KIND_CPU", "gpus": [0]}], [{"profile": ["0"]}], [{"count": 2}]],
    "response_cache": [{"enable": True}],
    "model_transaction_policy": [{"decoupled": True}],
    "platform": ["onnxruntime_onnx", "tensorrt_plan", "ensemble"],
    "backend": ["", "python", "ensemble"],
    "version_policy": [{"latest": {"num_versions": 0}}, {"all": {}}],
}
overrides = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FIELDS.items()})
shapes = st.lists(st.sampled_from([-1, 1, 3, 4]), min_size=1, max_size=4).map(lambda dims: (-1, *dims))
types = st.sampled_from(["TYPE_FP32", "TYPE_INT64"])
signatures = st.builds(
    lambda names, kinds, dims: Signature(
        tuple(map(TensorSignature, names, kinds, dims)), (TensorSignature("y", kinds[-1], dims[-1]),)
    ),
    st.sampled_from([("x",), ("x", "z")]),
    st.lists(types, min_size=2, max_size=2),
    st.lists(shapes, min_size=2, max_size=2),
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from([CPU, GPU]), overrides, overrides, signatures)
@example(CPU, {}, {"model_warmup": [WARM]}, Signature((TensorSignature("x", "TYPE_INT64", (3,)),), ()))
def test_nothing_is_refused_that_goes_with_some_graph(
    target: Target, package: dict[str, Any], own: dict[str, Any], signature: Signature
) -> None:
    """And what is told of a field is of one that was given."""
    found = list(broken_rules("m", package, [(target, own)]))
    given_fields = {("config", name) for name in package} | {("targets", 0, "config", name) for name in own}
    assert {where for where, _ in found} <= given_fields
    if found:
        assert problems_over(target, package, own, signature)


def problems_over(
    target: Target, package: Mapping[str, Any], own: Mapping[str, Any], signature: Signature
) -> list[str]:
    """Return what is wrong once the graph is known, as `assemble` finds it."""
    layers = override_layers(package, target, own)
    try:
        text = generate_config("m", target.runtime, "m.onnx", signature, max_batch_size=0, layers=layers)
        return config_problems(parse_config(text, path="m"), package="m")
    except ConfigError as error:
        return [str(error)]
