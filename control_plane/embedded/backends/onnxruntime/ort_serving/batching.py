"""From requests to the tensors of one session call, and from its outputs back to each request's. Pure.

Everything that the configuration decides is worked out once, in `BatchPlan`; `runner` then calls it for each batch.
Arrays pass through uncopied when a batch holds one request; outputs are cut as views.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .datatypes import Array
from .errors import RunError
from .model_config import BatchInputConfig, OutputConfig, ServedModel
from .ragged import batch_input, flattened, scattered
from .signature import ModelSignature

Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request by name, batch dimension first, and the names of the outputs it asks for."""

    inputs: Tensors
    wanted: frozenset[str]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How the tensors of a model are joined and cut."""

    batched: bool
    ragged: frozenset[str]
    scalars: frozenset[str]
    """Inputs without dimensions in the model, which arrive as one element with dimensions."""
    derived: tuple[BatchInputConfig, ...]
    outputs: Mapping[str, OutputConfig]


def batch_plan(model: ServedModel, signature: ModelSignature) -> BatchPlan:
    """Work out the plan of a checked model."""
    tensors = signature.inputs | signature.overridable
    return BatchPlan(
        batched=model.batched,
        ragged=frozenset(config.name for config in model.inputs if config.ragged),
        scalars=frozenset(name for name, tensor in tensors.items() if not tensor.dims),
        derived=model.batch_inputs,
        outputs={config.name: config for config in model.outputs},
    )


def alike(plan: BatchPlan, requests: Sequence[Request]) -> list[list[int]]:
    """Group the indices of `requests` that can share one call: equal shapes but for the batch and ragged inputs.

    Triton's dynamic batcher forms such batches by itself; this keeps a batch from failing when it does not.
    """
    if not plan.batched:
        return [[index] for index in range(len(requests))]
    # Every request has the same inputs: `validation` refuses optional ones in a model that batches.
    names = [name for name in requests[0].inputs if name not in plan.ragged]
    groups: dict[object, list[int]] = {}
    for index, request in enumerate(requests):
        inputs = request.inputs
        groups.setdefault(tuple([inputs[name].shape[1:] for name in names]), []).append(index)
    return list(groups.values())


def wanted_outputs(plan: BatchPlan, requests: Sequence[Request]) -> list[str]:
    """Return the outputs that any of `requests` asks for, in the configuration's order."""
    wanted = requests[0].wanted.union(*(request.wanted for request in requests[1:]))
    return [name for name in plan.outputs if name in wanted]


def joined(plan: BatchPlan, requests: Sequence[Request]) -> dict[str, Array]:
    """Build the tensors of one session call from `requests`, which are `alike`.

    Raises:
        RunError: several elements for a scalar input.

    """
    feed: dict[str, Array] = {}
    first = requests[0].inputs
    for name in first:
        arrays = [request.inputs[name] for request in requests]
        if name in plan.ragged:
            feed[name] = flattened(arrays)
        elif name in plan.scalars:
            feed[name] = _scalar(name, arrays)
        else:
            feed[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    for entry in plan.derived:
        values = batch_input(entry, [request.inputs[entry.source].shape for request in requests])
        feed |= dict.fromkeys(entry.targets, values)
    return feed


def _scalar(name: str, arrays: Sequence[Array]) -> Array:
    if len(arrays) > 1 or arrays[0].size != 1:
        sizes = [array.size for array in arrays]
        raise RunError(f"input '{name}' is a scalar in the model, got {sizes} elements", invalid_argument=True)
    return arrays[0].reshape(())


def split(plan: BatchPlan, outputs: Iterable[tuple[str, Array]], requests: Sequence[Request]) -> list[dict[str, Array]]:
    """Cut each output into the parts of `requests`; a request gets the outputs that it asked for.

    Raises:
        RunError: an output does not have as many items as the requests together.

    """
    answers: list[dict[str, Array]] = [{} for _ in requests]
    sizes = _batch_sizes(requests) if plan.batched else None
    for name, values in outputs:
        config = plan.outputs[name]
        array = values if values.ndim else values.reshape(config.dims or (1,))
        if config.scatter_by is not None:
            shapes = [request.inputs[config.scatter_by].shape for request in requests]
            parts = scattered(config, array, shapes, batched=plan.batched)
        else:
            parts = [array] if sizes is None else _cut(name, array, sizes)
        for answer, request, part in zip(answers, requests, parts, strict=True):
            if name in request.wanted:
                answer[name] = part
    return answers


def _batch_sizes(requests: Sequence[Request]) -> list[int]:
    return [next(iter(request.inputs.values())).shape[0] for request in requests]


def _cut(name: str, array: Array, sizes: Sequence[int]) -> list[Array]:
    total = sum(sizes)
    if array.shape[0] != total:
        raise RunError(
            f"output '{name}' cannot be split among the requests: batch size {total} is expected, "
            f"the model gave shape {list(array.shape)}",
            invalid_argument=False,
        )
    if len(sizes) == 1:
        return [array]
    parts = []
    start = 0
    for size in sizes:
        parts.append(array[start : start + size])
        start += size
    return parts
