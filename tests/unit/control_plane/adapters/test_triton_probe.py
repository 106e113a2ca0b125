"""Verdicts on answers and errors: what is close enough, and what an error says of the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.utils import InferenceServerException

from control_plane.adapters.triton_probe import difference, judge_answer, judge_error, tensors_of
from control_plane.state import ModelName, Probe

NAN, INF = float("nan"), float("inf")


def tensor(datatype: str, *values: Any) -> Mapping[str, Any]:
    return {"name": "Y", "datatype": datatype, "shape": [len(values)], "data": list(values)}


def array(dtype: str, values: list[Any]) -> npt.NDArray[Any]:
    return np.array(values, dtype)


BARE = Probe(ModelName("m"), 1, (tensor("FP32", 1.0),))
GOLDEN = Probe(ModelName("m"), 1, (tensor("FP32", 1.0),), (tensor("FP32", 1.0),))


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (array("float32", [100.9]), tensor("FP32", 100.0), ""),
        (array("float32", [101.1]), tensor("FP32", 100.0), "is off by up to 1.1"),
        (array("float16", [0.009]), tensor("FP16", 0.0), ""),
        (array("float32", [NAN, INF]), tensor("FP32", NAN, INF), ""),
        (array("float32", [NAN]), tensor("FP32", 1.0), "is off by up to inf"),
        (array("float32", [INF]), tensor("FP32", -INF), "is off by up to inf"),
        (array("float32", [[1.0]]), tensor("FP32", 1.0), "has shape [1, 1], not [1]"),
        (array("int64", [7]), tensor("INT64", 7), ""),
        (array("int64", [8]), tensor("INT64", 7), "differs"),
        (np.array([b"a", "é".encode()], object), tensor("BYTES", "a", "é"), ""),
        (np.array([b"a"], object), tensor("BYTES", "b"), "differs"),
        (np.array([True]), tensor("BOOL", *[False]), "differs"),
    ],
)
def test_how_an_output_differs(given: Any, expected: Mapping[str, Any], said: str) -> None:
    assert difference(given, expected) == said


def test_an_answer_that_lacks_an_output_or_never_came() -> None:
    class Answer:
        def as_numpy(self, name: str) -> None:
            assert name == "Y"

    for answer in (Answer(), None):
        assert judge_answer(GOLDEN, answer).broken == "its answer to a golden request lacks output 'Y'"
        assert judge_answer(BARE, answer).broken == ""


def verdict(probe: Probe, message: str, status: str = "INTERNAL") -> str:
    """Say what is told: "works", or the sentence after "broken: " or "unsure: "."""
    result = judge_error(probe, InferenceServerException(message, f"StatusCode.{status}"), 5.0)
    if result.broken:
        return f"broken: {result.broken}"
    return f"unsure: {result.unsure}" if result.unsure else "works"


@pytest.mark.parametrize(
    "message",
    [
        "Stub process 'm_0' is not healthy.",
        "in ensemble 'e', Stub process 'm_0' is not healthy.",
        "The stub process has exited unexpectedly.",
    ],
)
def test_a_dead_process_is_broken_whatever_was_asked(message: str) -> None:
    assert verdict(BARE, message) == verdict(GOLDEN, message) == f"broken: {message}"


def test_a_deadline_is_broken_whatever_was_asked() -> None:
    for probe in (BARE, GOLDEN):
        assert verdict(probe, "Deadline Exceeded", "DEADLINE_EXCEEDED") == "broken: it did not answer within 5 s"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("failed to connect to all addresses", "UNAVAILABLE"),
        ("This protocol is restricted, expecting header 'x'", "UNAVAILABLE"),
        ("Channel closed", "CANCELLED"),
        ("Request for unknown model: 'm' version 7 is not found", "NOT_FOUND"),
        ("Request for unknown model: 'm' has no available versions", "NOT_FOUND"),
        ("", "UNAVAILABLE"),
    ],
)
def test_of_what_is_not_there_nothing_is_told(message: str, status: str) -> None:
    for probe in (BARE, GOLDEN):
        assert verdict(probe, message, status) == f"unsure: {message or 'no reason'}"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("unexpected inference input 'Z' for model 'm'", "INVALID_ARGUMENT"),
        ("Failed to process: FileNotFoundError: vocabulary is not found\n\nAt:\n  model.py", "INTERNAL"),
        ("Failed to process: the index is not healthy", "INTERNAL"),
    ],
)
def test_an_error_of_its_own_is_wrong_where_the_request_was_golden(message: str, status: str) -> None:
    assert verdict(BARE, message, status) == "works"
    assert verdict(GOLDEN, message, status) == f"broken: it refuses a golden request: {message.splitlines()[0]}"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"name": "X"}, KeyError),
        (tensor("FP99", 1), ValueError),
        ({**tensor("FP32", 1.0), "shape": [2]}, ValueError),
        (tensor("FP32", "text"), ValueError),
        (tensor("UINT8", None), TypeError),
    ],
)
def test_what_is_no_tensor(given: Mapping[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        tensors_of([given])
