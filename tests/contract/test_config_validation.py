"""Configs that a real tritonserver refuses, each refused here with its reason; and what it takes, taken here too."""

from pathlib import Path

import pytest

from builders.errors import ConfigError
from builders.pbtxt import parse_config
from builders.validate import config_problems
from tests.config_verdicts import ConfigCourt, Member, Question, Verdict
from tests.faults.fuzz_texts import REPOSITORY, read_all, sampled, wrong_accepts
from tests.fuzzed_texts import HAND_MADE, NAME, fuzzed

INPUT = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]'
OUTPUT = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]'
PLAIN = f'backend: "python" {INPUT} {OUTPUT}'
BATCHED = f"max_batch_size: 4 {PLAIN}"
ENSEMBLE = f'platform: "ensemble" max_batch_size: 4 {INPUT} {OUTPUT}'
SCATTER = 'kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x"'
PRIORITY = "priority_levels: 1 default_priority_level: 1"
DELAY = "default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 }"
STEP = '{ model_name: "member" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } }'


def with_input(fields: str, batch: int = 4) -> str:
    return f'backend: "python" max_batch_size: {batch} input [ {{ name: "x" data_type: TYPE_FP32 {fields} }} ] {OUTPUT}'


def warmed(inputs: str, batch: int = 1) -> str:
    return f'{BATCHED} model_warmup [ {{ name: "w" batch_size: {batch} {inputs} }} ]'


def in_sequence(fields: str) -> str:
    return f"{BATCHED} sequence_batching {{ {fields} }}"


def controlled(control: str) -> str:
    return in_sequence(f'control_input [ {{ name: "c" control [ {{ {control} }} ] }} ]')


def with_state(initial: str) -> str:
    state = f'input_name: "i" output_name: "o" data_type: TYPE_FP32 dims: [ 2 ] initial_state {{ {initial} }}'
    return in_sequence(f"state [ {{ {state} }} ]")


def chained(*steps: tuple[str, str], more: str = "") -> str:
    entries = [
        STEP.replace('value: "x"', f'value: "{source}"').replace('value: "y"', f'value: "{target}"')
        for source, target in steps
    ]
    return f"{ENSEMBLE} ensemble_scheduling {{ step [ {', '.join(entries)} ] }} {more}"


GIVEN = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } }'

