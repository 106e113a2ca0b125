"""ONNX files from elsewhere: looked at before anything is loaded, above all the weights they keep in files beside them.

An ONNX file may name any path for its weights and any length. Here a path outside the folder, a link, a length that the
file does not have and more than a limit are refused; nothing is read but the graph itself. `inline` then makes one
self-contained file of it. `sources` call both; the rest of the builders sees self-contained files only.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from builders.errors import SourceError

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes of the largest message that protobuf writes."""


def external_files(path: Path) -> tuple[str, ...]:
    """Return the files beside `path` that its graph keeps weights in, sorted; none where it is no ONNX file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return _external_files(path, status.st_mtime_ns, status.st_size)


@cache
def _external_files(path: Path, _changed_ns: int, size: int) -> tuple[str, ...]:
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    if size > PROTOBUF_LIMIT:
        return ()
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - protobuf's own errors, and others on what it takes for a message
        return ()
    named = {
        entry.value
        for tensor in _tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted(name for name in named if not Path(name).is_absolute() and ".." not in Path(name).parts))


def check_onnx_file(path: Path, *, limit_bytes: int) -> None:
    """Raise SourceError unless `path` is an ONNX model whose weights lie in it or beside it.

    `limit_bytes` bounds what it takes in memory, files with external data included: a file is refused by its size
    before it is parsed, external data by what is said of it.
    """
    _read_checked(path, limit_bytes)


def inline(path: Path, out: Path, *, limit_bytes: int = PROTOBUF_LIMIT) -> None:
    """Write the model in `path`, its external data included, as the one file `out`. Raises SourceError.

    Nothing above protobuf's limit of 2 GiB can be one file.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    model, total = _read_checked(path, limit_bytes)
    if total > PROTOBUF_LIMIT - 2**20:
        raise SourceError(
            f"{path.name}: {_mebibytes(total)} with its external data, and one ONNX file holds less than 2048 MiB; "
            "export it in a smaller precision"
        )
    onnx.load_external_data_for_model(model, str(path.parent))
    onnx.save(model, out)


def _read_checked(path: Path, limit_bytes: int) -> tuple["ModelProto", int]:
    """Return the model without its external data, and the bytes that it has with them."""
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    try:
        size = path.stat().st_size
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read: {exc.strerror}; give the path of an ONNX file") from exc
    if size > min(limit_bytes, PROTOBUF_LIMIT):
        raise SourceError(
            f"{path.name}: {_mebibytes(size)}, more than the {_mebibytes(min(limit_bytes, PROTOBUF_LIMIT))} that are "
            "allowed for one ONNX file"
        )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as exc:  # protobuf's own errors, and others on what protobuf takes for a message
        raise SourceError(f"{path.name}: not an ONNX file; export it again") from exc
    total = size
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            total += _checked_length(path, tensor)
        if total > limit_bytes:
            raise SourceError(
                f"{path.name}: its external data take {_mebibytes(total)} or more, and {_mebibytes(limit_bytes)} are "
                "allowed"
            )
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as exc:
        told = str(exc).strip().partition("\n")[0]
        raise SourceError(f"{path.name}: not a valid ONNX model: {told}; export it again") from exc
    return model, total


def _checked_length(path: Path, tensor: "TensorProto") -> int:
    """Return how many bytes of external data `tensor` has."""
    entry = {item.key: item.value for item in tensor.external_data}
    data = _checked_location(path, tensor.name, entry)
    offset = _whole_number(path, tensor.name, entry, "offset", 0)
    there = data.stat().st_size
    needed = _bytes_of(tensor)
    length = _whole_number(path, tensor.name, entry, "length", needed)
    if length != needed:
        raise SourceError(
            f"{path.name}: weight {tensor.name!r} has the shape of {needed} bytes and says {length}; export it again"
        )
    if offset + length > there:
        raise SourceError(
            f"{path.name}: weight {tensor.name!r} ends at byte {offset + length} of {entry['location']!r}, which has "
            f"{there}; the file is cut short or the model is not honest"
        )
    return length


def _checked_location(path: Path, name: str, entry: Mapping[str, str]) -> Path:
    location = entry.get("location", "")
    parts = PurePosixPath(location).parts
    if not parts or PurePosixPath(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location:
        raise SourceError(
            f"{path.name}: weight {name!r} lies in {location!r}, outside the model's folder; only files beside the "
            "model are read"
        )
    data = path.parent
    for part in parts:
        data /= part
        if data.is_symlink():
            raise SourceError(
                f"{path.name}: weight {name!r} lies in {location!r}, which is a link; only files beside the "
                "model are read"
            )
    if not data.is_file():
        raise SourceError(f"{path.name}: weight {name!r} lies in {location!r}, and there is no such file")
    return data


def _whole_number(path: Path, name: str, entry: Mapping[str, str], key: str, default: int) -> int:
    text = entry.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):  # noqa: PLR2004 - digits of 2**64
        raise SourceError(f"{path.name}: weight {name!r} has the {key} {text[:40]!r}; expected a number of bytes")
    return int(text)


def _bytes_of(tensor: "TensorProto") -> int:
    from onnx import helper  # noqa: PLC0415 - `import onnx` is slow

    bits = _BITS.get(tensor.data_type)
    if bits is None:
        try:
            bits = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
        except KeyError as exc:
            raise SourceError(f"weight {tensor.name!r} has no type that can be in a file; export it again") from exc
    return -(-math.prod(max(0, size) for size in tensor.dims) * bits // 8)


# Types that are packed in a file, several to a byte: TensorProto's UINT4, INT4, FLOAT4E2M1, UINT2, INT2.
_BITS: Mapping[int, int] = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    """Yield every tensor that a model holds: initializers and attributes, subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: "Iterable[NodeProto]") -> Iterator["TensorProto"]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: "AttributeProto") -> Iterator["TensorProto"]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]
    for each in sparse:
        yield from (each.values, each.indices)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
