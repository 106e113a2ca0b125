"""Configs that Triton refuses without saying why: each gets a sentence here; the contract tests ask the real server."""

import pytest

from builders.pbtxt import parse_config
from builders.validate import config_problems

TENSORS = (
    'input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ] output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]'
)
STEP = '{ model_name: "a" model_version: -1 input_map { key: "i" value: "x" } output_map { key: "o" value: "y" } }'
READS_Z, WRITES_Z = STEP.replace('"x"', '"z"'), STEP.replace('"y"', '"z"')

CASES = [
    (f'name: "n" backend: "python" {TENSORS}', 'name: "n" differs from the folder\'s name'),
    (f'backend: "b" max_batch_size: -1 {TENSORS}', "max_batch_size is -1"),
    (f'backend: "b" dynamic_batching {{ }} {TENSORS}', "dynamic_batching needs max_batch_size"),
    (
        f'backend: "b" max_batch_size: 4 dynamic_batching {{ preferred_batch_size: [ 8 ] }} {TENSORS}',
        "preferred_batch_size 8 is above max_batch_size 4",
    ),
    (
        f'backend: "b" max_batch_size: 4 dynamic_batching {{ preferred_batch_size: [ 0 ] }} {TENSORS}',
        "preferred_batch_size 0 must be positive",
    ),
    (
        'backend: "b" input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] allow_ragged_batch: true } ]',
        "has allow_ragged_batch, which needs max_batch_size",
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


def test_a_sound_config_has_no_problem() -> None:
    sound = f'platform: "ensemble" {TENSORS} ensemble_scheduling {{ step [ {STEP} ] }}'
    assert config_problems(parse_config(sound, path="config.pbtxt"), package="m") == []
