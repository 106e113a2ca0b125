"""How a PyTorch module becomes an ONNX file here: one set of exporter settings for every source that ends in one.

`dense`, and the sources for classifiers and callables, export through it. Nothing is downloaded, nothing is printed.
"""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

OPSET = 18
IR_VERSION = 10
"""What every server release in reach reads: ONNX Runtime 1.16 and later, TensorRT 8.6 and later."""

LARGEST_BYTES = 2**31 - 2**24
"""Weights that fit into one ONNX file: protobuf ends at 2 GiB, and the graph itself needs room."""

DynamicAxes = Mapping[str, Mapping[int, str]]
"""By input: the axes that vary, each with its dimension's name. Axes of one name have one size."""

_EXPORTER_LOGGERS = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
_SHOWN = 300


def export_module(
    module: "nn.Module",
    inputs: Mapping[str, "Tensor"],
    outputs: Sequence[str],
    axes: DynamicAxes,
    target: Path,
) -> None:
    """Write `module` to the ONNX file `target`, weights inside; the same module gives the same bytes.

    `inputs` are examples by tensor name, in the order in which `forward` takes them, all one by one or all as
    `*tensors`; a size of 1 on an axis of `axes` would
    be taken for a constant, so it must be 2 or more. Raises SourceError where PyTorch cannot export the module, where
    an axis came out fixed, or where the weights do not fit into one file; MissingExtraError without PyTorch.
    """
    try:
        import onnx  # noqa: PLC0415 - `import onnx` is slow
        import torch  # noqa: PLC0415 - an optional extra
        import torch.onnx  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    size = sum(tensor.numel() * tensor.element_size() for tensor in [*module.parameters(), *module.buffers()])
    if size > LARGEST_BYTES:
        raise SourceError(f"the model has {size / 2**30:.1f} GiB of weights; an ONNX file holds 2 GiB at most")
    shapes: tuple[object, ...] = tuple(dict(axes.get(name, {})) for name in inputs)
    if any(entry.kind is entry.VAR_POSITIONAL for entry in inspect.signature(module.forward).parameters.values()):
        shapes = (shapes,)
    with quiet_exporter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module.eval(),
                # Copies: inputs whose example is one and the same tensor would become one input, without a word.
                tuple(tensor.detach().clone() for tensor in inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
        except ImportError as exc:
            raise MissingExtraError(exc.name or "onnxscript", "export") from exc
        except Exception as exc:  # whatever the module's own code, or the exporter on it, raises
            raise SourceError(f"PyTorch cannot export the model to ONNX: {first_line(exc)}") from exc
    if program is None:
        raise SourceError("PyTorch exported nothing; torch.onnx.export gave no program")
    model: ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    model.producer_name = "tritonfleet"
    if len(model.graph.output) != len(outputs):
        raise SourceError(f"the model has {len(model.graph.output)} outputs, and {len(outputs)} are named")
    _check_axes(model, axes)
    strip_metadata(model)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def strip_metadata(model: "ModelProto") -> None:
    """Take out what PyTorch notes of where each node came from: stack traces, with this machine's paths."""
    del model.metadata_props[:], model.graph.metadata_props[:]
    graph = model.graph
    nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*graph.input, *graph.output, *graph.value_info]:
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    for function in model.functions:
        del function.metadata_props[:]


def _check_axes(model: "ModelProto", axes: DynamicAxes) -> None:
    for value in model.graph.input:
        for axis in axes.get(value.name, {}):
            dimension = value.type.tensor_type.shape.dim[axis]
            if dimension.HasField("dim_value"):
                raise SourceError(
                    f"axis {axis} of {value.name} came out fixed at {dimension.dim_value}: the model's code depends on "
                    "its size; write it without Python numbers made from shapes, or give the input one size"
                )


def first_line(exc: BaseException) -> str:
    """Return an exception's kind and the first line of its text, of bounded length: PyTorch's errors run over pages."""
    cause = exc.__cause__ if exc.__cause__ is not None and "torch.onnx" in type(exc).__module__ else exc
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0].rstrip(".:") if lines else ""
    return f"{type(cause).__name__}: {text[:_SHOWN]}" if text else type(cause).__name__


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Leave out what PyTorch's exporter says of itself: deprecations inside PyTorch, torchvision being absent."""
    loggers = [logging.getLogger(name) for name in _EXPORTER_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
