"""Sizing for many demands: prices of slices first, then a small programme.

At a price for each kind of slice every demand picks its cheapest cover, on its own. The prices at which all of them
together cost most, while no cut of a GPU is worth more than the GPU, are found by cutting planes; that cost is a bound.
At these prices nearly every demand has one cheapest cover, and keeps it; those that are undecided go into a programme
together with the GPUs.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.math_opt.python import mathopt

from control_plane.mig import SliceKind
from control_plane.sizing.covers import CoverTable
from control_plane.sizing.layout import Wanted
from control_plane.sizing.programme import Answer, Asked, Cut, SolverError, Term, add_gpus, add_slices, solved

_ROUNDS = 300
_PROVED = 1e-5
_KEPT = 0.3
"""Part of the best prices so far in those that are tried next: without it they jump about."""
_UNDECIDED = 1500
_OPTIONS = 8
"""Of the demands nearest to another choice so many stay undecided, each between so many covers."""
_LAST_S = 3.0
"""Seconds that the last programme has at least, of those that are given."""

Floats = NDArray[np.float64]
Cover = Mapping[SliceKind, int]
Picks = list[Cover]


@dataclass(frozen=True, slots=True)
class _Choices:
    """The covers of all demands under each other; `first` is where each demand's begin, `owner` whose each row is.

    A demand that needs many slices has fractions in their place: its rate by one kind alone, each.
    """

    rows: Floats
    first: NDArray[np.int64]
    owner: NDArray[np.int64]
    whole: tuple[bool, ...]
    tables: tuple[CoverTable, ...]

    @classmethod
    def of(cls, asked: Sequence[Asked], kinds: Sequence[SliceKind]) -> "_Choices":
        known: dict[tuple[float, ...], CoverTable] = {}
        blocks: list[Floats] = []
        whole: list[bool] = []
        tables: list[CoverTable] = []
        for it in asked:
            capacities = it.capacities(kinds)
            if capacities not in known:
                known[capacities] = CoverTable.of(capacities)
            table = known[capacities]
            own = table.covers(it.demand.rate, it.demand.replicas)
            whole.append(own is not None)
            blocks.append(own if own is not None else _fractions(it, capacities))
            tables.append(table)
        lengths = np.array([len(block) for block in blocks])
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        owner = np.repeat(np.arange(len(blocks)), lengths)
        return cls(np.concatenate(blocks), first, owner, tuple(whole), tuple(tables))

    def cheapest(self, prices: Floats) -> "_Priced":
        """Return what each row costs at these prices, and each demand's cheapest one."""
        cost = self.rows @ prices
        least = np.minimum.reduceat(cost, self.first)
        lowest = np.flatnonzero(cost <= least[self.owner])
        _, where = np.unique(self.owner[lowest], return_index=True)
        return _Priced(cost, least, lowest[where])


@dataclass(frozen=True, slots=True)
class _Priced:
    """What each row costs, what each demand's cheapest one does, and which row that is."""

    cost: Floats
    least: Floats
    picked: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Problem:
    """All that is given: the demands with their choices, the kinds of slices, and the ways to cut a GPU."""

    choices: _Choices
    asked: Sequence[Asked]
    kinds: Sequence[SliceKind]
    cuts: Sequence[Cut]


def _fractions(asked: Asked, capacities: Sequence[float]) -> Floats:
    parts = [asked.demand.rate / it if it else 0.0 for it in capacities]
    return np.diag(parts)[[place for place, it in enumerate(capacities) if it]]


def decomposed(asked: Sequence[Asked], kinds: Sequence[SliceKind], cuts: Sequence[Cut], until: float) -> Answer:
    """Return an answer, and a bound that holds for every answer. Raises SolverError."""
    problem = _Problem(_Choices.of(asked, kinds), asked, kinds, cuts)
    prices = _prices(problem, until - _LAST_S)
    priced = problem.choices.cheapest(prices)
    picks, gpus = _decided(problem, priced, until)
    try:
        better = _programme(problem, priced, until)
    except SolverError:
        better = picks, gpus
    cost = [sum(n * cut.cost for n, cut in zip(it[1], cuts, strict=True)) for it in ((picks, gpus), better)]
    picks, gpus = better if cost[1] < cost[0] else (picks, gpus)
    wanted = [Wanted(it.demand, it.points, pick) for it, pick in zip(asked, picks, strict=True)]
    return Answer(wanted, gpus, _bound(problem, priced, prices))


