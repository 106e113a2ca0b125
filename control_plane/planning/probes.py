"""A request that any model can be sent, made from its config alone: to find one that cannot answer at all. Pure."""

from collections.abc import Mapping
from math import prod
from typing import Any

from builders.model_config import ModelConfig, TensorConfig

MOST_VALUES = 4_000_000
"""A request with more is not made: it would be kept and sent every few seconds. An image of a megapixel has fewer."""


def dummy_inputs(config: ModelConfig) -> tuple[Mapping[str, Any], ...]:
    """Return the tensors of the smallest request that fits the config, as KServe v2's JSON has them.

    Every open dimension is 1, every element zero or an empty text; inputs that are optional are left out. Empty where
    no such request can be made: every input is optional, or they are too large.
    """
    batch = (1,) if config.max_batch_size > 0 else ()
    shapes = {
        tensor.name: (*batch, *(1 if size < 0 else size for size in tensor.dims))
        for tensor in config.inputs
        if not tensor.optional
    }
    if sum(map(prod, shapes.values())) > MOST_VALUES:
        return ()
    return tuple(_zeros(tensor, shapes[tensor.name]) for tensor in config.inputs if tensor.name in shapes)


def _zeros(tensor: TensorConfig, shape: tuple[int, ...]) -> Mapping[str, Any]:
    datatype = tensor.data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
    zero: Any = {"BYTES": "", "BOOL": False}.get(datatype, 0)
    return {"name": tensor.name, "datatype": datatype, "shape": list(shape), "data": [zero] * prod(shape)}