REFUSED = {
    "name": (f'name: "other" {PLAIN}', "differs from the folder's name"),
    "na\u00efve": (PLAIN, "whose name is not ASCII"),
    "negative_batch": (f"max_batch_size: -1 {PLAIN}", "max_batch_size is -1"),
    "no_such_platform": (f'platform: "bogus" {INPUT} {OUTPUT}', "platform 'bogus' is unknown"),
    "platform_of_another": (f'backend: "onnxruntime" platform: "tensorrt_plan" {INPUT} {OUTPUT}', "does not go with"),
    "tensorflow_alone": (f'backend: "tensorflow" {INPUT} {OUTPUT}', "does not go with platform ''"),
    "ensemble_with_backend": (f'platform: "ensemble" {PLAIN}', "and no backend"),
    "no_backend_to_tell": (f'default_model_filename: "a.bin" {INPUT} {OUTPUT}', "no backend is named"),
    "runtime": (f'runtime: "model.py" {PLAIN}', "is not the Python backend's"),
    "backend_is_a_path": (f'backend: "../python" {INPUT} {OUTPUT}', "must be a plain name"),
    "model_file_is_a_path": (f'default_model_filename: "./model.py" {PLAIN}', "must be a plain path"),
    "no_version": (f"version_policy {{ latest {{ }} }} {PLAIN}", "num_versions of at least 1"),
    "no_specific_version": (f"version_policy {{ specific {{ versions: [ -3 ] }} }} {PLAIN}", "names no version"),
    "cpu_with_gpus": (f"instance_group [ {{ kind: KIND_CPU gpus: [ 0 ] }} ] {PLAIN}", "may not name gpus"),
    "profile": (f'instance_group [ {{ kind: KIND_CPU profile: "0" }} ] {PLAIN}', "which only a TensorRT model has"),
    "cached_decoupled": (
        f"response_cache {{ enable: true }} model_transaction_policy {{ decoupled: true }} {PLAIN}",
        "for a decoupled model",
    ),
    "parameter": (
        f'parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value {{ string_value: "maybe" }} }} {PLAIN}',
        'must be "yes" or "no"',
    ),
    "newer_field": (f"model_metrics {{ }} {PLAIN}", "does not know the field model_metrics"),
    "no_such_field": (f"max_batch: 3 {PLAIN}", "max_batch"),
    "two_schedulers": (f"dynamic_batching {{ }} sequence_batching {{ }} {PLAIN}", "oneof"),
    "odd_number": (f'backend: "python" max_batch_size: 0b11 {INPUT}', "is not a number as Triton reads them"),
    "signed_number": (f'backend: "python" max_batch_size: +4 {INPUT}', "is not a number as Triton reads them"),
    "odd_space": (f"{PLAIN}\u00a0", "may only stand inside quotes"),
    "odd_escape": (f'{PLAIN} parameters {{ key: "\\q" value {{ }} }}', "is no escape"),
    "no_type": (f'backend: "python" input [ {{ name: "x" dims: [ 1 ] }} ] {OUTPUT}', "has no data_type"),
    "no_name": (f'backend: "python" input [ {{ data_type: TYPE_FP32 dims: [ 1 ] }} ] {OUTPUT}', "has no name"),
    "no_dims": (with_input(""), "has no dims"),
    "dimension_0": (with_input("dims: [ 0 ]"), "has dimension 0"),
    "dimension_-2": (with_input("dims: [ -2 ]"), "has dimension -2"),
    "reshape_size": (with_input("dims: [ 4 ] reshape { shape: [ 3 ] }"), "sizes differ"),
    "reshape_dynamic": (with_input("dims: [ -1 ] reshape { shape: [ 1 ] }"), "sizes differ"),
    "reshape_0": (with_input("dims: [ 4 ] reshape { shape: [ 0 ] }"), "another dimension"),
    "reshape_unbatched": (with_input("dims: [ 1 ] reshape { }", batch=0), "has an empty reshape"),
    "image_format": (with_input("dims: [ 1 ] format: FORMAT_NHWC"), "needs 3 dims"),
    "shape_tensor": (with_input("dims: [ 1 ] is_shape_tensor: true"), "has is_shape_tensor"),
    "non_linear": (with_input("dims: [ 1, 2, 3 ] is_non_linear_format_io: true"), "has is_non_linear_format_io"),
    "batch_input_source": (
        f'{BATCHED} batch_input [ {{ target_name: "t" data_type: TYPE_FP32 source_input: "q" }} ]',
        "reads 'q', which is no input",
    ),
    "batch_input_sources": (
        f'{BATCHED} batch_input [ {{ target_name: "t" data_type: TYPE_FP32 }} ]',
        "one source_input",
    ),
    "batch_input_type": (
        f'{BATCHED} batch_input [ {{ target_name: "t" data_type: TYPE_INT64 source_input: "x" }} ]',
        "has data_type TYPE_INT64",
    ),
    "batch_output_target": (
        f'{BATCHED} batch_output [ {{ target_name: "q" {SCATTER} }} ]',
        "writes 'q', which is no output",
    ),
    "batch_output_twice": (
        f'{BATCHED} batch_output [ {{ target_name: [ "y", "y" ] {SCATTER} }} ]',
        "names its target 'y' 2 times",
    ),
    "preferred_above": (f"{BATCHED} dynamic_batching {{ preferred_batch_size: [ 8 ] }}", "is above max_batch_size 4"),
    "preferred_unbatched": (f"{PLAIN} dynamic_batching {{ preferred_batch_size: [ 1 ] }}", "is above max_batch_size 0"),
    "preferred_0": (f"{BATCHED} dynamic_batching {{ preferred_batch_size: [ 0 ] }}", "must be positive"),
    "no_default_priority": (f"{BATCHED} dynamic_batching {{ priority_levels: 2 }}", "default_priority_level is 0"),
    "priority_policy": (
        f"{BATCHED} dynamic_batching {{ {PRIORITY} priority_queue_policy {{ key: 3 }} }}",
        "is given for level 3",
    ),
    "ordered_priorities": (
        f"{BATCHED} dynamic_batching {{ preserve_ordering: true priority_levels: 2 default_priority_level: 1 }}",
        "allows one priority level",
    ),
    "ordered_delay": (
        f"{BATCHED} dynamic_batching {{ preserve_ordering: true {DELAY} }}",
        "does not go with the timeout_action DELAY",
    ),
    "cached_sequence": (f"{in_sequence('')} response_cache {{ enable: true }}", "together with sequence_batching"),
    "oldest_preferred": (in_sequence("oldest { preferred_batch_size: [ 9 ] }"), "is above max_batch_size 4"),
    "slots": (in_sequence("direct { minimum_slot_utilization: 1.5 }"), "minimum_slot_utilization is 1.5"),
    "control_without_name": (in_sequence("control_input [ { } ]"), "has no name"),
    "control_twice": (in_sequence('control_input [ { name: "c" }, { name: "c" } ]'), "is declared 2 times"),
    "control_kind_twice": (
        controlled("fp32_false_true: [ 0, 1 ] }, { fp32_false_true: [ 0, 1 ]"),
        "has 2 controls of kind",
    ),
    "control_without_values": (controlled("kind: CONTROL_SEQUENCE_END"), "it has 0"),
    "control_with_three": (controlled("kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1, 2 ]"), "it has 3"),
    "control_with_both": (
        controlled("kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] int32_false_true: [ 0, 1 ]"),
        "it has 2",
    ),
    "correlation_type": (controlled("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32"), "has data_type TYPE_FP32"),
    "correlation_values": (
        controlled("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 int32_false_true: [ 0, 1 ]"),
        "takes a data_type",
    ),
    "state_type": (
        with_state('name: "s" data_type: TYPE_INT32 dims: [ 2 ] zero_data: true'),
        "is TYPE_INT32, the state",
    ),
    "state_name": (with_state("data_type: TYPE_FP32 dims: [ 2 ] zero_data: true"), "has no name"),
    "state_dims": (with_state('name: "s" data_type: TYPE_FP32 dims: [ 3 ] zero_data: true'), "has dims [3]"),
    "state_dynamic": (with_state('name: "s" data_type: TYPE_FP32 dims: [ -1 ] zero_data: true'), "below 0"),
    "state_data": (with_state('name: "s" data_type: TYPE_FP32 dims: [ 2 ]'), "needs zero_data or data_file"),
    "warm_up_batch": (warmed(GIVEN, batch=9), "has batch_size 9"),
    "warm_up_nothing": (warmed(""), "has no inputs"),
    "warm_up_shape": (warmed(GIVEN.replace("[ 1 ]", "[ 2 ]")), "the shape [2]; it takes [1]"),
    "warm_up_dynamic": (warmed(GIVEN.replace("[ 1 ]", "[ -1 ]")), "its shape must be fixed"),
    "warm_up_type": (warmed(GIVEN.replace("TYPE_FP32", "TYPE_INT8")), "TYPE_INT8; it takes TYPE_FP32"),
    "warm_up_data": (warmed(GIVEN.replace("zero_data: true", "")), "no data"),
    "warm_up_other": (warmed(GIVEN.replace('"x"', '"q"')), "leaves out input 'x'"),
    "no_steps": (ENSEMBLE, "must have at least one step"),
    "steps_of_python": (f"{PLAIN} ensemble_scheduling {{ step [ {STEP} ] }}", 'needs platform: "ensemble"'),
    "ensemble_instances": (chained(("x", "y"), more="instance_group [ { } ]"), "may not have an instance_group"),
    "ensemble_optimization": (chained(("x", "y"), more="optimization { }"), "may not have optimization"),
    "ensemble_warm_up": (chained(("x", "y"), more="model_warmup { }"), "may not have model_warmup"),
    "written_twice": (chained(("x", "y"), ("x", "y")), "'y' is produced twice"),
    "unread_input": (chained(("q", "y")), "input 'x' is read by no step"),
    "unread_tensor": (chained(("x", "y"), ("x", "z")), "writes tensor 'z', which nothing reads"),
    "cycle": (chained(("x", "y"), ("a", "b"), ("b", "a")), "which comes of its own outputs"),
    "no_model_name": (chained(("x", "y")).replace('"member"', '""'), "has no model_name"),
    "version_0": (chained(("x", "y")).replace("model_version: -1", "model_version: 0"), "has model_version 0"),
    "calls_itself": (chained(("x", "y")).replace('"member"', '"calls_itself"'), "calls the ensemble itself"),
}
KILLED = {
    "empty_agents": (f"model_repository_agents {{ }} {PLAIN}", "names no agent"),
    "metric_tag": (f'metric_tags {{ key: "a b" value: "c" }} {PLAIN}', "cannot be a label"),
    "label_folder": (PLAIN.replace('name: "y"', 'name: "y" label_filename: "1"'), "is a version's folder"),
    "batch_output_nowhere": (
        f"{BATCHED} batch_output [ {{ {SCATTER} }} ]",
        "names no target_name",
    ),
    "warm_up_of_nothing": (
        warmed(f'{GIVEN} inputs {{ key: "q" value {{ dims: [ 1 ] zero_data: true }} }}'),
        "gives input 'q' no data_type",
    ),
}
TAKEN = {
    "plain": PLAIN,
    "nothing": "",
    "dynamic_unbatched": f"{PLAIN} dynamic_batching {{ }}",
    "ragged_unbatched": with_input("dims: [ -1 ] allow_ragged_batch: true", batch=0),
    "reshaped": with_input("dims: [ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }"),
    "one_value": with_input("dims: [ 1 ] reshape { shape: [ ] }"),
    "warm": warmed(GIVEN),
    "escaped": f'{PLAIN} parameters {{ key: "\\x41\\n\\u00e9é" value {{ string_value: \'a\' "b" }} }} # \u00a0',
    "hexadecimal": f"{PLAIN} max_batch_size: 0x4",
    "in_other_order": chained(("z", "y"), ("x", "z")),
}
TAKEN_AS_THEY_ARE = {f"hand_made_{number}": text for number, text in enumerate(HAND_MADE[:4], 1)}
STRICTER = {
    "declared_twice": f"{PLAIN} {INPUT}",
    "unknown_number": f'backend: "python" input [ {{ name: "x" data_type: 99 dims: [ 1 ] }} ] {OUTPUT}',
}
"""Triton takes the first of two, or anything for a data type, and answers wrongly later."""
FILES = {"labels/y.txt": b"label\n", "initial_state/zero": bytes(8), "warmup/bits": bytes(1)}
FUZZED, SAMPLE = 10_000, 16


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> ConfigCourt:
    return ConfigCourt(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Question]:
    """Mutated configs that are accepted here, to be asked of the server as well."""
    tally = read_all(fuzzed(REPOSITORY, seed=0, count=FUZZED), tmp_path_factory.mktemp("fuzzed"))
    return sampled(tally.questions, SAMPLE, seed=0)


