"""Rules that make Triton refuse a config with nothing but "failed to poll from model repository", checked beforehand.

Pure. Triton writes the reason to its log alone (`model_config_utils.cc`, `ValidateModelConfig`), so the control plane
and `tritonfleet build` ask here first and tell the user. The rules below are those a first repository meets; what is
not listed is still caught by the server and its log.
"""

from collections import Counter
from collections.abc import Iterator

from builders.model_config import ModelConfig, TensorConfig

_RESERVED_IN_NAMES = "/\\"


def config_problems(config: ModelConfig, *, package: str) -> list[str]:
    """Return what is wrong with `config` as the config of the folder `package`: one sentence each, in a fixed order."""
    return [*_naming(config, package), *_batching(config), *_tensors(config), *_ensemble(config)]


def _naming(config: ModelConfig, package: str) -> Iterator[str]:
    if config.name and config.name != package:
        yield f"name: \"{config.name}\" differs from the folder's name '{package}'; Triton loads a model by its folder"
    if any(character in package for character in _RESERVED_IN_NAMES):
        yield f"'{package}': a model's name may not contain a slash"


def _batching(config: ModelConfig) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}; it must be 0 (no batching) or more"
    batching = config.dynamic_batching
    if batching is not None:
        if config.max_batch_size == 0:
            yield "dynamic_batching needs max_batch_size of at least 1"
        for size in sorted(batching.preferred_batch_size):
            if size <= 0:
                yield f"preferred_batch_size {size} must be positive"
            elif config.max_batch_size and size > config.max_batch_size:
                yield f"preferred_batch_size {size} is above max_batch_size {config.max_batch_size}"
    if config.max_batch_size == 0:
        for tensor in config.inputs:
            if tensor.allow_ragged_batch:
                yield f"input '{tensor.name}' has allow_ragged_batch, which needs max_batch_size of at least 1"


def _tensors(config: ModelConfig) -> Iterator[str]:
    for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
        for name, count in sorted(Counter(tensor.name for tensor in tensors).items()):
            if count > 1:
                yield f"{kind} '{name}' is declared {count} times"
        for tensor in tensors:
            yield from _tensor(kind, tensor)
    if config.is_ensemble:
        if not config.inputs:
            yield "an ensemble must declare at least one input"
        if not config.outputs:
            yield "an ensemble must declare at least one output"


def _tensor(kind: str, tensor: TensorConfig) -> Iterator[str]:
    if not tensor.name:
        yield f"an {kind} has no name"
    if tensor.data_type == "TYPE_INVALID":
        yield f"{kind} '{tensor.name}' has no data_type"
    if not tensor.dims:
        yield f"{kind} '{tensor.name}' has no dims; a scalar is dims: [ 1 ]"
    yield from (
        f"{kind} '{tensor.name}' has dimension {dim}; only -1 (any) or 1 and above are allowed"
        for dim in tensor.dims
        if dim == 0 or dim < -1
    )


def _ensemble(config: ModelConfig) -> Iterator[str]:
    if not config.is_ensemble:
        return
    if not config.ensemble_steps:
        yield "an ensemble must have at least one step in ensemble_scheduling"
    if config.instance_groups:
        yield "an ensemble may not have an instance_group; its members have their own"
    if config.dynamic_batching is not None:
        yield "an ensemble may not have dynamic_batching; its members batch"
    produced = {tensor.name for tensor in config.inputs}
    for step in config.ensemble_steps:
        for name in step.output_map.values():
            if name in produced:
                yield f"tensor '{name}' is produced twice, the second time by step '{step.model_name}'"
            produced.add(name)
    for step in config.ensemble_steps:
        yield from (
            f"step '{step.model_name}' reads tensor '{name}', which no step writes and no input is called"
            for name in sorted(step.input_map.values())
            if name not in produced
        )
    yield from (
        f"output '{tensor.name}' is written by no step" for tensor in config.outputs if tensor.name not in produced
    )
