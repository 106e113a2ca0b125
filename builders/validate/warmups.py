"""Rules about `model_warmup`: requests that Triton makes up at load, and refuses the load for if they do not fit."""

from collections.abc import Iterator

from builders.model_config import ModelConfig, TensorConfig, Warmup, WarmupInput
from builders.validate.paths import path_problem


def problems(config: ModelConfig) -> Iterator[str]:
    """Yield what is wrong, one sentence each."""
    for sample in config.warmups:
        if sample.batch_size:
            yield from (f"model_warmup '{sample.name}' {problem}" for problem in _sample(sample, config))


def _sample(sample: Warmup, config: ModelConfig) -> Iterator[str]:
    if sample.batch_size > max(config.max_batch_size, 1):
        yield f"has batch_size {sample.batch_size}; max_batch_size is {config.max_batch_size}"
    if not sample.inputs and config.inputs:
        yield "has no inputs"
    declared = {tensor.name: tensor for tensor in config.inputs}
    for name, tensor in sorted(declared.items()):
        if not tensor.optional and name not in sample.inputs:
            yield f"leaves out input '{name}', which is not optional"
    for name, given in sorted(sample.inputs.items()):
        yield from _input(name, given, declared.get(name))


def _input(name: str, given: WarmupInput, tensor: TensorConfig | None) -> Iterator[str]:
    if not given.source:
        yield f"gives input '{name}' no data; set zero_data, random_data or input_data_file"
    problem = path_problem(given.input_data_file) if given.source == "input_data_file" else None
    if problem is not None:
        yield f"gives input '{name}' the file '{given.input_data_file}', which {problem}"
    if any(dim < 0 for dim in given.dims):
        yield f"gives input '{name}' a dimension below 0; its shape must be fixed"
    elif tensor is not None and not _fits(given.dims, tensor.dims):
        yield f"gives input '{name}' the shape {list(given.dims)}; it takes {list(tensor.dims)}"
    if given.data_type == "TYPE_INVALID":  # of a name that is no input, Triton dies
        yield f"gives input '{name}' no data_type"
    elif tensor is not None and given.data_type != tensor.data_type:
        yield f"gives input '{name}' {given.data_type}; it takes {tensor.data_type}"


def _fits(dims: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(dims) == len(declared) and all(known in (-1, dim) for dim, known in zip(dims, declared, strict=True))
