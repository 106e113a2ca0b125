"""Calls of tensor models: within their ranges, ends included; golden items stacked into batches."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.errors import SourceError
from builders.forms import ExportRequest, InputRange
from builders.sources.tensors import TensorInput, input_ranges, tensor_calls

X = TensorInput("x", np.dtype(np.float32), (None, 3, None))
COUNT = TensorInput("count", np.dtype(np.int32), (None, 1), 5, 9)
RANGES = (InputRange("x", (1, 3, 2), (4, 3, 5), (16, 3, 9)),)


def request(golden: Path | None = None, inputs: tuple[InputRange, ...] = RANGES, batch: int = 16) -> ExportRequest:
    return ExportRequest(Path("package"), golden, inputs, (1, 8), batch)


def test_random_ends_and_measured_calls() -> None:
    ranges = input_ranges([X, COUNT], request())
    assert ranges == (RANGES[0], InputRange("count", (1, 1), (8, 1), (16, 1)))
    calls = list(tensor_calls([X, COUNT], ranges, request()))
    shapes = {call.name: call.inputs["x"].shape for call in calls}
    assert shapes["smallest"] == (1, 3, 2)
    assert shapes["largest"] == (16, 3, 9)
    assert shapes["batch 1"] == (1, 3, 5)
    assert shapes["batch 8"] == (8, 3, 5)
    for call in calls:
        assert call.batch == len(call.inputs["x"]) == len(call.inputs["count"])
        assert call.inputs["x"].dtype == np.float32
        assert call.inputs["count"].dtype == np.int32
        assert all(5 <= number <= 9 for number in call.inputs["count"].flat)
        assert all(
            low <= size <= high for low, size, high in zip((1, 3, 2), call.inputs["x"].shape, (16, 3, 9), strict=True)
        )
    assert len({call.inputs["x"].shape for call in calls if call.kind == "random"}) > 1


def test_an_end_that_is_measured_is_not_asked_twice() -> None:
    still = TensorInput("x", np.dtype(np.bool_), (2,))
    calls = list(tensor_calls([still], input_ranges([still], request(inputs=(), batch=0)), request(batch=0)))
    assert [call.kind for call in calls] == ["random"] * 3 + ["measure"]
    assert {call.inputs["x"].dtype for call in calls} == {np.dtype(np.bool_)}


def test_golden_items_of_one_shape_share_a_call(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    widths = [2, 4, 2]
    items = [
        {"inputs": {"x": np.full((3, width), n).tolist(), "count": [n]}, "label": n} for n, width in enumerate(widths)
    ]
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    calls = list(tensor_calls([X, COUNT], input_ranges([X, COUNT], request(path)), request(path)))
    golden = [call for call in calls if call.kind == "golden"]
    assert [call.inputs["x"].shape for call in golden] == [(2, 3, 2), (1, 3, 4)]
    assert [call.inputs["count"].tolist() for call in golden] == [[[0], [2]], [[1]]]
    assert [None if call.labels is None else call.labels.tolist() for call in golden] == [[0, 2], [1]]


def test_calibration_items_are_asked_without_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "calibration.jsonl"
    path.write_text("".join(json.dumps({"inputs": {"x": [[n] * 2] * 3}, "label": "unknown"}) + "\n" for n in range(5)))
    asked = replace(request(), calibration=path)
    with pytest.raises(SourceError, match=r"calibration\.jsonl: label 'unknown' is no class of the model"):
        list(tensor_calls([X], RANGES, asked))
    calls = list(tensor_calls([X], RANGES, asked, {"unknown": 0}))
    (given,) = [call for call in calls if call.kind == "calibration"]
    assert given.inputs["x"].shape == (5, 3, 2)
    assert given.labels is None


def test_a_golden_set_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with path.open("wb") as stream:
        np.savez(stream, x=np.zeros((5, 3, 4), np.float64), labels=np.asarray(["a", "b", "a", "a", "b"]))
    ranges = input_ranges([X], request(path))
    first = next(iter(tensor_calls([X], ranges, request(path), {"a": 0, "b": 1})))
    assert first.inputs["x"].shape == (5, 3, 4)
    assert first.inputs["x"].dtype == np.float32
    assert first.labels is not None
    assert first.labels.tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"inputs": {"y": 1}}', r'golden\.jsonl:1: expected \{"inputs": .* with the inputs x'),
        ('{"inputs": {"x": "text"}}', r"golden\.jsonl:1: not numbers of one shape"),
        ('{"inputs": {"x": [[1], [1, 2]]}}', r"golden\.jsonl:1: not numbers of one shape"),
        ('{"inputs": {"x": [[1, 2]]}}', r"item 0: x is \[1, 2\]; expected \[3, -1\], without a batch dimension"),
        ('{"inputs": {"x": [[1], [1], [1]]}, "label": "odd"}', "label 'odd' is no class of the model; it has: none"),
        ('{"inputs": {"x": [[1], [1], [1]]}, "label": [1]}', r"golden\.jsonl:1: label is \[1\]"),
    ],
)
def test_golden_items_that_do_not_fit(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text(line)
    with pytest.raises(SourceError, match=message):
        list(tensor_calls([X], RANGES, request(path)))


def test_a_golden_file_of_garbage_or_of_pickles(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(b"PK\x03\x04" + b"\xff" * 30)
    with pytest.raises(SourceError, match="not a set of items"):
        list(tensor_calls([X], RANGES, request(path)))
    with path.open("wb") as stream:
        np.savez(stream, x=np.asarray([{}, []], dtype=object))
    with pytest.raises(SourceError, match="not a set of items"):
        list(tensor_calls([X], RANGES, request(path)))
    with path.open("wb") as stream:
        np.savez(stream, x=np.zeros((2, 3, 4), np.float32), labels=np.zeros(3))
    with pytest.raises(SourceError, match="the same number of items"):
        list(tensor_calls([X], RANGES, request(path)))


@pytest.mark.parametrize(
    ("shape", "given", "batch", "message"),
    [
        ((None, None), (), 4, "x: dimension 1 varies; give"),
        ((None, 3), (), 0, "x: dimension 0 varies; give"),
        ((2, 3), (), 4, "x: its first dimension does not vary, so the model does not batch"),
        ((), (), 4, "x: its first dimension does not vary, so the model does not batch"),
        ((None, 3), (InputRange("y", (1,), (1,), (1,)),), 4, "has no input 'y'; it has: x"),
        ((None, 3), (InputRange("x", (1,), (1,), (4,)),), 4, "x has 2 dimensions, and its range has 1"),
        ((None, 3), (InputRange("x", (1, 3), (1, 4), (4, 5)),), 4, "dimension 1 of x is 3 and does not vary"),
        ((None, 3), (InputRange("x", (1, 3), (1, 3), (2, 3)),), 4, "x has batches up to 2, below max_batch_size 4"),
    ],
)
def test_ranges_that_do_not_fit_the_model(
    shape: tuple[int | None, ...], given: tuple[InputRange, ...], batch: int, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        input_ranges([TensorInput("x", np.dtype(np.float32), shape)], request(inputs=given, batch=batch))
