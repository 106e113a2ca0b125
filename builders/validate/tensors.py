"""Rules about `input` and `output`, their shapes, and the tensors that Triton makes of a batch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import prod

from builders.model_config import BatchTensor, ModelConfig, TensorConfig
from builders.validate.paths import path_problem

_BATCH_TYPES = ("TYPE_INT32", "TYPE_FP32")
_IMAGE_FORMATS = ("FORMAT_NHWC", "FORMAT_NCHW")
_IMAGE_RANK = 3


def problems(config: ModelConfig) -> Iterator[str]:
    """Yield what is wrong, one sentence each."""
    for kind, tensors in (("input", config.inputs), ("output", config.outputs)):
        for name, count in sorted(Counter(tensor.name for tensor in tensors).items()):
            if count > 1:  # Triton takes the first without a word
                yield f"{kind} '{name}' is declared {count} times"
        for tensor in tensors:
            yield from _tensor(kind, tensor, config)
    inputs = {tensor.name for tensor in config.inputs}
    outputs = {tensor.name for tensor in config.outputs}
    for made in config.batch_inputs:
        yield from _sources("batch_input", made, inputs)
        if made.data_type not in _BATCH_TYPES:
            yield f"a batch_input has data_type {made.data_type}; it must be {' or '.join(_BATCH_TYPES)}"
    for made in config.batch_outputs:
        yield from _sources("batch_output", made, inputs)
        yield from _targets(made, outputs)


def _tensor(kind: str, tensor: TensorConfig, config: ModelConfig) -> Iterator[str]:
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
    if tensor.reshape is not None:
        yield from _reshape(kind, tensor, tensor.reshape, config)
    if tensor.format in _IMAGE_FORMATS and len(tensor.dims) != _IMAGE_RANK:
        yield f"{kind} '{tensor.name}' has format {tensor.format}, which needs {_IMAGE_RANK} dims"
    if tensor.is_shape_tensor and not config.is_tensorrt:
        yield f"{kind} '{tensor.name}' has is_shape_tensor, which only a TensorRT model can have"
    if tensor.is_non_linear_format_io and not config.is_tensorrt:
        yield f"{kind} '{tensor.name}' has is_non_linear_format_io, which only a TensorRT model can have"
    elif tensor.is_non_linear_format_io and len(tensor.dims) != _IMAGE_RANK:
        yield f"{kind} '{tensor.name}' has is_non_linear_format_io, which needs {_IMAGE_RANK} dims"
    problem = path_problem(tensor.label_filename) if tensor.label_filename else None
    if problem is not None:
        yield f"{kind} '{tensor.name}': label_filename '{tensor.label_filename}' {problem}"


def _reshape(kind: str, tensor: TensorConfig, shape: tuple[int, ...], config: ModelConfig) -> Iterator[str]:
    if not shape and config.max_batch_size == 0:
        yield f"{kind} '{tensor.name}' has an empty reshape, which needs max_batch_size of at least 1"
    elif any(dim == 0 or dim < -1 for dim in shape):
        yield f"{kind} '{tensor.name}' has a reshape with another dimension than -1 (any) or 1 and above"
    elif _between_dynamic(tensor.dims) != _between_dynamic(shape):
        # Elements are counted between the dynamic dimensions: [2, 4, -1, 6] can become [8, -1, 1, 6].
        yield f"{kind} '{tensor.name}' cannot be reshaped from {list(tensor.dims)} to {list(shape)}: sizes differ"


def _between_dynamic(dims: Sequence[int]) -> list[int]:
    """Return the number of elements of each run of fixed dimensions: one run more than there are dynamic ones."""
    runs: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            runs.append([])
        else:
            runs[-1].append(dim)
    return [prod(run) for run in runs]


def _sources(kind: str, made: BatchTensor, inputs: set[str]) -> Iterator[str]:
    if len(made.source_input) != 1:
        yield f"a {kind} of kind {made.kind} needs one source_input; it has {len(made.source_input)}"
    yield from (
        f"a {kind} reads '{name}', which is no input of the model" for name in made.source_input if name not in inputs
    )


def _targets(made: BatchTensor, outputs: set[str]) -> Iterator[str]:
    if not made.target_name:  # Triton dies of it
        yield "a batch_output names no target_name"
    for name, count in sorted(Counter(made.target_name).items()):
        if name not in outputs:
            yield f"a batch_output writes '{name}', which is no output of the model"
        elif count > 1:
            yield f"a batch_output names its target '{name}' {count} times"
