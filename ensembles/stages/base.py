"""What a stage is: a typed signature and a pure `run` over a batch of requests. `triton_adapter` serves it.

A stage takes each request's tensors as they come and gives each request's tensors or a rejection back, in order. It may
work across the batch (that is why it gets all of it), but one request's data never decides another's answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, Triton data type (`TYPE_FP32`, ...) and dims (-1: any) of a tensor, without the batch dimension."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request that a stage refuses: the sender's fault, told in one sentence. Triton's code is INVALID_ARG."""

    reason: str


class StageConfigError(Exception):
    """A stage cannot start with the parameters or files it was given. The text is the load error's reason."""


class Stage(Protocol):
    """One step of an ensemble."""

    inputs: ClassVar[tuple[TensorSpec, ...]]
    outputs: ClassVar[tuple[TensorSpec, ...]]

    @classmethod
    def create(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Make the stage from ModelConfig `parameters` and the version's folder. Raises StageConfigError."""

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, Tensor] | Rejected]:
        """Return what each request gets, in order. Every tensor has the batch dimension first."""


def positive_integer(parameters: Mapping[str, str], key: str, default: int) -> int:
    """Return the parameter `key` as an integer above 0, or `default` where it is absent. Raises StageConfigError."""
    text = parameters.get(key)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise StageConfigError(f"parameter {key} is '{text}'; expected an integer above 0")
    return value


def texts_of(tensor: Tensor) -> list[str] | Rejected:
    """Return the strings of a BYTES tensor, or why they are not text."""
    texts = []
    for position, item in enumerate(tensor.reshape(-1)):
        try:
            texts.append(item.decode("utf-8") if isinstance(item, bytes) else str(item))
        except UnicodeDecodeError as exc:
            return Rejected(f"text {position} is not UTF-8: {exc.reason} at byte {exc.start}")
    return texts


def column(values: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return `values` as INT32 [n, 1]: one number for each batch item."""
    return np.asarray(values, dtype=np.int32).reshape(-1, 1)
