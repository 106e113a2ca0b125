"""From a config that was accepted to the question whether a real server takes it too, with all that it asks for.

What a config says of other things than itself cannot be judged by loading it here, and gives no question: a GPU, a
backend or a repository agent that this machine lacks, an environment for Python, sizes that would fill its memory.
"""

import json
from collections.abc import Iterator, Mapping
from math import prod

from builders.model_config import ModelConfig, TensorConfig
from builders.pbtxt import to_json
from tests.config_verdicts import Member, Question

_FILES = ("EXECUTION_ENV_PATH", "TRITON_BATCH_STRATEGY_PATH")
_MANY = 1024
_MOST_INSTANCES = 4
_MOST_BYTES = 1 << 20
_LONGEST_NAME = 100
_WIDEST_TYPE = 8


class NotComparableError(Exception):
    """The config cannot be judged on this machine; says why."""


def question_of(config: ModelConfig, text: str, package: str, *, by_override: bool) -> Question:
    """Return what to ask the server. `by_override`: as the load call's `config`. Raises NotComparableError."""
    for reason, hinders in _hindrances(config, json.loads(to_json(text, path="", versions=[]))):
        if hinders:
            raise NotComparableError(reason)
    named = config.version_policy.versions if config.version_policy.choice == "specific" else ()
    versions = tuple(sorted({1, *(version for version in named if 0 < version < _MANY)}))
    members = _members(config, package) if config.is_ensemble else {}
    override = to_json(text, path="", versions=versions[:1]) if by_override else ""
    return Question(text, members, versions, _files(config), override)


def _hindrances(config: ModelConfig, raw: Mapping[str, object]) -> Iterator[tuple[str, bool]]:
    plain = not config.platform and config.default_model_filename in ("", "model.py")
    yield (
        "another backend than python",
        not (config.is_ensemble or config.backend == "python" or (not config.backend and plain)),
    )
    yield "a GPU", any(group.kind == "KIND_GPU" or group.gpus for group in config.instance_groups)
    yield "too many instances", sum(group.count for group in config.instance_groups) > _MOST_INSTANCES
    yield "a repository agent", config.agents is not None
    yield "files outside of the model", any(name in config.parameters for name in _FILES)
    # Sequence slots, warm-up samples and states are allocated at load.
    sequence = config.sequence_batching is not None or bool(config.warmups)
    yield "too large a batch", sequence and config.max_batch_size > _MANY
    yield "too large numbers", bool(sequence) and any(abs(number) > _MANY for number in _numbers(raw, ""))
    sizes = [prod(given.dims) for sample in config.warmups for given in sample.inputs.values()]
    states = config.sequence_batching.states if config.sequence_batching is not None else ()
    sizes += [prod(initial.dims) for state in states for initial in state.initial_state]
    yield "too much memory", any(size * _WIDEST_TYPE > _MOST_BYTES for size in sizes)


def _numbers(value: object, name: str) -> Iterator[int]:
    """Yield what decides how much is allocated or run."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, key)
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry, name)
    elif name in ("batch_size", "count", "max_candidate_sequences"):
        yield int(str(value))


def _files(config: ModelConfig) -> dict[str, bytes]:
    named = {tensor.label_filename: b"label\n" for tensor in config.outputs if tensor.label_filename}
    if config.is_python and config.default_model_filename not in ("", "model.py"):
        raise NotComparableError("another model file than model.py")
    for sample in config.warmups:
        for given in sample.inputs.values():
            if given.source == "input_data_file":
                _add(named, f"warmup/{given.input_data_file}", given.dims)
    for state in config.sequence_batching.states if config.sequence_batching is not None else ():
        for initial in state.initial_state:
            if initial.source == "data_file":
                _add(named, f"initial_state/{initial.data_file}", initial.dims)
    _check_paths(named)
    return named


def _check_paths(named: Mapping[str, bytes]) -> None:
    for path in named:
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        folders = ("warmup", "initial_state", "1")
        if (
            len(path) > _LONGEST_NAME
            or path in folders
            or any(parent in (*named, "config.pbtxt") for parent in parents)
        ):
            raise NotComparableError("files in each other's way")
        if path in ("config.pbtxt", "1/model.py") or not path.isprintable():
            raise NotComparableError("a file in the model's way")


def _add(named: dict[str, bytes], path: str, dims: tuple[int, ...]) -> None:
    content = bytes(prod(dims) * _WIDEST_TYPE)
    named[path] = max(named.get(path, b""), content, key=len)


def _members(config: ModelConfig, package: str) -> dict[str, Member]:
    """Return a model for every step that fits it: each input optional, since another step may not give it."""
    declared: dict[str, str] = {}
    for tensor in (*config.outputs, *config.inputs):
        declared[tensor.name] = _kind(tensor)
    inputs: dict[str, dict[str, str]] = {}
    outputs: dict[str, dict[str, str]] = {}
    versions: dict[str, set[int]] = {}
    for step in config.ensemble_steps:
        name = step.model_name
        plain = name.isascii() and name.isprintable() and "/" not in name
        if not (plain and name.startswith(package)) or len(name) > _LONGEST_NAME:
            raise NotComparableError("a member's name")
        if step.model_version > _MANY:
            raise NotComparableError("a member's version")
        versions.setdefault(name, set()).add(max(step.model_version, 1))
        for mapped, known in ((step.input_map, inputs), (step.output_map, outputs)):
            for own, outer in mapped.items():
                kind = declared.get(outer, "data_type: TYPE_FP32 dims: [ -1 ]")
                if known.setdefault(name, {}).setdefault(own, kind) != kind:
                    raise NotComparableError("a member with one tensor of two kinds")
    return {
        name: Member(_member_text(config, inputs.get(name, {}), outputs.get(name, {})), tuple(sorted(versions[name])))
        for name in versions
    }


def _kind(tensor: TensorConfig) -> str:
    dims = tensor.dims if tensor.reshape is None else tensor.reshape
    if not dims:
        raise NotComparableError("an ensemble's tensor without dimensions")
    return f"data_type: {tensor.data_type} dims: {list(dims)}"


def _member_text(config: ModelConfig, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    lines = [f'backend: "python" max_batch_size: {config.max_batch_size} version_policy {{ all {{ }} }}']
    lines += [f"input {{ name: {json.dumps(name)} {kind} optional: true }}" for name, kind in inputs.items()]
    lines += [f"output {{ name: {json.dumps(name)} {kind} }}" for name, kind in outputs.items()]
    return "\n".join(lines)
