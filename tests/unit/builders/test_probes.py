"""Probes: requests as clients send them, from random cases alone, and none where a case is no request."""

import json

import numpy as np
import numpy.typing as npt
import pytest

from builders.probes import probes_text
from builders.reference import Case, CaseKind

BATCHED = """\
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
RAGGED = """\
max_batch_size: 8
input { name: "x" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }
input { name: "count" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
"""
PLAIN = 'input { name: "x" data_type: TYPE_BOOL dims: [ 2 ] }\noutput { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }\n'


def case(kind: CaseKind, batch: int, **tensors: npt.NDArray[np.generic]) -> Case:
    outputs = {"y": np.full((batch, 1), batch, np.float32)}
    return Case(f"{kind} {batch}", kind, batch, tensors, outputs)


def pairs(batch: int) -> npt.NDArray[np.float32]:
    return np.arange(2 * batch, dtype=np.float32).reshape(batch, 2)


def probes(config: str, *cases: Case) -> list[dict[str, list[dict[str, object]]]]:
    found: list[dict[str, list[dict[str, object]]]] = json.loads(probes_text(config, cases))
    return found


def test_the_two_smallest_random_cases_become_requests_with_their_answers() -> None:
    cases = [case("random", 3, x=pairs(3)), case("range_end", 8, x=pairs(8)), case("random", 2, x=pairs(2))]
    two, three = probes(BATCHED, *cases)
    assert two == {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [0.0, 1.0, 2.0, 3.0]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [2.0, 2.0]}],
    }
    assert three["inputs"][0]["shape"] == [3, 2]


@pytest.mark.parametrize("kind", ["golden", "measure"])
def test_the_golden_set_stays_behind(kind: CaseKind) -> None:
    """`measure` cases are made of golden texts too."""
    assert probes(BATCHED, case(kind, 1, x=pairs(1))) == []


def test_a_ragged_input_gets_its_batch_dimension_back_and_several_in_one_are_no_request() -> None:
    one = case("range_end", 1, x=np.asarray([5, 6, 7]), count=np.asarray([[3]], np.int32))
    two = case("random", 2, x=np.asarray([5, 6, 7]), count=np.asarray([[1], [2]], np.int32))
    (probe,) = probes(RAGGED, two, one)
    assert probe["inputs"] == [
        {"name": "x", "datatype": "INT64", "shape": [1, 3], "data": [5, 6, 7]},
        {"name": "count", "datatype": "INT32", "shape": [1, 1], "data": [3]},
    ]


def test_a_model_that_does_not_batch_is_asked_as_it_is() -> None:
    flat = Case("random 0", "random", 1, {"x": np.asarray([True, False])}, {"y": np.ones(1, np.float32)})
    (probe,) = probes(PLAIN, flat)
    assert probe["inputs"] == [{"name": "x", "datatype": "BOOL", "shape": [2], "data": [True, False]}]
    assert probe["outputs"][0]["shape"] == [1]


def test_what_is_large_or_lacks_a_tensor_is_left_out() -> None:
    large = case("random", 1, x=np.zeros((1, 200_001), np.float32))
    other = case("random", 1, z=pairs(1))
    assert probes(BATCHED, large, other) == []
