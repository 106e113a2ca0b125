"""Inference requests to measure a model with: from a file of KServe v2 requests, else made from the model's own dims.

What `measured_server` hands to the load generator, as ready-made request bytes. An item is one element of a batch:
`{input: array}` without the batch dimension.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from builders.errors import SourceError, read_text

Array = npt.NDArray[Any]
Item = Mapping[str, Array]

DEFAULT_DIM = 16
"""What a dynamic dimension (-1) is taken as where nothing else is said."""
_SEED = 20_261_123
_ITEMS = 16
_HIGHEST_INTEGER = 100
_MOST_BYTES = 64 * 1024 * 1024
_TEXTS = (
    "How do I reset my password?",
    "The market fell on Monday.",
    "Leaves turn light into sugar, and the whole food chain lives on what is left over of it.",
    "She plays the violin.",
    "The train to Paris leaves at nine in the morning; the next one, which also takes bicycles, leaves at noon.",
    "A cat sleeps on the sofa.",
    "Is the invoice of last March paid, and if so, when did the money arrive?",
    "Shares dropped as rates rose.",
)


def read_items(path: Path, max_batch_size: int) -> tuple[Item, ...]:
    """Return the items in a file of KServe v2 requests in JSON, as a list or one a line (`{"inputs": [...]}`).

    Where the model batches, the first dimension of every input is the batch, and each of its elements an item. An
    empty file holds none. Raises SourceError.
    """
    items: list[Item] = []
    for where, request in _requests_in(read_text(path, "requests to measure with"), path):
        try:
            arrays = {entry["name"]: _array(entry) for entry in request["inputs"]}
            items.extend(_split(arrays) if max_batch_size else [arrays])
        except (ValueError, KeyError, TypeError) as exc:
            raise SourceError(f"{where}: not a KServe v2 inference request: {exc}") from exc
    return tuple(items)


def _requests_in(text: str, path: Path) -> Iterable[tuple[str, Any]]:
    """Yield every request with the place it stands at."""
    if text.lstrip().startswith("["):
        for number, request in enumerate(_parsed(text, str(path))):
            yield f"{path}: request {number}", request
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _parsed(text: str, where: str) -> Any:  # noqa: ANN401 - parsed JSON
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise SourceError(f"{where}: not JSON: {exc}") from exc


def generated_items(config: Any, shapes: Mapping[str, Sequence[int]]) -> tuple[Item, ...]:  # noqa: ANN401 - protobuf
    """Return seeded random items for Triton's own ModelConfig `config` (the message): texts for strings.

    `shapes` gives the dims of inputs by name, the batch dimension left out; other dynamic dims are DEFAULT_DIM. Whole
    numbers are below 100, so that most vocabularies have them. Raises SourceError where `shapes` does not fit.
    """
    inputs = {entry.name: entry for entry in config.input if not entry.optional}
    for name, shape in shapes.items():
        if name not in inputs:
            raise SourceError(f"--shape {name}: the model has no such input; it has: {', '.join(sorted(inputs))}")
        dims = inputs[name].dims
        if len(shape) != len(dims) or any(dim not in {-1, given} for dim, given in zip(dims, shape, strict=True)):
            raise SourceError(f"--shape {name}: {list(shape)} does not fit its dims {list(dims)}")
    random = np.random.default_rng(_SEED)
    return tuple(
        {
            name: _random(random, entry, shapes.get(name) or [DEFAULT_DIM if dim == -1 else dim for dim in entry.dims])
            for name, entry in inputs.items()
        }
        for _ in range(_ITEMS)
    )


def describe(items: Sequence[Item]) -> str:
    """Return the shapes of the first item in words, as in "text object [1]"."""
    return ", ".join(f"{name} {_kind(array)} {list(array.shape)}" for name, array in items[0].items())


def request_bytes(
    config: Any,  # noqa: ANN401 - protobuf
    items: Sequence[Item],
    batch_size: int,
    most_bytes: int = _MOST_BYTES,
) -> list[bytes]:
    """Return serialised ModelInferRequests of `batch_size` items each, in turn over `items`.

    Once they have `most_bytes` together, no more are made. Only items of the same shapes share a request. `config` is
    Triton's own ModelConfig message.
    """
    types = {entry.name: model_config_pb2.DataType.Name(entry.data_type) for entry in config.input}
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[Item]] = {}
    for item in items:
        unknown = sorted(set(item) - set(types))
        if unknown:
            raise SourceError(f"model '{config.name}' has no input {', '.join(unknown)}; it has: {', '.join(types)}")
        groups.setdefault(tuple((name, array.shape) for name, array in sorted(item.items())), []).append(item)
    requests: list[bytes] = []
    left = most_bytes
    for first in range(max(map(len, groups.values()))):
        for group in groups.values():
            if first < len(group) and left > 0:
                chosen = [group[(first * batch_size + number) % len(group)] for number in range(batch_size)]
                requests.append(_request(config, types, chosen))
                left -= len(requests[-1])
    return requests


def _request(config: Any, types: Mapping[str, str], items: Sequence[Item]) -> bytes:  # noqa: ANN401 - protobuf
    message: Any = service_pb2.ModelInferRequest(model_name=config.name)
    for name in items[0]:
        rows = [item[name] for item in items]
        array = np.stack(rows) if config.max_batch_size else rows[0]
        tensor = message.inputs.add()
        tensor.name, tensor.datatype = name, _datatype(types[name])
        tensor.shape.extend(array.shape)
        message.raw_input_contents.append(_raw(array, tensor.datatype))
    data: bytes = message.SerializeToString()
    return data


def _raw(array: Array, datatype: str) -> bytes:
    if datatype == "BYTES":
        return bytes(serialize_byte_tensor(array.astype(object)).item()) if array.size else b""
    if datatype == "BF16":  # the upper half of an FP32
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return np.ascontiguousarray(array, triton_to_np_dtype(datatype)).tobytes()


def _datatype(data_type: str) -> str:
    return "BYTES" if data_type == "TYPE_STRING" else data_type.removeprefix("TYPE_")


def _array(entry: Mapping[str, Any]) -> Array:
    datatype = entry["datatype"]
    if datatype == "BYTES":
        texts = [text.encode() for text in _flat(entry["data"])]
        return np.array(texts, dtype=object).reshape(entry["shape"])
    dtype = np.float32 if datatype == "BF16" else triton_to_np_dtype(datatype)
    if dtype is None:
        raise ValueError(f"input '{entry['name']}' has the unknown datatype {datatype}")
    return np.array(_flat(entry["data"]), dtype=dtype).reshape(entry["shape"])


def _flat(data: Any) -> list[Any]:  # noqa: ANN401 - nested lists of whatever a tensor holds
    return [value for part in data for value in _flat(part)] if isinstance(data, list) else [data]


def _split(arrays: Mapping[str, Array]) -> Iterable[Item]:
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or not min(counts):
        raise ValueError("its inputs differ in their first dimension, which is the batch")
    return [{name: array[number] for name, array in arrays.items()} for number in range(counts.pop())]


def _random(random: np.random.Generator, entry: Any, shape: Sequence[int]) -> Array:  # noqa: ANN401 - protobuf
    datatype = _datatype(model_config_pb2.DataType.Name(entry.data_type))
    if datatype == "BYTES":
        texts = random.choice(_TEXTS, size=list(shape))
        return np.array([text.encode() for text in texts.ravel()], dtype=object).reshape(shape)
    if datatype == "BOOL":
        return random.integers(0, 2, list(shape)).astype(np.bool_)
    if datatype.startswith(("FP", "BF")):
        dtype = np.float32 if datatype == "BF16" else triton_to_np_dtype(datatype)
        return random.standard_normal(list(shape)).astype(dtype)
    return random.integers(0, _HIGHEST_INTEGER, list(shape)).astype(triton_to_np_dtype(datatype))


def _kind(array: Array) -> str:
    return "text" if array.dtype == object else str(array.dtype)
