"""Timing of candidates: all run in one process, taking turns, so that whatever else the machine does slows all alike.

`candidates` makes them, the pipeline keeps the one that `fastest` names among those that pass parity.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np

from builders.parity import Run, onnx_runner
from builders.reference import Case

MARGIN = 0.03
"""By how much a later candidate must be faster than an earlier, simpler one: less is noise on a machine in use."""

_MIN_ROUNDS = 5
_SEED = 5

Timings = Mapping[str, Mapping[int, float]]
"""Seconds per call by candidate and batch size."""


def time_candidates(
    models: Mapping[str, Path], cases: Sequence[Case], *, threads: int, seconds: float, cuda: bool = False
) -> Timings:
    """Return the median seconds per call of every model at every batch size of the `measure` cases.

    The models take turns for about `seconds` at each batch size and for at least five rounds. A batch size with several
    cases counts each case alike. `threads` 0: one for each core. Raises CandidateError where ONNX Runtime does not load
    or run a model.
    """
    runs = {name: onnx_runner(path, threads=threads, cuda=cuda) for name, path in models.items()}
    sizes: dict[int, list[Case]] = {}
    for case in cases:
        if case.kind == "measure":
            sizes.setdefault(case.batch, []).append(case)
    timings: dict[str, dict[int, float]] = {name: {} for name in runs}
    for batch, alike in sorted(sizes.items()):
        for name, figure in take_turns(runs, alike, seconds).items():
            timings[name][batch] = figure
    return timings


def take_turns(
    runs: Mapping[str, Run], cases: Sequence[Case], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return for each of `runs` its median seconds for a case, averaged over `cases`, from calls taken in turns.

    The order is drawn anew for each round: a session's threads go on spinning for a while after a call and slow the
    next one's, so with fixed neighbours sessions of one and the same graph come out up to half slower than others.
    """
    order, rng = list(runs), np.random.default_rng(_SEED)
    for name in order:  # the first call allocates
        runs[name](cases[0].inputs)
    samples: dict[str, list[list[float]]] = {name: [[] for _ in cases] for name in order}
    end = clock() + seconds
    for number in cycle(range(len(cases))):
        if number == 0 and len(samples[order[0]][0]) >= _MIN_ROUNDS and clock() >= end:
            break
        for name in order:
            begun = clock()
            runs[name](cases[number].inputs)
            samples[name][number].append(clock() - begun)
        order = [order[place] for place in rng.permutation(len(order))]
    return {name: statistics.fmean(map(statistics.median, each)) for name, each in samples.items()}


def fastest(timings: Timings, allowed: Iterable[str]) -> str:
    """Return the name of the fastest of `allowed`, by the geometric mean of the ratios over the batch sizes.

    Candidates are ordered as in `timings`. An earlier one wins unless a later one is faster by more than MARGIN.
    Raises ValueError where none of `allowed` was timed.
    """
    permitted = set(allowed)
    names = [name for name in timings if name in permitted]
    if not names:
        raise ValueError("none of the candidates that are allowed was timed")
    return next(name for name in names if all(_ratio(timings, name, other) <= 1 + MARGIN for other in names))


def _ratio(timings: Timings, name: str, other: str) -> float:
    """Return how many times slower `name` is than `other`."""
    sizes = timings[name]
    return math.exp(statistics.fmean(math.log(taken / timings[other][batch]) for batch, taken in sizes.items()))
