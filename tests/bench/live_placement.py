"""Live placement on streams of arrivals and departures: published rules and ours, on the same streams in one run.

    python -m tests.bench live_placement [--gpus 24] [--seeds 20] [--loads 60 80 100 110]

A100-80GB GPUs; Poisson arrivals, exponential stays, loads in percent of the compute slices. What is counted begins once
the fleet has filled. Acceptance is the part of arrivals that got a slice, and the same weighed by compute slices: who
accepts a whole GPU turns away many small ones later. GPUs used and stranded slices (free memory slices into which
nothing that is asked for fits) are means over the arrivals; moves are for each 100 arrivals; time is for each arrival.
Then small cases against an optimum that knows the future and may repack at any time, which nothing can beat.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from heapq import heappop, heappush

from ortools.math_opt.python import mathopt

from control_plane.mig import Geometry, Placement, Rules, SliceKind, maximal_mixes
from control_plane.slicing import Choice, Fleet, FleetGpu, GpuId, ReplicaId, Wanted, Weights
from control_plane.slicing.arrival import Arrival, place_arrival
from control_plane.slicing.board import Board
from control_plane.slicing.openness import Shapes
from tests.bench.placement_rules import LEFT_OUT, PRODUCT, PROFILES, RULES, Rule, free_slices, places

MIXES = {
    "uniform": {"1g": 1, "1g.2x": 1, "2g": 1, "3g": 1, "4g": 1, "7g": 1},
    "skewed to small": {"1g": 8, "1g.2x": 2, "2g": 4, "3g": 2, "4g": 1, "7g": 1},
    "bimodal": {"1g": 6, "2g": 1, "4g": 1, "7g": 3},
}
WEIGHTS = Weights(gpu=0.0)
"""Acceptance is what is compared: a GPU more in use costs nothing."""


@dataclass(frozen=True, slots=True)
class Event:
    at: float
    leaves: float
    profile: str


@dataclass(slots=True)
class Score:
    asked: int = 0
    accepted: int = 0
    asked_g: int = 0
    accepted_g: int = 0
    used: float = 0.0
    stranded: float = 0.0
    moves: int = 0
    seconds: float = 0.0

    def add(self, other: "Score") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def stream(mix: dict[str, int], load: float, gpus: int, arrivals: int, seed: int) -> list[Event]:
    """Return arrivals with stays of mean 1, at a rate that asks for `load` of the compute slices."""
    chance = random.Random(seed)
    keys, weights = list(mix), list(mix.values())
    mean = sum(PROFILES[key].g * weight for key, weight in mix.items()) / sum(weights)
    rate = load * PRODUCT.compute_slices * gpus / mean
    events, now = [], 0.0
    for _ in range(arrivals):
        now += chance.expovariate(rate)
        events.append(Event(now, now + chance.expovariate(1.0), chance.choices(keys, weights)[0]))
    return events


class Placed:
    """A method over a fleet: rules on tuples of placements."""

    def __init__(self, rule: Rule, gpus: int) -> None:
        self.name, self._rule = rule.name, rule
        self.gpus: list[Geometry] = [()] * gpus
        self._where: dict[int, tuple[int, Placement]] = {}
        self.moves = 0

    def arrive(self, number: int, profile: str) -> bool:
        found = self._rule.choose(self.gpus, profile)
        if found is None:
            return False
        gpu, placement = found
        self.gpus[gpu] = tuple(sorted((*self.gpus[gpu], placement)))
        self._where[number] = found
        return True

    def leave(self, number: int) -> None:
        gpu, placement = self._where.pop(number)
        self.gpus[gpu] = tuple(it for it in self.gpus[gpu] if it != placement)


class Ours:
    """The fast path; `most_moves` may move for one arrival, make before break."""

    def __init__(self, gpus: int, most_moves: int, mix: dict[str, int]) -> None:
        self.name = f"ours, {most_moves} moves" if most_moves else "ours, no moves"
        self._ids = [GpuId(f"{number:04}") for number in range(gpus)]
        fleet = Fleet.of(FleetGpu(it, PRODUCT) for it in self._ids)
        asked = {SliceKind(PRODUCT.name, key): float(weight) for key, weight in mix.items()}
        self._board, self._most = Board(fleet, {}, Shapes(asked)), most_moves
        self.moves = 0

    @property
    def gpus(self) -> list[Geometry]:
        return [self._board.geometry(it) for it in self._ids]

    def arrive(self, number: int, profile: str) -> bool:
        wanted = Wanted(ReplicaId(str(number)), (Choice(SliceKind(PRODUCT.name, profile)),))
        answer = place_arrival(self._board, wanted, WEIGHTS, self._most)
        if isinstance(answer, Arrival):
            self.moves += len(answer.moved)
        return isinstance(answer, Arrival)

    def leave(self, number: int) -> None:
        self._board.discard(self._board.take(ReplicaId(str(number))))


Method = Placed | Ours


def methods(gpus: int, mix: dict[str, int]) -> Iterator[Method]:
    for rule in RULES:
        yield Placed(rule, gpus)
    for most_moves in (0, 1, 2, 3):
        yield Ours(gpus, most_moves, mix)


def stranded(gpus: Sequence[Geometry], mix: dict[str, int]) -> int:
    return sum(free_slices(gpu) for gpu in gpus if not any(places(gpu, key) for key in mix))


def run(method: Method, events: Sequence[Event], mix: dict[str, int], warm_up: int) -> Score:
    """Let a method live through a stream; the first `warm_up` arrivals are not counted."""
    score, leaving = Score(), list[tuple[float, int]]()
    for number, event in enumerate(events):
        while leaving and leaving[0][0] <= event.at:
            method.leave(heappop(leaving)[1])
        moves, begun = method.moves, time.perf_counter()
        accepted = method.arrive(number, event.profile)
        took = time.perf_counter() - begun
        if accepted:
            heappush(leaving, (event.leaves, number))
        if number < warm_up:
            continue
        g, gpus = PROFILES[event.profile].g, method.gpus
        now = Score(1, accepted, g, g * accepted, moves=method.moves - moves, seconds=took)
        now.used, now.stranded = sum(map(bool, gpus)), stranded(gpus, mix)
        score.add(now)
    return score


@dataclass(frozen=True)
class Optimum:
    """The most that can be accepted by whoever knows the future, of small streams."""

    gpus: int
    cuts: list[Counter[str]] = field(
        default_factory=lambda: [
            Counter(dict(mix)) for mix in maximal_mixes(PRODUCT, Rules(frozenset(PROFILES))) if mix
        ]
    )

    def accepted(self, events: Sequence[Event], *, by_slices: bool) -> float:
        """Return the bound: who is accepted, and how each GPU is cut from arrival to arrival, repacked at will."""
        model = mathopt.Model()
        taken = [model.add_binary_variable() for _ in events]
        for event in events:
            alive = [(it, own) for it, own in zip(events, taken, strict=True) if it.at <= event.at < it.leaves]
            counts = [model.add_integer_variable(lb=0, ub=self.gpus) for _ in self.cuts]
            model.add_linear_constraint(mathopt.fast_sum(counts) <= self.gpus)
            for key in {it.profile for it, _ in alive}:
                room = (count * cut[key] for count, cut in zip(counts, self.cuts, strict=True) if cut[key])
                model.add_linear_constraint(
                    mathopt.fast_sum(own for it, own in alive if it.profile == key) <= mathopt.fast_sum(room)
                )
        worth = [PROFILES[it.profile].g if by_slices else 1 for it in events]
        model.maximize(mathopt.fast_sum(own * value for own, value in zip(taken, worth, strict=True)))
        limit = mathopt.SolveParameters(time_limit=timedelta(seconds=20))
        result = mathopt.solve(model, mathopt.SolverType.HIGHS, params=limit)
        return float(result.termination.objective_bounds.dual_bound)


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        print("  ".join(it.ljust(widths[0]) if not n else it.rjust(widths[n]) for n, it in enumerate(row)))
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--arrivals", type=int, default=400, help="counted, in each stream")
    parser.add_argument("--small-streams", type=int, default=5, help="of the comparison with the optimum")
    parser.add_argument("--loads", type=int, nargs="+", default=[60, 80, 100, 110])
    given = parser.parse_args(arguments)
    for name, mix in MIXES.items():
        for load in given.loads:
            warm_up = given.gpus * 8
            scores = {method.name: Score() for method in methods(1, mix)}
            for seed in range(given.seeds):
                events = stream(mix, load / 100, given.gpus, warm_up + given.arrivals, seed)
                for method in methods(given.gpus, mix):
                    scores[method.name].add(run(method, events, mix, warm_up))
            print(f"\n{name}, load {load}%: {given.gpus} GPUs, {given.seeds} streams of {given.arrivals}")
            show(
                ("", "accepted", "by slices", "GPUs used", "stranded", "moves/100", "us each"),
                [
                    (
                        who,
                        f"{it.accepted / it.asked:.2%}",
                        f"{it.accepted_g / it.asked_g:.2%}",
                        f"{it.used / it.asked:.2f}",
                        f"{it.stranded / it.asked:.2f}",
                        f"{100 * it.moves / it.asked:.1f}",
                        f"{1e6 * it.seconds / it.asked:.0f}",
                    )
                    for who, it in scores.items()
                ],
            )
    small(seeds=given.small_streams)
    print(f"\n{LEFT_OUT}")
    return 0


def small(gpus: int = 3, arrivals: int = 60, seeds: int = 5) -> None:
    """Compare with the optimum that knows the future."""
    optimum, rows = Optimum(gpus), list[tuple[str, ...]]()
    for name, mix in MIXES.items():
        parts: dict[str, list[tuple[float, float]]] = {method.name: [] for method in methods(1, mix)}
        for seed in range(seeds):
            events = stream(mix, 1.0, gpus, arrivals, 1000 + seed)
            most, most_g = optimum.accepted(events, by_slices=False), optimum.accepted(events, by_slices=True)
            for method in methods(gpus, mix):
                score = run(method, events, mix, 0)
                parts[method.name].append((score.accepted / most, score.accepted_g / most_g))
        for who, found in parts.items():
            counts, slices = zip(*found, strict=True)
            means = (sum(counts) / seeds, min(counts), sum(slices) / seeds, min(slices))
            rows.append((f"{name}: {who}", *(f"{it:.1%}" for it in means)))
    print(f"\nas a part of the most, knowing the future: {gpus} GPUs, {arrivals} arrivals, load 100%, {seeds} streams")
    show(("", "mean", "least", "by slices", "least"), rows)


if __name__ == "__main__":
    sys.exit(main())
