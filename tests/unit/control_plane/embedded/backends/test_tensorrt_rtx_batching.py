from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.batching import Request, alike, joined, split
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import RunError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.profiles import choose_profile
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.signature import Array, ShapeRange

Y = frozenset({"y"})


def floats(*shape: int, start: int = 0) -> Array:
    return (np.arange(np.prod(shape, dtype=int)) + start).astype(np.float32).reshape(shape)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 4))
def test_what_is_joined_is_cut_apart_again(sizes: list[int], width: int) -> None:
    arrays = [floats(size, width, start=100 * at) for at, size in enumerate(sizes)]
    requests = [Request({"x": array}, Y) for array in arrays]
    feed = joined(requests)
    assert feed["x"].shape == (sum(sizes), width)
    for array, answer in zip(arrays, split({"y": feed["x"], "z": feed["x"]}, requests, batched=True), strict=True):
        assert set(answer) == {"y"}
        np.testing.assert_array_equal(answer["y"], array)


def test_requests_of_other_shapes_run_apart_and_without_batching_all_do() -> None:
    requests = [Request({"x": floats(*shape)}, Y) for shape in ((1, 3), (2, 4), (5, 3))]
    assert alike(requests, batched=True) == [[0, 2], [1]]
    assert alike(requests, batched=False) == [[0], [1], [2]]


def test_an_output_of_another_batch_size_is_not_split() -> None:
    with pytest.raises(RunError, match=r"output 'y' cannot be split .* batch size 2 is expected, .* shape \[3, 1\]"):
        split({"y": floats(3, 1)}, [Request({"x": floats(1, 1)}, Y)] * 2, batched=True)


def shapes_up_to(*largest: int) -> ShapeRange:
    return ShapeRange((1,) * len(largest), largest, largest)


@pytest.mark.parametrize(("batch", "width", "chosen"), [(1, 8, 1), (1, 9, 2), (5, 9, 0), (4, 64, 2)])
def test_the_tightest_profile_that_fits_is_chosen(batch: int, width: int, chosen: int) -> None:
    profiles = [
        {"ids": shapes_up_to(32, 256), "count": shapes_up_to(32, 1)},
        {"ids": shapes_up_to(1, 8), "count": shapes_up_to(1, 1)},
        {"ids": shapes_up_to(4, 64), "count": shapes_up_to(4, 1)},
    ]
    assert choose_profile(profiles, {"ids": (batch, width), "count": (batch, 1)}) == chosen


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({"a": (9, 1), "b": (1, 1)}, r"input 'a' has shape \[9, 1\], the engine takes \[1, 1\] to \[4, 1\], "),
        ({"a": (4,), "b": (1, 1)}, r"input 'a' has shape \[4\]"),
        (
            {"a": (4, 1), "b": (4, 1)},
            r"no optimization profile .* takes the shapes 'a' \[4, 1\], 'b' \[4, 1\] together",
        ),
    ],
)
def test_a_shape_that_no_profile_takes_is_told(shapes: Mapping[str, tuple[int, ...]], problem: str) -> None:
    profiles = [
        {"a": shapes_up_to(4, 1), "b": shapes_up_to(2, 1)},
        {"a": shapes_up_to(2, 1), "b": shapes_up_to(4, 1)},
    ]
    with pytest.raises(RunError, match=problem):
        choose_profile(profiles, shapes)
