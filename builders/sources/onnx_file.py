"""An ONNX file as it is: looked at, made self-contained, and asked for its answers with plain ONNX Runtime in FP32.

Nothing of the graph is changed, so what is proven later is what was given.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builders.errors import MissingExtraError, SourceError
from builders.forms import MODEL, ExportRequest, Form
from builders.onnx.external_data import PROTOBUF_LIMIT, inline
from builders.onnx.torch_export import first_line
from builders.reference import Tensors, save_reference
from builders.sources.tensors import TensorInput, answered, dynamic, input_ranges, tensor_calls

if TYPE_CHECKING:
    from onnx import ValueInfoProto

_SERVED = (
    "FLOAT",
    "FLOAT16",
    "DOUBLE",
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
)
"""Element types of inputs that a reference set can hold."""


def export_onnx_file(source: Path, request: ExportRequest, out: Path) -> tuple[Form, ...]:
    """Write the ONNX file `source`, external data included, into the folder `out`, and return its one form.

    Random integers are 0 and 1, which every model takes; a golden set brings better ones. Raises SourceError or
    MissingExtraError.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    target = out / f"{MODEL}.onnx"
    inline(source, target, limit_bytes=PROTOBUF_LIMIT)
    model = onnx.load(target)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_input(value) for value in model.graph.input if value.name not in weights]
    if not inputs or not model.graph.output:
        raise SourceError(f"{source}: the model needs an input and an output; export it with both")
    ranges = input_ranges(inputs, request)
    cases = answered(tensor_calls(inputs, ranges, request), _Answers(target).answer)
    save_reference(out / f"{MODEL}.npz", cases)
    return (Form(MODEL, dynamic(inputs, ranges)),)


def _input(value: "ValueInfoProto") -> TensorInput:
    from onnx import TensorProto, helper  # noqa: PLC0415 - `import onnx` is slow

    if value.type.WhichOneof("value") != "tensor_type":
        raise SourceError(f"{value.name}: not a tensor; Triton serves tensors only")
    kind = value.type.tensor_type.elem_type
    if TensorProto.DataType.Name(kind) not in _SERVED:
        raise SourceError(f"{value.name}: inputs of type {TensorProto.DataType.Name(kind)} are not supported")
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
    return TensorInput(value.name, helper.tensor_dtype_to_np_dtype(kind), tuple(sizes))


class _Answers:
    """The file in ONNX Runtime, its graph not optimised: what it says, as it says it."""

    def __init__(self, model: Path) -> None:
        try:
            import onnxruntime  # noqa: PLC0415 - an optional extra
        except ImportError as exc:
            raise MissingExtraError("onnxruntime", "cpu") from exc
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # ONNX Runtime's errors have no common root of their own
            raise SourceError(f"ONNX Runtime cannot load the model: {first_line(exc)}") from exc
        self._outputs = [output.name for output in self._session.get_outputs()]

    def answer(self, inputs: Tensors) -> Tensors:
        """Return the outputs by name. Raises SourceError."""
        try:
            results = self._session.run(None, dict(inputs))
        except Exception as exc:  # as above
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise SourceError(f"the source model cannot take {shapes}: {first_line(exc)}") from exc
        tensors = dict(zip(self._outputs, results, strict=True))
        for name, result in tensors.items():
            if not isinstance(result, np.ndarray) or result.dtype == object:
                raise SourceError(
                    f"{name}: an output that is no tensor of numbers; leave it out of the model's outputs"
                )
        return tensors
