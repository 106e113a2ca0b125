"""The ONNX model's own inputs and outputs, as onnxruntime tells them; `validation` and `completion` work by it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .datatypes import config_type


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One tensor of the graph. `dims` holds every dimension, the batch one too; -1 is a variable one.

    A dimension of 0 is told as -1 too: Triton's configuration has no 0. A scalar has no dims; a tensor of unknown rank
    is reported the same way.
    """

    name: str
    data_type: str
    """Triton's configuration name (`TYPE_FP32`); `TYPE_INVALID` for what Triton cannot carry."""
    onnx_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """Required inputs, initializers that a request may override, and outputs, each by name in graph order."""

    inputs: dict[str, TensorSignature]
    overridable: dict[str, TensorSignature]
    outputs: dict[str, TensorSignature]


class _NodeArg(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Sequence[object]: ...


class DescribesItself(Protocol):
    """The part of `onnxruntime.InferenceSession` that tells inputs and outputs."""

    def get_inputs(self) -> Iterable[_NodeArg]:
        """Tell the inputs without a default."""

    def get_overridable_initializers(self) -> Iterable[_NodeArg]:
        """Tell the inputs with a default."""

    def get_outputs(self) -> Iterable[_NodeArg]:
        """Tell the outputs."""


def signature_of(session: DescribesItself) -> ModelSignature:
    """Read the signature of a loaded model."""
    return ModelSignature(
        inputs=_by_name(session.get_inputs()),
        overridable=_by_name(session.get_overridable_initializers()),
        outputs=_by_name(session.get_outputs()),
    )


def _by_name(nodes: Iterable[_NodeArg]) -> dict[str, TensorSignature]:
    return {
        node.name: TensorSignature(node.name, config_type(node.type), node.type, _dims(node.shape)) for node in nodes
    }


def _dims(shape: Sequence[object]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim > 0 else -1 for dim in shape)
