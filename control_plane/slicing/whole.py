"""The best assignment for the whole fleet, with a bound: what every GPU is to become, in one integer programme.

For each class of GPUs a whole number of each of its columns (`columns`); those who leave and those who come are given
to the new slices by kind. Without whole numbers it is a linear programme, whose value no answer can be below. Columns
that no better answer than a known one can hold are left out by their reduced cost, which the bound survives. Keeping
groups apart is left to the handing out: the bound does not know of it.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from ortools.math_opt.python import mathopt

from control_plane.mig import SliceKind
from control_plane.slicing.columns import LEAST_MOVE, Column, GpuClass, Kind, classes, columns
from control_plane.slicing.model import Fleet, GpuId, Rejection, ReplicaId, Seat, Target, Wanted, Weights
from control_plane.slicing.planning import SlicePlan, plan_slices
from control_plane.slicing.sequence import Sequence as Ordered
from control_plane.slicing.sequence import sequence

_WHY = "The whole fleet costs less so."
_EXACT = 1e-6
"""What the solver's figures are right to, as a part of them."""
_NOT_WORTH = "no slice is free, and no moves that are worth it make one"


@dataclass(frozen=True)
class Optimised:
    """A plan that can be carried out, the least that any plan can cost, and the moves that could not be made.

    Costs are without fragmentation, which the optimiser does not weigh.
    """

    plan: SlicePlan
    bound: float
    given_up: tuple[ReplicaId, ...] = ()
    detours: int = 0

    @property
    def cost(self) -> float:
        """What the plan costs, of what the bound is about."""
        return self.plan.cost.total - self.plan.cost.fragmentation

    @property
    def gap(self) -> float:
        """How far the cost may be above the least one, as a part of the bound; 0 is proved."""
        return max(0.0, (self.cost - self.bound) / self.bound) if self.bound > 0 else 0.0


def optimise(
    fleet: Fleet,
    wanted: Iterable[Wanted],
    weights: Weights | None = None,
    seconds: float = 10.0,
    most_moves: int | None = None,
) -> Optimised:
    """Return the plan of least cost that is found in about `seconds`, never worse than that of the fast path."""
    given, asked = weights or Weights(), {it.id: it for it in sorted(wanted, key=lambda it: it.id)}
    until = time.monotonic() + seconds
    fast = plan_slices(fleet, asked.values(), given, most_moves)
    target = best_target(fleet, asked, given, (until, most_moves), _weighed(fast))
    bound = target.bound if target.bound is not None else 0.0
    if not target.seats and not target.rejected:
        return Optimised(fast, min(bound, _weighed(fast)))
    ordered = sequence(fleet, target, asked, given, _WHY)
    if _weighed(ordered.plan) < _weighed(fast) - 1e-9 and _within(ordered, asked, most_moves):
        return Optimised(ordered.plan, min(bound, _weighed(ordered.plan)), ordered.given_up, ordered.detours)
    return Optimised(fast, min(bound, _weighed(fast)))


def _weighed(plan: SlicePlan) -> float:
    return plan.cost.total - plan.cost.fragmentation


def _within(ordered: Ordered, asked: Mapping[ReplicaId, Wanted], most_moves: int | None) -> bool:
    moves = sum(asked[it].move_cost > 0 for it in ordered.plan.moved) + ordered.detours
    return most_moves is None or moves <= most_moves


@dataclass(frozen=True)
class _Problem:
    """All that the programme is made of. `extra` is how many of each kind need a slice whatever is done."""

    classes: tuple[GpuClass, ...]
    columns: tuple[tuple[Column, ...], ...]
    extra: Counter[Kind]
    kinds: tuple[Kind, ...]
    weights: Weights
    most_moves: int | None

    @property
    def slices(self) -> list[SliceKind]:
        """Every kind of slice that somebody may be on."""
        return sorted({it for kind in self.kinds for it, _ in kind.choices})


def best_target(
    fleet: Fleet,
    asked: Mapping[ReplicaId, Wanted],
    weights: Weights,
    limits: tuple[float, int | None],
    known_cost: float = math.inf,
) -> Target:
    """Return where everybody is to be in the end; `limits` are until when (monotonic) and the most moves.

    `known_cost` is that of an answer which is there already: only a better one is looked for. Where none is found, the
    target holds nothing but the bound.
    """
    until, most_moves = limits
    fixed = _fixed(fleet, asked)
    asked = {it: wanted for it, wanted in asked.items() if it not in fixed}
    found = classes(fleet, asked)
    seated = {it for of in found for it in _staying(fleet, of)}
    usable = {choice.kind for it in asked.values() for choice in it.choices}
    extra = Counter(Kind.of(it) for it in asked.values() if it.id not in seated)
    kinds = tuple(sorted({Kind.of(it) for it in asked.values()}))
    made = tuple(
        columns(of, frozenset(it.profile for it in usable if it.product == of.product.name), weights) for of in found
    )
    problem = _Problem(found, made, extra, kinds, weights, most_moves)
    relaxed = _solve(problem, until, whole=False)
    if relaxed is None:
        return Target()
    nothing = LEAST_MOVE * sum(1 for it in seated if not asked[it].move_cost)
    worth = _worth_having(problem, relaxed, known_cost)
    answer = _solve(worth, until, whole=True)
    if answer is None:
        return Target(bound=relaxed.bound - nothing)
    bound = max(relaxed.bound, min(answer.bound, known_cost)) - nothing
    return replace(_handed_out(fleet, asked, worth, answer, fixed), bound=bound)


