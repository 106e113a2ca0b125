"""Timing: candidates take turns; the choice is the fastest by ratio, and the simpler one where they tie."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from builders.onnx.timing import fastest, take_turns, time_candidates
from builders.parity import Run
from builders.reference import Case, Tensors
from tests.unit.builders.onnx.tiny_graphs import block, cases


class Clock:
    """A clock that only the fakes below move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, *seconds: float) -> Run:
        taken = list(seconds)

        def run(_inputs: Tensors) -> dict[str, npt.NDArray[np.float32]]:
            self.calls.append(name)
            self.now += taken[len([call for call in self.calls if call == name]) % len(taken)]
            return {}

        return run


CASE = Case("one", "measure", 1, {}, {})


def test_runs_take_turns_and_the_median_forgives_an_outlier() -> None:
    clock = Clock()
    runs = {"a": clock.run("a", 0.1, 0.1, 0.1, 0.1, 9.0), "b": clock.run("b", 0.2)}
    assert take_turns(runs, [CASE], 0.0, clock) == pytest.approx({"a": 0.1, "b": 0.2})
    assert clock.calls[:2] == ["a", "b"]  # not timed
    assert all(sorted(clock.calls[start : start + 2]) == ["a", "b"] for start in range(2, len(clock.calls), 2))


def test_no_run_always_follows_the_same_other() -> None:
    clock = Clock()
    take_turns({name: clock.run(name, 1.0) for name in "abc"}, [CASE], 900.0, clock)
    followed = Counter(pairwise(clock.calls))
    assert min(followed[before, after] for before in "abc" for after in "abc" if before != after) > 50
    assert min(followed[name, name] for name in "abc") > 10


def test_turns_go_on_for_the_time_that_is_given() -> None:
    clock = Clock()
    take_turns({"a": clock.run("a", 1.0)}, [CASE], 20.0, clock)
    assert len(clock.calls) == 21


def test_each_batch_size_of_the_measure_cases_is_timed(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx")
    timings = time_candidates({"first": source, "second": source}, cases(source, 4), threads=1, seconds=0.0)
    assert list(timings) == ["first", "second"]
    assert set(timings["first"]) == {4}
    assert timings["first"][4] > 0
    assert time_candidates({"first": source}, cases(source, 1), threads=1, seconds=0.0) == {"first": {}}


@pytest.mark.parametrize(
    ("plain", "fused", "chosen"),
    [
        ({1: 1.0, 8: 1.0}, {1: 0.98, 8: 0.98}, "plain"),
        ({1: 1.0, 8: 1.0}, {1: 0.9, 8: 1.0}, "fused"),
        ({1: 1.0, 8: 1.0}, {1: 0.5, 8: 2.0}, "plain"),
        ({1: 0.001, 8: 1.0}, {1: 0.0005, 8: 1.5}, "fused"),
    ],
)
def test_the_fastest_by_ratio_over_all_batch_sizes(
    plain: dict[int, float], fused: dict[int, float], chosen: str
) -> None:
    timings = {"plain": plain, "fused": fused}
    assert fastest(timings, ("fused", "plain")) == chosen
    assert fastest(timings, ("fused",)) == "fused"


def test_nothing_allowed_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of the candidates that are allowed was timed"):
        fastest({"plain": {1: 1.0}}, ("fused",))
