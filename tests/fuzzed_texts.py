"""Texts of `model.toml` and `config.pbtxt`, and seeded mutations of them: characters, tokens, whole statements.

The same seed and index give the same text. NAME stands for the model's name, which is another one for every mutation,
so that a server can be asked about many at once.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "fuzzed_model"
CONFIG = "config.pbtxt"
SPEC = "model.toml"

_TENSORS = """\
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] reshape { shape: [ -1, 2, 2 ] } } ]
input [ { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true optional: true } ]
output [ { name: "y" data_type: TYPE_STRING dims: [ 3 ] label_filename: "labels/y.txt" } ]
"""
HAND_MADE = (
    f"""\
name: "{NAME}" backend: "python" max_batch_size: 8 default_model_filename: "model.py"
{_TENSORS}
version_policy {{ latest {{ num_versions: 2 }} }}
dynamic_batching {{
  preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 priority_levels: 3 default_priority_level: 2
  default_queue_policy {{ timeout_action: DELAY default_timeout_microseconds: 50 max_queue_size: 9 }}
  priority_queue_policy {{ key: 1 value {{ timeout_action: REJECT allow_timeout_override: true }} }}
}}
instance_group [ {{ name: "a" kind: KIND_CPU count: 1 }}, {{ kind: KIND_MODEL passive: false host_policy: "p" }} ]
parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value {{ string_value: "no" }} }}
metric_tags {{ key: "team" value: "search" }}
response_cache {{ enable: true }}
""",
    f"""\
name: "{NAME}" backend: "python" max_batch_size: 4
input {{ name: "x" data_type: TYPE_FP16 dims: 3 dims: 2 dims: 2 format: FORMAT_NCHW }}
output {{ name: "y" data_type: TYPE_BF16 dims: [ 1 ] reshape {{ shape: [ ] }} }}
sequence_batching {{
  max_sequence_idle_microseconds: 1000
  direct {{ max_queue_delay_microseconds: 5 minimum_slot_utilization: 0.5 }}
  control_input [ {{ name: "start" control [ {{ kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] }} ] }},
                  {{ name: "end" control [ {{ kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] }} ] }},
                  {{ name: "id" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }} ]
  state [ {{ input_name: "in" output_name: "out" data_type: TYPE_FP32 dims: [ -1 ]
            initial_state {{ name: "first" data_type: TYPE_FP32 dims: [ 2 ] data_file: "zero" }} }} ]
}}
model_transaction_policy {{ decoupled: true }}
""",
    f"""\
name: "{NAME}" backend: "python" max_batch_size: 0
input [ {{ name: "x" data_type: TYPE_INT32 dims: [ 2, -1 ] }}, {{ name: "z" data_type: TYPE_BOOL dims: [ 1 ] }} ]
output [ {{ name: "y" data_type: TYPE_UINT8 dims: [ 4 ] reshape {{ shape: [ 2, 2 ] }} }} ]
sequence_batching {{ oldest {{ max_candidate_sequences: 4 preserve_ordering: true }} iterative_sequence: true }}
model_warmup [ {{ name: "w" batch_size: 1 count: 2
  inputs {{ key: "x" value {{ data_type: TYPE_INT32 dims: [ 2, 3 ] random_data: true }} }}
  inputs {{ key: "z" value {{ data_type: TYPE_BOOL dims: [ 1 ] input_data_file: "bits" }} }} }} ]
version_policy: {{ specific {{ versions: [ 1, 3 ] }} }}
optimization {{ graph {{ level: 1 }} priority: PRIORITY_MAX cuda {{ graphs: true graph_spec [ {{ batch_size: 1 }} ] }}
  execution_accelerators {{ cpu_execution_accelerator [ {{ name: "openvino" }} ] }} eager_batching: true }}
""",
    f"""\
backend: "python"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }} ]
batch_input [ {{ kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "sum" data_type: TYPE_FP32 source_input: "x" }},
              {{ kind: BATCH_ITEM_SHAPE target_name: [ "shape" ] data_type: TYPE_INT32 source_input: [ "x" ] }} ]