@pytest.fixture(scope="module")
def verdicts(court: ConfigCourt, accepted: dict[str, Question]) -> dict[str, Verdict]:
    """Every config's verdict, of one server."""
    member = f"max_batch_size: 8 {PLAIN}"
    texts = {name: text for name, (text, _) in REFUSED.items()} | TAKEN | STRICTER
    questions = {name: question(name, text, member) for name, text in texts.items()}
    for name, text in TAKEN_AS_THEY_ARE.items():
        questions[name] = Question(text.replace(NAME, name), files=FILES)
    with court:
        return court.ask(questions | accepted)


def question(name: str, text: str, member: str) -> Question:
    named = f"member_of_{name}"
    members = {named: Member(member)} if '"member"' in text else {}
    return Question(text.replace('"member"', f'"{named}"'), members)


def ours(name: str, text: str) -> list[str]:
    try:
        return config_problems(parse_config(text.replace(NAME, name), path="config.pbtxt"), package=name)
    except ConfigError as error:
        return [str(error)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_server_refuses_is_refused_with_its_reason(verdicts: dict[str, Verdict], name: str) -> None:
    text, said = REFUSED[name]
    assert not verdicts[name].loaded
    problems = ours(name, text)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize("name", TAKEN | TAKEN_AS_THEY_ARE)
def test_what_the_server_takes_is_taken(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name] == Verdict(loaded=True)
    assert ours(name, (TAKEN | TAKEN_AS_THEY_ARE)[name]) == []


@pytest.mark.parametrize("name", STRICTER)
def test_what_the_server_takes_by_mistake_is_refused(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name].loaded
    assert ours(name, STRICTER[name])


def test_no_mutated_config_is_accepted_wrongly(verdicts: dict[str, Verdict], accepted: dict[str, Question]) -> None:
    assert len(accepted) == SAMPLE
    assert wrong_accepts(accepted, {name: verdicts[name] for name in accepted}) == []


@pytest.mark.parametrize("name", KILLED)
def test_what_would_kill_a_server_is_refused(name: str) -> None:
    text, said = KILLED[name]
    problems = ours(name, text)
    assert any(said in problem for problem in problems), problems


def test_such_a_config_kills_a_real_server(tmp_path: Path) -> None:
    with ConfigCourt(tmp_path) as court:
        verdict = court.ask({"killed": Question(KILLED["metric_tag"][0])})["killed"]
        assert verdict.crashed
        assert court.ask({"plain": Question(PLAIN)})["plain"].loaded
