"""ModelConfig between text and data: the only module that touches Triton's protobuf messages.

The messages come from `tritonclient`, so the fields known here are those of the client that is installed; a field it
does not know is an error with its line, as it is in Triton itself.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from builders.errors import ConfigError
from builders.model_config import DynamicBatching, EnsembleStep, InstanceGroup, ModelConfig, TensorConfig


def parse_config(text: str, *, path: str) -> ModelConfig:
    """Return the ModelConfig in `text`; `path` is where it came from, for messages. Raises ConfigError."""
    message = _parse_message(text, path)
    try:
        return _from_message(message)
    except ValueError as exc:  # an enum's number that is none of its values: text format takes any
        raise ConfigError(path, str(exc)) from exc


def to_json(text: str, *, path: str, versions: Sequence[int]) -> str:
    """Return the whole config as JSON with `version_policy` set to exactly `versions`.

    This is the form of the load call's `config` parameter, which replaces the file's config on that server. Field names
    are the proto's own; keys are sorted, so the same text gives the same bytes. Raises ConfigError.
    """
    message = _parse_message(text, path)
    message.version_policy.Clear()
    message.version_policy.specific.versions.extend(sorted(versions))
    text_form: str = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None, sort_keys=True)
    return text_form


def _parse_message(text: str, path: str) -> Any:  # noqa: ANN401 - generated protobuf classes have no types
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as exc:
        problem = str(exc).split(" : ", 1)[-1]
        raise ConfigError(path, problem, exc.GetLine()) from exc


def _from_message(message: Any) -> ModelConfig:  # noqa: ANN401 - generated protobuf classes have no types
    batching = None
    if message.HasField("dynamic_batching"):
        batching = DynamicBatching(
            preferred_batch_size=tuple(message.dynamic_batching.preferred_batch_size),
            max_queue_delay_microseconds=message.dynamic_batching.max_queue_delay_microseconds,
        )
    return ModelConfig(
        name=message.name,
        backend=message.backend,
        platform=message.platform,
        max_batch_size=message.max_batch_size,
        inputs=tuple(_tensor(entry) for entry in message.input),
        outputs=tuple(_tensor(entry) for entry in message.output),
        instance_groups=tuple(
            InstanceGroup(
                kind=model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind),
                count=group.count or 1,
                gpus=tuple(group.gpus),
            )
            for group in message.instance_group
        ),
        dynamic_batching=batching,
        ensemble_steps=tuple(
            EnsembleStep(
                model_name=step.model_name,
                model_version=step.model_version,
                input_map=dict(step.input_map),
                output_map=dict(step.output_map),
            )
            for step in message.ensemble_scheduling.step
        ),
        default_model_filename=message.default_model_filename,
        decoupled=message.model_transaction_policy.decoupled,
        parameters={key: value.string_value for key, value in message.parameters.items()},
    )


def _tensor(entry: Any) -> TensorConfig:  # noqa: ANN401 - generated protobuf classes have no types
    is_input = isinstance(entry, model_config_pb2.ModelInput)
    return TensorConfig(
        name=entry.name,
        data_type=model_config_pb2.DataType.Name(entry.data_type),
        dims=tuple(entry.dims),
        optional=is_input and entry.optional,
        allow_ragged_batch=is_input and entry.allow_ragged_batch,
    )
