"""From requests to the tensors of one run, and from its outputs back to each request's. Pure; used by `runner`.

Arrays pass through uncopied when a batch holds one request; outputs are cut as views.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import RunError
from .signature import Array


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request by name, batch dimension first, and the names of the outputs it asks for."""

    inputs: Mapping[str, Array]
    wanted: frozenset[str]


def alike(requests: Sequence[Request], *, batched: bool) -> list[list[int]]:
    """Group the indices of `requests` that can share one run: equal shapes but for the batch dimension.

    Triton's dynamic batcher forms such batches by itself; this keeps a batch from failing when it does not.
    """
    if not batched:
        return [[index] for index in range(len(requests))]
    groups: dict[object, list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(tuple((name, request.inputs[name].shape[1:]) for name in sorted(request.inputs)), []).append(
            index
        )
    return list(groups.values())


def joined(requests: Sequence[Request]) -> dict[str, Array]:
    """Build the tensors of one run from `requests`, which are `alike`."""
    first = requests[0].inputs
    if len(requests) == 1:
        return dict(first)
    return {name: np.concatenate([request.inputs[name] for request in requests]) for name in first}


def split(outputs: Mapping[str, Array], requests: Sequence[Request], *, batched: bool) -> list[dict[str, Array]]:
    """Cut each output into the parts of `requests`; a request gets the outputs that it asked for.

    Raises:
        RunError: an output does not have as many items as the requests together.

    """
    if not batched:
        return [{name: array for name, array in outputs.items() if name in request.wanted} for request in requests]
    sizes = [next(iter(request.inputs.values())).shape[0] for request in requests]
    ends = np.cumsum(sizes).tolist()
    for name, array in outputs.items():
        if array.shape[0] != ends[-1]:
            raise RunError(
                f"output '{name}' cannot be split among the requests: batch size {ends[-1]} is expected, the engine "
                f"gave shape {list(array.shape)}",
                invalid_argument=False,
            )
    return [
        {name: array[end - size : end] for name, array in outputs.items() if name in request.wanted}
        for request, size, end in zip(requests, sizes, ends, strict=True)
    ]
