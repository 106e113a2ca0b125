"""What goes into an ONNX model and comes out of it, in Triton's words: the base of every generated config.

Read from the graph alone: external data is not opened, so a model of any size takes milliseconds. Kept as JSON beside
the graph, so that a config can be made on a machine that has neither the graph nor `onnx`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.errors import MissingExtraError, SourceError, read_text

if TYPE_CHECKING:
    from onnx import ModelProto, TypeProto

_TYPES = {
    "FLOAT": "TYPE_FP32",
    "DOUBLE": "TYPE_FP64",
    "FLOAT16": "TYPE_FP16",
    "BFLOAT16": "TYPE_BF16",
    "INT8": "TYPE_INT8",
    "INT16": "TYPE_INT16",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "UINT8": "TYPE_UINT8",
    "UINT16": "TYPE_UINT16",
    "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64",
    "BOOL": "TYPE_BOOL",
    "STRING": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True)
class TensorSignature:
    """One input or output. `dims` is the model's own shape, batch dimension included; -1 is dynamic."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs that a request must bring (none that has a default in the model), and outputs, in the model's order."""

    inputs: tuple[TensorSignature, ...]
    outputs: tuple[TensorSignature, ...]


def signature(path: Path) -> Signature:
    """Return the signature of the ONNX file `path`. Raises SourceError, and MissingExtraError where onnx is missing."""
    return _signature(_read(path), path)


def _read(path: Path) -> "ModelProto":
    try:
        import onnx  # noqa: PLC0415 - only a build needs it, and `import onnx` is slow
    except ImportError as exc:
        raise MissingExtraError(exc.name or "onnx", "export") from exc
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as exc:
        raise SourceError(f"{path}: no such file (an ONNX model)") from exc
    except Exception as exc:  # protobuf's own, which is for `pbtxt` alone to import
        raise SourceError(f"{path}: not an ONNX model: {exc}; export it again") from exc
    return model


def graph_versions(path: Path) -> tuple[int, int]:
    """Return IR version and opset (of the default domain) of the ONNX file `path`. Raises like `signature`."""
    model = _read(path)
    return model.ir_version, max((entry.version for entry in model.opset_import if not entry.domain), default=0)


def save_signature(path: Path, signature: Signature) -> None:
    """Write a signature as JSON: the same signature gives the same bytes."""
    path.write_text(json.dumps(asdict(signature), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_signature(path: Path) -> Signature:
    """Return the signature that `save_signature` wrote. Raises SourceError."""
    text = read_text(path, "signature of an export")
    try:
        entries = json.loads(text)
        return Signature(_loaded(entries["inputs"]), _loaded(entries["outputs"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{path}: not the signature of an export: {exc}; build the package again") from exc


def _loaded(entries: Iterable[dict[str, Any]]) -> tuple[TensorSignature, ...]:
    return tuple(TensorSignature(entry["name"], entry["data_type"], tuple(entry["dims"])) for entry in entries)


def _signature(model: "ModelProto", path: Path) -> Signature:
    if not model.graph.output:
        raise SourceError(f"{path}: not an ONNX model: its graph has no output; export it again")
    defaults = {tensor.name for tensor in model.graph.initializer}
    defaults |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return Signature(
        tuple(_tensor(value.name, value.type, path) for value in model.graph.input if value.name not in defaults),
        tuple(_tensor(value.name, value.type, path) for value in model.graph.output),
    )


def _tensor(name: str, kind: "TypeProto", path: Path) -> TensorSignature:
    from onnx import TensorProto  # noqa: PLC0415 - as late as `signature`

    if not kind.HasField("tensor_type"):
        what = (kind.WhichOneof("value") or "value without a type").removesuffix("_type").replace("_", " ")
        raise SourceError(f"{path}: '{name}' is a {what}; Triton carries tensors only, so export the model without it")
    tensor = kind.tensor_type
    known = tensor.elem_type in TensorProto.DataType.values()
    element = TensorProto.DataType.Name(tensor.elem_type) if known else str(tensor.elem_type)
    if element not in _TYPES:
        raise SourceError(f"{path}: '{name}' has elements of type {element}, which Triton cannot carry; cast it")
    if not tensor.HasField("shape"):
        raise SourceError(f"{path}: '{name}' has no shape; run onnx.shape_inference on the model, or declare one")
    dims = (dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1 for dim in tensor.shape.dim)
    return TensorSignature(name, _TYPES[element], tuple(dim if dim > 0 else -1 for dim in dims))
