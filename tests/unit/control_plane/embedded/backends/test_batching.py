from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from control_plane.embedded.backends.onnxruntime.ort_serving.batching import (
    BatchPlan,
    Request,
    alike,
    joined,
    split,
    wanted_outputs,
)
from control_plane.embedded.backends.onnxruntime.ort_serving.errors import RunError
from control_plane.embedded.backends.onnxruntime.ort_serving.model_config import (
    BatchInputConfig,
    BatchInputKind,
    OutputConfig,
)
from control_plane.embedded.backends.onnxruntime.ort_serving.runner import BatchRunner

Array = NDArray[Any]

OUTPUT = OutputConfig("y", "TYPE_FP32", (-1,), None)
PLAN = BatchPlan(batched=True, ragged=frozenset(), scalars=frozenset(), derived=(), outputs={"y": OUTPUT})


def request(*arrays: Array, wanted: frozenset[str] = frozenset({"y"})) -> Request:
    return Request(dict(zip("xz", arrays, strict=False)), wanted)


def floats(*shape: int, start: int = 0) -> Array:
    return (np.arange(np.prod(shape, dtype=int)) + start).astype(np.float32).reshape(shape)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 4))
def test_what_is_joined_is_cut_apart_again(sizes: list[int], width: int) -> None:
    arrays = [floats(size, width, start=100 * at) for at, size in enumerate(sizes)]
    requests = [request(array) for array in arrays]
    feed = joined(PLAN, requests)
    assert feed["x"].shape == (sum(sizes), width)
    answers = split(PLAN, [("y", feed["x"])], requests)
    for array, answer in zip(arrays, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], array)
        assert answer["y"].flags.c_contiguous


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=5))
def test_ragged_elements_come_back_in_the_shape_of_their_input(shapes: list[tuple[int, int, int]]) -> None:
    output = OutputConfig("y", "TYPE_FP32", (-1, -1), "x")
    plan = replace(PLAN, ragged=frozenset({"x"}), outputs={"y": output})
    arrays = [floats(*shape, start=50 * at) for at, shape in enumerate(shapes)]
    requests = [request(array) for array in arrays]
    feed = joined(plan, requests)
    assert feed["x"].shape == (sum(array.size for array in arrays),)
    for array, answer in zip(arrays, split(plan, [("y", feed["x"])], requests), strict=True):
        np.testing.assert_array_equal(answer["y"], array)


def test_one_request_passes_through_uncopied() -> None:
    array = floats(2, 3)
    assert joined(PLAN, [request(array)])["x"] is array
    assert split(PLAN, [("y", array)], [request(array)])[0]["y"] is array


def test_ragged_single_request_is_a_view() -> None:
    array = floats(2, 3)
    plan = replace(PLAN, ragged=frozenset({"x"}))
    assert np.shares_memory(joined(plan, [request(array)])["x"], array)


def test_batch_inputs_are_derived_from_the_requests() -> None:
    entry = BatchInputConfig(BatchInputKind.ITEM_SHAPE, ("shape_a", "shape_b"), "TYPE_INT32", "x")
    plan = replace(PLAN, ragged=frozenset({"x"}), derived=(entry,))
    feed = joined(plan, [request(floats(1, 3)), request(floats(2, 5))])
    assert feed["shape_a"].tolist() == [[3], [5], [5]]
    assert feed["shape_b"] is feed["shape_a"]


def test_requests_of_other_shapes_are_grouped_apart() -> None:
    requests = [request(floats(1, 3)), request(floats(2, 4)), request(floats(5, 3))]
    assert alike(PLAN, requests) == [[0, 2], [1]]
    assert alike(replace(PLAN, ragged=frozenset({"x"})), requests) == [[0, 1, 2]]
    assert alike(replace(PLAN, batched=False), requests) == [[0], [1], [2]]


def test_only_wanted_outputs_are_computed_in_the_configured_order() -> None:
    plan = replace(PLAN, outputs={name: replace(OUTPUT, name=name) for name in "cab"})
    requests = [request(floats(1, 1), wanted=frozenset("b")), request(floats(1, 1), wanted=frozenset("c"))]
    assert wanted_outputs(plan, requests) == ["c", "b"]
    answers = split(plan, [("c", floats(2, 1)), ("b", floats(2, 1))], requests)
    assert [sorted(answer) for answer in answers] == [["b"], ["c"]]


def test_scalar_takes_one_element() -> None:
    plan = replace(PLAN, batched=False, scalars=frozenset({"x"}))
    assert joined(plan, [request(floats(1))])["x"].shape == ()
    with pytest.raises(RunError, match="'x' is a scalar"):
        joined(plan, [request(floats(2))])


def test_scalar_output_takes_the_configured_dims() -> None:
    plan = replace(PLAN, batched=False, outputs={"y": replace(OUTPUT, dims=(1, 1))})
    assert split(plan, [("y", np.float32(3) * np.ones(()))], [request(floats(1))])[0]["y"].shape == (1, 1)


@pytest.mark.parametrize("rows", [1, 4])
def test_output_that_does_not_fit_the_batch_is_refused(rows: int) -> None:
    requests = [request(floats(1, 2)), request(floats(2, 2))]
    with pytest.raises(RunError, match="'y' cannot be split"):
        split(PLAN, [("y", floats(rows, 2))], requests)


class FakeSession:
    """Doubles x; refuses a batch that holds a negative value, as a Gather refuses an index."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        self.calls.append(len(feed["x"]))
        if (feed["x"] < 0).any():
            raise RunError("negative", invalid_argument=True)
        return [feed["x"] * 2 for _ in names]


def test_requests_alike_share_one_call() -> None:
    session = FakeSession()
    answers = BatchRunner(PLAN, session).run([request(floats(1, 2)), request(floats(2, 2)), request(floats(1, 2))])
    assert session.calls == [4]
    assert [answer["y"].shape[0] for answer in answers if isinstance(answer, dict)] == [1, 2, 1]


def test_bad_request_fails_alone() -> None:
    session = FakeSession()
    good, bad = request(floats(1, 2)), request(floats(1, 2, start=-9))
    answers = BatchRunner(PLAN, session).run([good, bad, good])
    assert isinstance(answers[1], RunError)
    assert [isinstance(answer, dict) for answer in answers] == [True, False, True]
    assert session.calls == [3, 1, 1, 1]


def test_answers_keep_the_order_of_the_requests_across_groups() -> None:
    requests = [request(floats(1, 2)), request(floats(1, 3)), request(floats(1, 2, start=-9)), request(floats(1, 3))]
    answers = BatchRunner(PLAN, FakeSession()).run(requests)
    assert [answer["y"].shape[1] if isinstance(answer, dict) else None for answer in answers] == [2, 3, None, 3]