@dataclass(frozen=True)
class _Answer:
    """What the solver found: how many GPUs of each column, who is on which kind of slice, its value and bound.

    `excess` is by how much each column costs more than it is worth at the prices of the relaxation.
    """

    gpus: tuple[tuple[float, ...], ...]
    placed: Mapping[tuple[Kind, SliceKind], float]
    value: float
    bound: float
    excess: tuple[tuple[float, ...], ...] = ()


def _solve(problem: _Problem, until: float, *, whole: bool) -> _Answer | None:
    """Ask the solver; None where it has no answer in time."""
    model = mathopt.Model()
    gpus = [[model.add_variable(lb=0, is_integer=whole) for _ in own] for own in problem.columns]
    for of, own in zip(problem.classes, gpus, strict=True):
        model.add_linear_constraint(mathopt.fast_sum(own) == len(of.gpus))
    pairs = [(kind, it) for kind in problem.kinds for it, _ in kind.choices]
    placed = {pair: model.add_variable(lb=0, is_integer=whole) for pair in pairs}
    refused = {kind: model.add_variable(lb=0, ub=problem.extra[kind], is_integer=whole) for kind in problem.kinds}
    everything = [
        (of, column, variable)
        for of, own, variables in zip(problem.classes, problem.columns, gpus, strict=True)
        for column, variable in zip(own, variables, strict=True)
    ]
    _balance(model, problem, everything, placed, refused)
    weights = problem.weights
    cost = [variable * column.cost for _, column, variable in everything if column.cost]
    cost += [it * (weights.risk * (kind.risk(of) or 0.0)) for (kind, of), it in placed.items()]
    cost += [it * (weights.rejection * kind.value) for kind, it in refused.items()]
    model.minimize(mathopt.fast_sum(cost))
    limit = timedelta(seconds=max(0.5, until - time.monotonic()))
    solver = mathopt.SolverType.HIGHS if whole else mathopt.SolverType.GLOP
    result = mathopt.solve(model, solver, params=mathopt.SolveParameters(time_limit=limit))
    if not result.has_primal_feasible_solution():
        return None
    values = result.variable_values()
    costs = result.reduced_costs() if not whole and result.has_dual_feasible_solution() else {}
    return _Answer(
        tuple(tuple(values[it] for it in own) for own in gpus),
        {pair: values[it] for pair, it in placed.items()},
        result.objective_value(),
        result.termination.objective_bounds.dual_bound,
        tuple(tuple(max(0.0, costs.get(it, 0.0)) for it in own) for own in gpus) if costs else (),
    )


_Column = tuple[GpuClass, Column, mathopt.Variable]


def _balance(
    model: mathopt.Model,
    problem: _Problem,
    everything: Sequence[_Column],
    placed: Mapping[tuple[Kind, SliceKind], mathopt.Variable],
    refused: Mapping[Kind, mathopt.Variable],
) -> None:
    """Everybody who needs a slice gets one or is refused, no slice is given twice, and moves are within the budget."""
    leaving: dict[Kind, list[mathopt.LinearProduct | mathopt.LinearTerm | float]] = {it: [] for it in problem.kinds}
    given: dict[SliceKind, list[mathopt.LinearProduct | mathopt.LinearTerm | float]] = {it: [] for it in problem.slices}
    for of, column, variable in everything:
        for kind, count in column.leaves:
            leaving[kind].append(variable * count)
        for profile, count in column.gives().items():
            given[SliceKind(of.product.name, profile)].append(variable * count)
    for kind in problem.kinds:
        own = [placed[kind, it] for it, _ in kind.choices]
        model.add_linear_constraint(
            mathopt.fast_sum([*own, refused[kind]]) == problem.extra[kind] + mathopt.fast_sum(leaving[kind])
        )
    for it, terms in given.items():
        taken = [placed[kind, it] for kind in problem.kinds if (kind, it) in placed]
        model.add_linear_constraint(mathopt.fast_sum(taken) <= mathopt.fast_sum(terms))
    if problem.most_moves is not None:
        moves = mathopt.fast_sum(variable * column.moves for _, column, variable in everything if column.moves)
        model.add_linear_constraint(moves <= problem.most_moves)


