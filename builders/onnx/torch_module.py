"""Any PyTorch module with its tensors in order, as `torch_export` wants classifiers and callables. Imports PyTorch.

What is exported and what answers the reference set are the same module.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from builders.errors import SourceError
from builders.onnx.torch_export import first_line
from builders.reference import Tensors


class OrderedModule(nn.Module):
    """Takes tensors in order and gives a tuple of them, whatever `module` takes and gives.

    `keywords` are the names that `module` takes its tensors by, none where it takes them in order. `outputs` are the
    names of what it gives: read by name from a mapping, otherwise in order.
    """

    def __init__(self, module: nn.Module, outputs: Sequence[str], keywords: Sequence[str] = ()) -> None:
        super().__init__()
        self.module = module
        self.outputs = tuple(outputs)
        self.keywords = tuple(keywords)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs."""
        if self.keywords:
            result = self.module(**dict(zip(self.keywords, tensors, strict=True)))
        else:
            result = self.module(*tensors)
        return _in_order(result, self.outputs)


def _in_order(result: object, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    if isinstance(result, Tensor):
        found: tuple[object, ...] = (result,)
    elif isinstance(result, Mapping):
        found = tuple(result[name] for name in names)
    elif isinstance(result, tuple | list):
        found = tuple(result)
    else:
        raise TypeError(f"the model gives {type(result).__name__}; expected tensors")
    tensors = tuple(value for value in found if isinstance(value, Tensor))
    if len(tensors) != len(found) or len(tensors) != len(names):
        raise TypeError(f"the model gives {len(found)} outputs, {len(tensors)} of them tensors; {len(names)} are named")
    return tensors


def answers_of(module: OrderedModule, inputs: Sequence[str]) -> Callable[[Tensors], Tensors]:
    """Return what answers `inputs` by name with the module's outputs by name. It raises SourceError where it cannot."""

    def answer(tensors: Tensors) -> Tensors:
        with torch.no_grad():
            try:
                results = module(*(torch.from_numpy(np.ascontiguousarray(tensors[name])) for name in inputs))
            except Exception as exc:  # whatever the model's own code raises on inputs within the given ranges
                shapes = ", ".join(f"{name} {list(tensors[name].shape)}" for name in inputs)
                raise SourceError(f"the source model cannot take {shapes}: {first_line(exc)}") from exc
        return {name: result.numpy() for name, result in zip(module.outputs, results, strict=True)}

    return answer
