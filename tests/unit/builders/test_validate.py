"""Configs that Triton refuses without saying why: each gets a sentence here; the contract tests ask the real server."""

import pytest

from builders.pbtxt import parse_config
from builders.validate import config_problems

TENSORS = (
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ] output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]'
)
STEP = '{ model_name: "a" model_version: -1 input_map { key: "i" value: "x" } output_map { key: "o" value: "y" } }'
STATES = 'sequence_batching { state [ { initial_state [ { name: "i" DATA }, { name: "j" zero_data: true } ] } ] }'
FROM_OUTSIDE = 'data_file: "../a"'
FROM_FILE = 'data_type: TYPE_FP32 dims: [ 1 ] input_data_file: "/a"'
READS_Z, WRITES_Z = STEP.replace('"x"', '"z"'), STEP.replace('"y"', '"z"')

CASES = [
    (f'name: "n" backend: "python" {TENSORS}', 'name: "n" differs from the folder\'s name'),
    (f'backend: "b" max_batch_size: -1 {TENSORS}', "max_batch_size is -1"),
    (
        f'backend: "b" max_batch_size: 4 dynamic_batching {{ preferred_batch_size: [ 8 ] }} {TENSORS}',
        "preferred_batch_size 8 is above max_batch_size 4",
    ),
    (
        f'backend: "b" max_batch_size: 4 dynamic_batching {{ preferred_batch_size: [ 0 ] }} {TENSORS}',
        "preferred_batch_size 0 must be positive",
    ),
    # What depends on a machine, a backend or a path, which the contract test cannot ask its server about.
    (f'backend: "b" instance_group [ {{ kind: KIND_MODEL gpus: 1 }} ] {TENSORS}', "KIND_MODEL may not name gpus"),
    (f'backend: "tensorrt" instance_group [ {{ profile: "-1" }} ] {TENSORS}', "has profile '-1'"),
    (
        'backend: "tensorrt" input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] is_non_linear_format_io: true } ]',
        "is_non_linear_format_io, which needs 3 dims",
    ),
    (f'backend: "b" default_model_filename: "../a" {TENSORS}', "'../a' must be a plain path"),
    (f'backend: "python" default_model_filename: "a.txt" {TENSORS}', "must be a Python module's file"),
    (f'backend: "b" runtime: "a/b" {TENSORS}', "must be the name of a backend's library"),
    (
        f'backend: "b" {TENSORS} {STATES.replace("DATA", FROM_OUTSIDE)}',
        "has data_file '../a', which must be a plain path",
    ),
    (
        f'backend: "b" {TENSORS} {STATES.replace("DATA", "zero_data: true")}',
        "has 2 initial_state; it may have one",
    ),
    (
        f'backend: "b" {TENSORS} model_warmup [ {{ batch_size: 1 inputs {{ key: "x" value {{ {FROM_FILE} }} }} }} ]',
        "the file '/a', which must be a plain path",
    ),
    (f'backend: "b" {TENSORS} {TENSORS}', "input 'x' is declared 2 times"),
    ('backend: "b" input [ { name: "x" dims: [ 1 ] } ]', "input 'x' has no data_type"),
    ('backend: "b" input [ { name: "x" data_type: TYPE_FP32 } ]', "input 'x' has no dims"),
    ('backend: "b" output [ { name: "x" data_type: TYPE_FP32 dims: [ 0 ] } ]', "output 'x' has dimension 0"),
    (f'platform: "ensemble" {TENSORS}', "must have at least one step"),
    (
        f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {STEP} ] }} instance_group [ {{ count: 2 }} ]',
        "may not have an instance_group",
    ),
    (f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {STEP}, {STEP} ] }}', "'y' is produced twice"),
    (
        f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {READS_Z} ] }}',
        "reads tensor 'z', which no step writes",
    ),
    (
        f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {WRITES_Z} ] }}',
        "output 'y' is written by no step",
    ),
]


@pytest.mark.parametrize(("text", "said"), CASES)
def test_each_rule_has_its_sentence(text: str, said: str) -> None:
    problems = config_problems(parse_config(text, path="config.pbtxt"), package="m")
    assert any(said in problem for problem in problems), problems


SOUND = [
    f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {STEP} ] }}',
    f'backend: "tensorrt" instance_group [ {{ kind: KIND_GPU gpus: [ 0 ] profile: "2" }} ] {TENSORS}',
    'platform: "tensorrt_plan" input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] is_shape_tensor: true } ]',
    'default_model_filename: "model.plan" output [ { name: "x" data_type: TYPE_INT32 dims: 2 is_shape_tensor: true } ]',
    f'backend: "tensorrt" default_model_filename: "tensorrt-sm_90-fp16@10.3.engine" {TENSORS}',
    f'backend: "b" runtime: "libtriton_b.so" cc_model_filenames {{ key: "9.0" value: "a" }} {TENSORS}',
]


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_config_has_no_problem(text: str) -> None:
    assert config_problems(parse_config(text, path="config.pbtxt"), package="m") == []


def test_a_skipped_warm_up_is_not_looked_at() -> None:
    text = f'backend: "b" {TENSORS} model_warmup [ {{ batch_size: 0 inputs {{ key: "q" value {{ }} }} }} ]'
    assert config_problems(parse_config(text, path="config.pbtxt"), package="m") == []
