"""Requests to measure with: read from KServe v2 JSON or made from dims, and put together into batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from builders.errors import SourceError
from control_plane.adapters.measured_requests import describe, generated_items, read_items, request_bytes

IDS = 'input [ { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }, { name: "n" data_type: TYPE_INT32 dims: [ 1 ] } ]'
TEXT = 'input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]'


def config(text: str, max_batch_size: int = 8) -> Any:
    whole = f'name: "m" max_batch_size: {max_batch_size} {text}'
    return text_format.Parse(whole, model_config_pb2.ModelConfig())


def parsed(data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    message: Any = service_pb2.ModelInferRequest.FromString(data)
    assert message.model_name == "m"
    return {
        tensor.name: (tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def request(ids: list[int]) -> dict[str, Any]:
    return {"inputs": [tensor("ids", "INT64", [1, len(ids)], ids), tensor("n", "INT32", [1, 1], [[len(ids)]])]}


@pytest.mark.parametrize("as_list", [True, False])
def test_requests_of_a_file_are_batched_with_their_like(tmp_path: Path, as_list: bool) -> None:  # noqa: FBT001
    path = tmp_path / "probes.json"
    requests = [request([1, 2]), request([3]), request([4, 5])]
    path.write_text(json.dumps(requests) if as_list else "\n".join(map(json.dumps, requests)) + "\n")
    made = [parsed(it) for it in request_bytes(config(IDS), read_items(path, 8), 2)]
    shapes = [(it["ids"][1], it["n"][1]) for it in made]
    assert sorted(shapes) == [([2, 1], [2, 1]), ([2, 2], [2, 1]), ([2, 2], [2, 1])]
    two = next(it for it in made if it["ids"][1] == [2, 2])
    assert np.frombuffer(two["ids"][2], np.int64).tolist() == [1, 2, 4, 5]
    assert np.frombuffer(two["n"][2], np.int32).tolist() == [2, 2]


def test_a_request_of_several_items_is_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    path.write_text(json.dumps({"inputs": [tensor("text", "BYTES", [2, 1], ["a", "é"])]}))
    items = read_items(path, 8)
    assert describe(items) == "text text [1]"
    assert len(items) == 2
    (first, _) = request_bytes(config(TEXT), items, 3)
    assert parsed(first) == {"text": ("BYTES", [3, 1], b"\1\0\0\0a\2\0\0\0\xc3\xa9\1\0\0\0a")}


def test_a_model_that_does_not_batch_takes_requests_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    path.write_text(json.dumps({"inputs": [tensor("x", "FP32", [2, 2], [[1, 2], [3, 4]])]}))
    cfg = config('input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]', 0)
    (only,) = request_bytes(cfg, read_items(path, 0), 1)
    assert parsed(only)["x"][:2] == ("FP32", [2, 2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "requests.json:1: not JSON"),
        ("[{]", "requests.json: not JSON"),
        ('\n{"input": []}', "requests.json:2: not a KServe v2 inference request: 'inputs'"),
        ('[{"inputs": 3}]', "request 0: not a KServe v2 inference request"),
        ('{"inputs": [{"name": "x", "datatype": "FP99", "shape": [1], "data": [1]}]}', "unknown datatype FP99"),
        ('{"inputs": [{"name": "x", "datatype": "FP32", "shape": [3, 1], "data": [1]}]}', "cannot reshape"),
    ],
)
def test_what_is_no_request_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "requests.json").write_text(text)
    with pytest.raises(SourceError) as caught:
        read_items(tmp_path / "requests.json", 8)
    assert said in str(caught.value)


def test_an_empty_list_holds_no_items(tmp_path: Path) -> None:
    (tmp_path / "probes.json").write_text("[]\n")
    assert read_items(tmp_path / "probes.json", 8) == ()


def test_an_input_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps(request([1])))
    with pytest.raises(SourceError, match="model 'm' has no input ids, n; it has: text"):
        request_bytes(config(TEXT), read_items(tmp_path / "r", 8), 1)


def test_items_are_made_from_dims_and_shapes_the_same_every_time() -> None:
    items = generated_items(config(IDS), {"ids": (5,)})
    assert describe(items) == "ids int64 [5], n int32 [1]"
    assert describe(generated_items(config(IDS), {})) == "ids int64 [16], n int32 [1]"
    again = generated_items(config(IDS), {"ids": (5,)})
    assert all((one["ids"] == other["ids"]).all() for one, other in zip(items, again, strict=True))
    assert any((one["ids"] != items[0]["ids"]).any() for one in items)


@pytest.mark.parametrize(
    ("data_type", "datatype", "size"),
    [("FP32", "FP32", 12), ("FP16", "FP16", 6), ("BF16", "BF16", 6), ("BOOL", "BOOL", 3), ("UINT8", "UINT8", 3)],
)
def test_every_kind_of_number_is_made(data_type: str, datatype: str, size: int) -> None:
    cfg = config(f'input [ {{ name: "x" data_type: TYPE_{data_type} dims: [ 3 ] }} ]')
    made = request_bytes(cfg, generated_items(cfg, {}), 1)
    name, shape, raw = parsed(made[0])["x"]
    assert (name, shape, len(raw)) == (datatype, [1, 3], size)
    assert len(set(made)) > 1


def test_texts_are_made_for_strings_and_optional_inputs_are_left_out() -> None:
    cfg = config(TEXT + ' input [ { name: "more" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]')
    (name, shape, raw) = parsed(request_bytes(cfg, generated_items(cfg, {}), 2)[0])["text"]
    assert (name, shape) == ("BYTES", [2, 1])
    length = int.from_bytes(raw[:4], "little")
    assert raw[4 : 4 + length].decode().endswith((".", "?"))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"x": (1,)}, "the model has no such input; it has: ids, n"),
        ({"n": (2,)}, r"\[2\] does not fit its dims \[1\]"),
        ({"ids": (1, 2)}, r"\[1, 2\] does not fit its dims \[-1\]"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shapes: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        generated_items(config(IDS), shapes)


def test_large_requests_are_few() -> None:
    cfg = config('input [ { name: "x" data_type: TYPE_UINT8 dims: [ -1 ] } ]')
    items = generated_items(cfg, {"x": (1000,)})
    assert len(request_bytes(cfg, items, 4, most_bytes=10_000)) == 3
    assert len(request_bytes(cfg, items, 4, most_bytes=1)) == 1
    assert len(request_bytes(cfg, items, 4)) == len(items)
