import pytest

from builders.forms import InputRange
from builders.tensorrt.profiles import profile_problems

SHAPES = {"x": (-1, 8), "fixed": (4,)}


def test_ranges_that_fit() -> None:
    assert profile_problems(SHAPES, [InputRange("x", (1, 8), (1, 8), (9, 8))]) == []
    assert profile_problems(SHAPES, [InputRange("x", (0, 8), (1, 8), (9, 8)), InputRange("fixed", *[(4,)] * 3)]) == []


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([], "input 'x' has the dynamic shape [-1, 8] and no range: give min, opt, max"),
        (
            [InputRange("x", (1, 8), (2,), (3, 8))],
            "input 'x': opt [2] has 1 dimensions, the model's shape [-1, 8] has 2",
        ),
        (
            [InputRange("x", (1, 8), (2, 8), (3, 9))],
            "input 'x': max [3, 9] is not a case of the model's shape [-1, 8]",
        ),
        (
            [InputRange("x", (1, 8), (4, 8), (3, 8))],
            "input 'x': min [1, 8] <= opt [4, 8] <= max [3, 8] does not hold",
        ),
        (
            [InputRange("x", (1, 8), (1, 8), (1, 8)), InputRange("y", (1,), (1,), (1,))],
            "there is no input 'y'; the model has 'x', 'fixed'",
        ),
    ],
)
def test_each_range_that_does_not_fit_is_told(ranges: list[InputRange], problem: str) -> None:
    assert profile_problems(SHAPES, ranges) == [problem]
