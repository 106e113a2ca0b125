"""ModelConfig between text and data: the only module that touches Triton's protobuf messages.

The messages come from `tritonclient`, so the fields known here are those of the client that is installed, less those
that the oldest Triton of the fleet does not know; any other is an error, as it is in Triton itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from builders import model_config as data
from builders.errors import ConfigError
from builders.text_format import text_problem

OLDEST_TRITON = "2.51 (release 24.10)"
NEWER_FIELDS = frozenset({"inference.ModelConfig.model_metrics", "inference.ModelEnsembling.max_inflight_requests"})
"""Fields that OLDEST_TRITON does not know, from its own `model_config.proto`; it refuses a config that has one."""

Json = dict[str, Any]
Untyped = Any
"""A message, a descriptor or an enum of protobuf, which have no types of their own."""


def parse_config(text: str, *, path: str) -> data.ModelConfig:
    """Return the ModelConfig in `text`; `path` is where it came from, for messages. Raises ConfigError."""
    message = _parse_message(text, path)
    try:
        return _config(message)
    except ValueError as exc:  # an enum's number that is none of its values: text format takes any
        raise ConfigError(path, str(exc)) from exc


def to_json(
    text: str,
    *,
    path: str,
    versions: Sequence[int],
    instances: int | None = None,
    gpus: int = 0,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Return the whole config as JSON with `version_policy` set to exactly `versions`.

    This is the form of the load call's `config` parameter, which replaces the file's config on that server. Field names
    are the proto's own; keys are sorted, so the same text gives the same bytes. `instances` is how many there are to be
    in all, by the first instance group (an ensemble has none, and takes no notice), spread evenly over the server's
    `gpus` where it has several: Triton makes `count` instances on each GPU of a group. `parameters` are set beside
    those of the text. Raises ConfigError.
    """
    message = _parse_message(text, path)
    message.version_policy.Clear()
    message.version_policy.specific.versions.extend(sorted(versions))
    is_ensemble = message.platform == "ensemble" or message.HasField("ensemble_scheduling")
    if instances is not None and not is_ensemble:
        del message.instance_group[1:]
        group = message.instance_group[0] if message.instance_group else message.instance_group.add()
        if gpus > 1 and _instance_kind(group.kind) in {"KIND_AUTO", "KIND_GPU"}:
            _spread(message, instances, list(group.gpus) or list(range(gpus)))
        else:
            group.count = instances
    for name, value in (parameters or {}).items():
        message.parameters[name].string_value = value
    text_form: str = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None, sort_keys=True)
    return text_form


def _spread(message: Untyped, instances: int, gpus: list[int]) -> None:
    """Have so many instances in all on these GPUs, the first ones with one more where it does not come out even."""
    each, rest = divmod(instances, len(gpus))
    first = message.instance_group[0]
    first.kind = type(first).KIND_GPU
    parts = [(count, on) for count, on in ((each, gpus), (1, gpus[:rest])) if count and on]
    for number, (count, on) in enumerate(parts):
        group = first
        if number:
            group = message.instance_group.add()
            group.CopyFrom(first)
            group.ClearField("name")
        group.count = count
        del group.gpus[:]
        group.gpus.extend(on)


def from_json(config: Mapping[str, Any], *, header: str, where: str) -> str:
    """Return `config` (ModelConfig's own field names) as text below the comment line `header`: same data, same bytes.

    `where` names the origin in messages. Raises ConfigError for a field that is unknown or has a value of another type.
    """
    message = model_config_pb2.ModelConfig()
    try:
        json_format.ParseDict(dict(config), message)
    except json_format.ParseError as exc:
        raise ConfigError(where, " ".join(str(exc).split())) from exc
    _check_newer(message, where)
    body = text_format.MessageToString(message, as_utf8=True, use_short_repeated_primitives=True)
    return f"# {header}\n{body}"


def merge(base: Mapping[str, Any], layer: Mapping[str, Any], *, where: str) -> Json:
    """Return `base` with `layer` laid over it: messages are merged, anything else is replaced.

    Entries of `input` and `output` are matched by name. A member of a `oneof` replaces another one (`dynamic_batching`
    takes the place of `sequence_batching`). Raises ConfigError for a field that ModelConfig does not have.
    """
    return _merge(model_config_pb2.ModelConfig.DESCRIPTOR, base, layer, where, "")