def _prices(problem: _Problem, until: float) -> Floats:
    """Return prices at which the cheapest covers together cost most (the dual of choosing covers and cuts)."""
    choices, asked, kinds, cuts = problem.choices, problem.asked, problem.kinds, problem.cuts
    names = sorted({it.demand.model for it in asked})
    group = np.array([names.index(it.demand.model) for it in asked])
    place = {kind: index for index, kind in enumerate(kinds)}
    model = mathopt.Model()
    price = [model.add_variable(lb=0, ub=max(cut.cost for cut in cuts)) for _ in kinds]
    worth = [model.add_variable(lb=0) for _ in names]
    for cut in cuts:
        model.add_linear_constraint(mathopt.fast_sum(price[place[it]] * n for it, n in cut.gives.items()) <= cut.cost)
    model.maximize(mathopt.fast_sum(worth))
    now = np.array([min(cut.cost / cut.gives[kind] for cut in cuts if kind in cut.gives) / 2 for kind in kinds])
    best, bound = now, -1.0
    for _ in range(_ROUNDS):
        priced = choices.cheapest(now)
        if (total := float(priced.least.sum())) > bound:
            best, bound = now, total
        needs = np.zeros((len(names), len(kinds)))
        np.add.at(needs, group, choices.rows[priced.picked])
        for variable, need in zip(worth, needs, strict=True):
            value = mathopt.fast_sum(price[index] * float(need[index]) for index in np.flatnonzero(need))
            model.add_linear_constraint(variable <= value)
        result = mathopt.solve(model, mathopt.SolverType.GLOP)
        if result.objective_value() - bound <= _PROVED * bound or time.monotonic() > until:
            break
        values = result.variable_values()
        now = (1 - _KEPT) * np.array([values[variable] for variable in price]) + _KEPT * best
    value = max(sum(best[place[it]] * n for it, n in cut.gives.items()) / cut.cost for cut in cuts)
    prices: Floats = best / max(1.0, value)  # the solver keeps to its constraints within a tolerance, a bound must not
    return prices


def _bound(problem: _Problem, priced: _Priced, prices: Floats) -> float:
    """Return what the demands cost at these prices at least: also where covers were too long to be looked at."""
    each, choices = prices.tolist(), problem.choices
    floors = [
        table.floor(it.demand.rate, each, it.capacities(problem.kinds)) if whole else math.inf
        for it, table, whole in zip(problem.asked, choices.tables, choices.whole, strict=True)
    ]
    return float(np.minimum(priced.least, floors).sum())


def _decided(problem: _Problem, priced: _Priced, until: float) -> tuple[Picks, list[int]]:
    """Let every demand have its cheapest cover, and find the GPUs for that: always an answer, in no time."""
    choices, kinds = problem.choices, problem.kinds
    picks: Picks = []
    for it, row, whole in zip(problem.asked, choices.rows[priced.picked], choices.whole, strict=True):
        least = 0 if whole else it.demand.replicas
        picks.append({kind: max(least, math.ceil(n - 1e-9)) for kind, n in zip(kinds, row, strict=True) if n})
    taken = {kind: float(sum(pick.get(kind, 0) for pick in picks)) for kind in kinds}
    model = mathopt.Model()
    gpus = add_gpus(model, problem.cuts, {kind: [n] for kind, n in taken.items()})
    values, _ = solved(model, min(until, time.monotonic() + 2))
    return picks, [round(values[gpu]) for gpu in gpus]


def _programme(problem: _Problem, priced: _Priced, until: float) -> tuple[Picks, list[int]]:
    """Leave open what is nearly as cheap otherwise, and let the solver choose with the GPUs in sight."""
    choices, kinds = problem.choices, problem.kinds
    undecided = _undecided(choices, priced)
    model = mathopt.Model()
    taken: dict[SliceKind, list[Term]] = {kind: [] for kind in kinds}
    decided: dict[int, Cover] = {}
    options: dict[int, list[tuple[mathopt.Variable, Cover]]] = {}
    slices: dict[int, dict[SliceKind, mathopt.Variable]] = {}
    for index, it in enumerate(problem.asked):
        if not choices.whole[index]:
            slices[index] = add_slices(model, it)
            _take(taken, *((kind, variable) for kind, variable in slices[index].items()))
        elif index in undecided:
            options[index] = [
                (model.add_binary_variable(), _cover(choices.rows[row], kinds)) for row in undecided[index]
            ]
            model.add_linear_constraint(mathopt.fast_sum(variable for variable, _ in options[index]) == 1)
            _take(taken, *((kind, variable * n) for variable, cover in options[index] for kind, n in cover.items()))
        else:
            decided[index] = _cover(choices.rows[priced.picked[index]], kinds)
            _take(taken, *((kind, float(n)) for kind, n in decided[index].items()))
    gpus = add_gpus(model, problem.cuts, taken)
    values, _ = solved(model, until)
    chosen = dict(decided)
    chosen |= {index: max(own, key=lambda option: values[option[0]])[1] for index, own in options.items()}
    chosen |= {index: {kind: round(values[it]) for kind, it in own.items()} for index, own in slices.items()}
    return [chosen[index] for index in range(len(problem.asked))], [round(values[gpu]) for gpu in gpus]


def _take(taken: Mapping[SliceKind, list[Term]], *terms: tuple[SliceKind, Term]) -> None:
    for kind, term in terms:
        taken[kind].append(term)


def _undecided(choices: _Choices, priced: _Priced) -> dict[int, list[int]]:
    """Return the demands that are nearest to another cover, each with the rows of its cheapest ones."""
    cost, found = priced.cost, list[tuple[float, int, list[int]]]()
    ends = [*choices.first[1:].tolist(), len(cost)]
    for index, (first, end) in enumerate(zip(choices.first.tolist(), ends, strict=True)):
        if not choices.whole[index] or end - first < 2:  # noqa: PLR2004 - one cover is no choice
            continue
        order = first + np.argsort(cost[first:end], kind="stable")[:_OPTIONS]
        found.append((float(cost[order[1]] - priced.least[index]), index, order.tolist()))
    return {index: rows for _, index, rows in sorted(found)[:_UNDECIDED]}


def _cover(row: Floats, kinds: Sequence[SliceKind]) -> Cover:
    return {kind: int(n) for kind, n in zip(kinds, row, strict=True) if n}