def _worth_having(problem: _Problem, relaxed: _Answer, known_cost: float) -> _Problem:
    """Leave out the columns that no answer better than the known one can hold."""
    if not relaxed.excess or math.isinf(known_cost):
        return problem
    room = known_cost - relaxed.bound + _EXACT * max(1.0, known_cost)
    kept = tuple(
        tuple(column for column, excess in zip(own, costs, strict=True) if excess <= room)
        for own, costs in zip(problem.columns, relaxed.excess, strict=True)
    )
    return replace(problem, columns=kept)


def _fixed(fleet: Fleet, asked: Mapping[ReplicaId, Wanted]) -> dict[ReplicaId, tuple[Wanted, Seat]]:
    """Return who stays because its GPU keeps what it has and is not cut anew."""
    return {
        replica: (asked[replica], seat)
        for seat, replica in fleet.taken()
        if (gpu := fleet.by_id[seat.gpu]).usable and gpu.cordoned and replica in asked
    }


def _handed_out(
    fleet: Fleet,
    asked: Mapping[ReplicaId, Wanted],
    problem: _Problem,
    answer: _Answer,
    fixed: Mapping[ReplicaId, tuple[Wanted, Seat]],
) -> Target:
    """Say which GPU of a class becomes what, and which replica of a kind gets which new slice."""
    work = _HandingOut(fleet, asked)
    for wanted, seat in fixed.values():
        work.sit(wanted, seat)
    for of, own, counts in zip(problem.classes, problem.columns, answer.gpus, strict=True):
        left = iter(of.gpus)
        for column, count in zip(own, counts, strict=True):
            for _ in range(round(count)):
                work.become(of, column, next(left))
    work.seat_the_others(answer.placed)
    return Target(dict(sorted(work.seats.items())), tuple(work.rejected))


class _HandingOut:
    """Who is where; `free` are the new slices of each kind that nobody has yet."""

    def __init__(self, fleet: Fleet, asked: Mapping[ReplicaId, Wanted]) -> None:
        self._fleet, self._asked = fleet, asked
        self.seats: dict[ReplicaId, Seat] = {}
        self.rejected: list[Rejection] = []
        self._free: dict[SliceKind, list[Seat]] = {}
        self._domains: set[tuple[str, str, str]] = set()

    def become(self, of: GpuClass, column: Column, gpu: GpuId) -> None:
        """Have a GPU become a column of its class."""
        holders = {it.placement: it.replica for it in self._fleet.by_id[gpu].slices}
        for placement in column.stays:
            if (replica := holders[placement]) is not None:
                self.sit(self._asked[replica], Seat(gpu, placement))
        for placement in column.cuts:
            kind = SliceKind(of.product.name, placement.profile)
            self._free.setdefault(kind, []).append(Seat(gpu, placement))

    def seat_the_others(self, placed: Mapping[tuple[Kind, SliceKind], float]) -> None:
        """Give the new slices to those who have none, as many of each kind as were placed; those who stand first."""
        waiting: dict[Kind, list[Wanted]] = {}
        for it in self._asked.values():
            if it.id not in self.seats:
                waiting.setdefault(Kind.of(it), []).append(it)
        there = _seats(self._fleet)
        for kind, each in sorted(waiting.items()):
            offered = [seat for it, _ in kind.choices for seat in self._taken(it, round(placed.get((kind, it), 0.0)))]
            for it in sorted(each, key=lambda wanted: (wanted.id not in there, wanted.id)):
                seat = next((seat for seat in offered if self._domain(it, seat) not in self._domains), None)
                if seat is not None:
                    offered.remove(seat)
                    self.sit(it, seat)
                elif it.id in there:
                    self.seats[it.id] = there[it.id]
                else:
                    self.rejected.append(Rejection(it.id, _NOT_WORTH))

    def _taken(self, kind: SliceKind, count: int) -> list[Seat]:
        free = self._free.get(kind, [])
        taken, self._free[kind] = free[:count], free[count:]
        return taken

    def sit(self, it: Wanted, seat: Seat) -> None:
        """Have a replica be there."""
        self.seats[it.id] = seat
        if (domain := self._domain(it, seat)) is not None:
            self._domains.add(domain)

    def _domain(self, it: Wanted, seat: Seat) -> tuple[str, str, str] | None:
        name = self._fleet.by_id[seat.gpu].domain(it.spread)
        return (it.group, it.spread, name) if name else None


def _staying(fleet: Fleet, of: GpuClass) -> Iterable[ReplicaId]:
    """Yield who may stay on the GPUs of a class."""
    may = {placement for placement, _ in of.residents}
    for gpu in of.gpus:
        for it in fleet.by_id[gpu].slices:
            if it.replica is not None and it.placement in may:
                yield it.replica


def _seats(fleet: Fleet) -> Mapping[ReplicaId, Seat]:
    return {replica: seats[0] for replica, seats in fleet.seats.items() if fleet.by_id[seats[0].gpu].usable}