def _merge(descriptor: Untyped, base: Mapping[str, Any], layer: Mapping[str, Any], where: str, path: str) -> Json:
    merged = dict(base)
    for name, value in layer.items():
        field = descriptor.fields_by_name.get(name)
        if field is None:
            raise ConfigError(where, _unknown(f"{path}{name}", name, descriptor.fields_by_name))
        if field.containing_oneof is not None:
            for other in field.containing_oneof.fields:
                if other.name != name:
                    merged.pop(other.name, None)
        merged[name] = _merged_value(field, merged.get(name), value, where, f"{path}{name}")
    return merged


def _merged_value(field: Untyped, old: Untyped, new: Untyped, where: str, path: str) -> Untyped:
    kind = field.message_type
    if kind is None:
        return new
    if kind.GetOptions().map_entry:
        if not isinstance(new, Mapping):
            raise ConfigError(where, f"{path} must be a table")
        value = kind.fields_by_name["value"]
        known = old or {}
        return {**known, **{key: _merged_value(value, known.get(key), new[key], where, f"{path}.{key}") for key in new}}
    if field.is_repeated:
        if not isinstance(new, Sequence) or not all(isinstance(entry, Mapping) for entry in new):
            raise ConfigError(where, f"{path} must be a list of tables")
        entries = [_merge(kind, {}, entry, where, f"{path}.") for entry in new]
        return _by_name(kind, old or [], entries, where, path) if path in ("input", "output") else entries
    if not isinstance(new, Mapping):
        raise ConfigError(where, f"{path} must be a table")
    return _merge(kind, old or {}, new, where, f"{path}.")


def _by_name(kind: Untyped, old: Sequence[Json], new: Sequence[Json], where: str, path: str) -> list[Json]:
    entries = {entry["name"]: entry for entry in old}
    for entry in new:
        name = entry.get("name")
        if not isinstance(name, str):
            raise ConfigError(where, f"an entry of {path} has no name")
        entries[name] = _merge(kind, entries.get(name, {}), entry, where, f"{path}.")
    return list(entries.values())