output [ {{ name: "{NAME}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
batch_output [ {{ target_name: [ "{NAME}" ] kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }} ]
instance_group [ {{ count: 1 rate_limiter {{ resources [ {{ name: "R" global: true count: 2 }} ] priority: 3 }} }} ]
version_policy {{ all {{ }} }} runtime: "libtriton_python.so"
cc_model_filenames {{ key: "8.0" value: "a.plan" }}
""",
    f"""\
name: "{NAME}" platform: "ensemble" max_batch_size: 2
input [ {{ name: "a" data_type: TYPE_STRING dims: [ 1 ] }}, {{ name: "b" data_type: TYPE_FP32 dims: [ -1, 2 ] }} ]
output [ {{ name: "c" data_type: TYPE_INT64 dims: [ 5 ] }} ]
ensemble_scheduling {{ step [
  {{ model_name: "{NAME}_one" model_version: -1
     input_map {{ key: "i" value: "a" }} output_map {{ key: "o" value: "m" }} output_map {{ key: "p" value: "n" }} }},
  {{ model_name: "{NAME}_two" model_version: 1
     input_map {{ key: "i" value: "m" }} input_map {{ key: "j" value: "b" }} output_map {{ key: "o" value: "q" }} }},
  {{ model_name: "{NAME}_one" model_version: -1
     input_map [ {{ key: "r" value: "n" }}, {{ key: "s" value: "q" }} ] output_map {{ key: "t" value: "c" }} }} ] }}
parameters [ {{ key: "k" value {{ string_value: 'it\\'s' }} }} ]
""",
)
_VOCABULARY = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "8",
        "-2",
        "1e3",
        "0x4",
        "04",
        "0b1",
        "+1",
        "1_0",
        "99999999999999999999",
        "nan",
        "inf",
    ),
    *(
        '""',
        '"x"',
        '"y"',
        '"\\q"',
        '"é"',
        '"../x"',
        '"."',
        '"ensemble"',
        '"a b"',
        "'",
        '"',
        "#",
        "\\",
        "\n",
        "\0",
        "\x1c",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        ";",
        "<",
        ">",
        "=",
        "true",
        "false",
        "t",
        "True",
        "TYPE_INVALID",
        "TYPE_FP32",
        "99",
    ),
    *("KIND_CPU", "KIND_GPU", "KIND_MODEL", "DELAY", "zero_data: true", "dims: [ ]", "reshape { }", "\u00a0", "\ufeff"),
    *(
        "optional: true",
        "is_shape_tensor: true",
        "priority_levels: 2",
        "preserve_ordering: true",
        "dynamic_batching { }",
    ),
    *(
        "model_metrics { }",
        "version_policy { }",
        "sequence_batching { }",
        "instance_group [ { } ]",
        "model_warmup [ { } ]",
    ),
    *("[[source]]", "[targets]", "true", "1979-05-27", "1e999", '"""', "'''", "..", "x" * 300, "9" * 5000, "[" * 2000),
)
_TOKEN = re.compile(r"\w+|\s+|\"[^\"\n]*\"|.", re.DOTALL)
_STATEMENT = re.compile(r"\w+ *:? *(?:\{[^{}]*\}|\[[^\[\]]*\]|\"[^\"\n]*\"|[\w.-]+)|^.*=.*$|^\[.*\]$", re.MULTILINE)
_NUMBER = re.compile(r"-?\d{1,19}")


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A mutated text. `model` is the name that the model had in it, and the folder's; `origin` tells seeds apart."""

    model: str
    filename: str
    text: str
    origin: str


def seeds(repository: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return name and text of all specs and of all configs: those of `repository`, and hand-made configs."""
    specs = [(path.parent.name, path.read_text()) for path in sorted(repository.glob(f"*/{SPEC}"))]
    configs = []
    for path in sorted(repository.glob(f"*/{CONFIG}")):
        text = path.read_text().replace(f'name: "{path.parent.name}"', f'name: "{NAME}"')
        configs.append((path.parent.name, re.sub(r'(model_name: ")', rf"\1{NAME}_", text)))
    return specs, configs + [(f"hand-made {number}", text) for number, text in enumerate(HAND_MADE, 1)]


def fuzzed(repository: Path, seed: int, count: int) -> list[Fuzzed]:
    """Return `count` mutated texts, configs and specs in turn, two configs to a spec."""
    specs, configs = seeds(repository)
    texts = []
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        is_spec = index % 3 == 2
        origin, text = rng.choice(specs if is_spec else configs)
        model = origin if is_spec else f"fuzzed_{index}"
        others = [other for _, other in (specs if is_spec else configs)]
        mutated = _mutated(text.replace(NAME, model), others, rng)
        texts.append(Fuzzed(model, SPEC if is_spec else CONFIG, mutated, origin))
    return texts


def _mutated(text: str, others: Sequence[str], rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        text = rng.choice(_MUTATIONS)(text, others, rng)
    return text


def _characters(text: str, _others: Sequence[str], rng: random.Random) -> str:
    start = rng.randint(0, len(text))
    end = min(len(text), start + rng.randint(0, 3))
    piece = rng.choice(
        ("", "", text[start:end] * 2, chr(rng.randint(0, 0x250)), rng.choice("{}[]\"':,0123456789-#\\ \n"))
    )
    return text[:start] + piece + text[end:]


def _tokens(text: str, _others: Sequence[str], rng: random.Random) -> str:
    tokens = _TOKEN.findall(text)
    at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    match rng.randrange(4):
        case 0:
            tokens[at] = rng.choice(_VOCABULARY)
        case 1:
            tokens[at] = tokens[other]
        case 2:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case _:
            tokens.insert(at, f" {rng.choice(_VOCABULARY)} ")
    return "".join(tokens)


def _numbers(text: str, _others: Sequence[str], rng: random.Random) -> str:
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    match = rng.choice(found)
    value = int(match.group())
    changed = rng.choice((0, 1, 2, 3, -1, value + 1, value - 1, value * 2, -value, 2**31, 2**63))
    return f"{text[: match.start()]}{changed}{text[match.end() :]}"


def _statements(text: str, others: Sequence[str], rng: random.Random) -> str:
    """Drop a whole statement, double it, or put one of another text in its place or beside it."""
    found = list(_STATEMENT.finditer(text))
    if not found:
        return text
    match = rng.choice(found)
    foreign = rng.choice([other.group() for other in _STATEMENT.finditer(rng.choice(others))])
    piece = rng.choice(("", f"{match.group()}\n{match.group()}", foreign, f"{match.group()}\n{foreign}"))
    return text[: match.start()] + piece + text[match.end() :]


_MUTATIONS: tuple[Callable[[str, Sequence[str], random.Random], str], ...] = (
    _characters,
    _tokens,
    _numbers,
    _statements,
    _statements,
)