def _unknown(path: str, name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
    return f"ModelConfig has no field {path}{meant}"


def _parse_message(text: str, path: str) -> Untyped:
    found = text_problem(text)
    if found is not None:
        line, problem = found
        raise ConfigError(path, problem, line)
    try:
        message = text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as exc:
        problem = str(exc).split(" : ", 1)[-1]
        raise ConfigError(path, problem, exc.GetLine()) from exc
    except ValueError as exc:  # protobuf lets this one of its own through: an enum's number beyond 32 bits
        raise ConfigError(path, str(exc)) from exc
    _check_newer(message, path)
    return message


def _check_newer(message: Untyped, where: str) -> None:
    for name in _set_fields(message):
        if name in NEWER_FIELDS:
            field = name.rpartition(".")[2]
            raise ConfigError(where, f"Triton {OLDEST_TRITON} does not know the field {field}; leave it out")


def _set_fields(message: Untyped) -> Iterator[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if field.is_repeated else [value]:
                yield from _set_fields(part)


_data_type: Callable[[int], str] = model_config_pb2.DataType.Name
_instance_kind: Callable[[int], str] = model_config_pb2.ModelInstanceGroup.Kind.Name
_format: Callable[[int], str] = model_config_pb2.ModelInput.Format.Name
_batch_input_kind: Callable[[int], str] = model_config_pb2.BatchInput.Kind.Name
_batch_output_kind: Callable[[int], str] = model_config_pb2.BatchOutput.Kind.Name
_control_kind: Callable[[int], str] = model_config_pb2.ModelSequenceBatching.Control.Kind.Name
_timeout_action: Callable[[int], str] = model_config_pb2.ModelQueuePolicy.TimeoutAction.Name


def _config(message: Untyped) -> data.ModelConfig:
    policy = message.version_policy
    return data.ModelConfig(
        name=message.name,
        backend=message.backend,
        platform=message.platform,
        runtime=message.runtime,
        max_batch_size=message.max_batch_size,
        inputs=tuple(_tensor(entry) for entry in message.input),
        outputs=tuple(_tensor(entry) for entry in message.output),
        batch_inputs=tuple(
            data.BatchTensor(
                _batch_input_kind(entry.kind),
                tuple(entry.target_name),
                tuple(entry.source_input),
                _data_type(entry.data_type),
            )
            for entry in message.batch_input
        ),
        batch_outputs=tuple(
            data.BatchTensor(_batch_output_kind(entry.kind), tuple(entry.target_name), tuple(entry.source_input))
            for entry in message.batch_output
        ),
        instance_groups=tuple(
            data.InstanceGroup(
                kind=_instance_kind(group.kind),
                count=max(group.count, 1),  # Triton takes anything below one for its default
                gpus=tuple(group.gpus),
                profile=tuple(group.profile),
            )
            for group in message.instance_group
        ),
        version_policy=data.VersionPolicy(
            policy.WhichOneof("policy_choice") or "", policy.latest.num_versions, tuple(policy.specific.versions)
        ),
        dynamic_batching=_dynamic(message.dynamic_batching) if message.HasField("dynamic_batching") else None,
        sequence_batching=_sequence(message.sequence_batching) if message.HasField("sequence_batching") else None,
        has_ensemble_scheduling=message.HasField("ensemble_scheduling"),
        ensemble_steps=tuple(
            data.EnsembleStep(step.model_name, step.model_version, dict(step.input_map), dict(step.output_map))
            for step in message.ensemble_scheduling.step
        ),
        default_model_filename=message.default_model_filename,
        decoupled=message.model_transaction_policy.decoupled,
        response_cache=message.response_cache.enable,
        has_optimization=message.HasField("optimization"),
        warmups=tuple(_warmup(entry) for entry in message.model_warmup),
        metric_tags=dict(message.metric_tags),
        agents=tuple(agent.name for agent in message.model_repository_agents.agents)
        if message.HasField("model_repository_agents")
        else None,
        parameters={key: value.string_value for key, value in message.parameters.items()},
    )


def _tensor(entry: Untyped) -> data.TensorConfig:
    is_input = isinstance(entry, model_config_pb2.ModelInput)
    return data.TensorConfig(
        name=entry.name,
        data_type=_data_type(entry.data_type),
        dims=tuple(entry.dims),
        optional=is_input and entry.optional,
        reshape=tuple(entry.reshape.shape) if entry.HasField("reshape") else None,
        format=_format(entry.format) if is_input else "FORMAT_NONE",
        is_shape_tensor=entry.is_shape_tensor,
        is_non_linear_format_io=entry.is_non_linear_format_io,
        label_filename="" if is_input else entry.label_filename,
    )


def _dynamic(message: Untyped) -> data.DynamicBatching:
    return data.DynamicBatching(
        preferred_batch_size=tuple(message.preferred_batch_size),
        preserve_ordering=message.preserve_ordering,
        priority_levels=message.priority_levels,
        default_priority_level=message.default_priority_level,
        default_queue_policy=_queue(message.default_queue_policy),
        priority_queue_policy={level: _queue(policy) for level, policy in message.priority_queue_policy.items()},
    )


def _queue(message: Untyped) -> data.QueuePolicy:
    return data.QueuePolicy(_timeout_action(message.timeout_action), message.default_timeout_microseconds)


def _sequence(message: Untyped) -> data.SequenceBatching:
    return data.SequenceBatching(
        control_inputs=tuple(
            (entry.name, tuple(_control(control) for control in entry.control)) for entry in message.control_input
        ),
        states=tuple(
            data.SequenceState(
                input_name=state.input_name,
                data_type=_data_type(state.data_type),
                dims=tuple(state.dims),
                initial_state=tuple(
                    data.InitialState(
                        name=initial.name,
                        data_type=_data_type(initial.data_type),
                        dims=tuple(initial.dims),
                        source=initial.WhichOneof("state_data") or "",
                        data_file=initial.data_file,
                    )
                    for initial in state.initial_state
                ),
            )
            for state in message.state
        ),
        minimum_slot_utilization=message.direct.minimum_slot_utilization,
        oldest_preferred_batch_size=tuple(message.oldest.preferred_batch_size),
    )


def _control(message: Untyped) -> data.SequenceControl:
    lists = ("int32_false_true", "fp32_false_true", "bool_false_true")
    given = {name: len(getattr(message, name)) for name in lists}
    return data.SequenceControl(
        _control_kind(message.kind), _data_type(message.data_type), {name: size for name, size in given.items() if size}
    )


def _warmup(message: Untyped) -> data.Warmup:
    return data.Warmup(
        name=message.name,
        batch_size=message.batch_size,
        inputs={
            name: data.WarmupInput(
                data_type=_data_type(entry.data_type),
                dims=tuple(entry.dims),
                source=entry.WhichOneof("input_data_type") or "",
                input_data_file=entry.input_data_file,
            )
            for name, entry in message.inputs.items()
        },
    )
