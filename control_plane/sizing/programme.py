"""What the integer programmes of sizing have in common: demands with their points, cuts of GPUs, asking the solver."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from ortools.math_opt.python import mathopt

from control_plane.errors import ControlPlaneError
from control_plane.mig import SliceKind
from control_plane.mig.geometry import Mix
from control_plane.sizing.layout import Wanted
from control_plane.sizing.model import Demand, OperatingPoint

_LEAST_S = 0.5


class SolverError(ControlPlaneError):
    """The solver gave no answer within its time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A demand with the best point of each kind of slice that can serve it."""

    demand: Demand
    points: Mapping[SliceKind, OperatingPoint]

    def capacities(self, kinds: Sequence[SliceKind]) -> tuple[float, ...]:
        """Return what a slice of each kind can serve, in requests per second; 0 where it cannot."""
        return tuple(self.points[kind].throughput if kind in self.points else 0.0 for kind in kinds)


@dataclass(frozen=True, slots=True)
class Cut:
    """A way to cut a GPU of a product: what it costs, and how many slices of each kind it gives."""

    product: str
    mix: Mix
    cost: float
    gives: Mapping[SliceKind, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What each demand gets, how many GPUs of each cut, and the least that any answer costs."""

    wanted: list[Wanted]
    gpus: list[int]
    bound: float


Term: TypeAlias = mathopt.LinearSum | mathopt.Variable | float
"""A part of what is taken of a kind of slice; they are summed up."""


def add_gpus(
    model: mathopt.Model, cuts: Sequence[Cut], taken: Mapping[SliceKind, list[Term]]
) -> list[mathopt.Variable]:
    """Add GPUs of each cut, as many as what is taken needs; their cost is to be the least."""
    gpus = [model.add_integer_variable(lb=0) for _ in cuts]
    model.minimize(mathopt.fast_sum(gpu * cut.cost for gpu, cut in zip(gpus, cuts, strict=True)))
    for kind, terms in taken.items():
        given = (gpu * cut.gives[kind] for gpu, cut in zip(gpus, cuts, strict=True) if kind in cut.gives)
        model.add_linear_constraint(mathopt.fast_sum(terms) <= mathopt.fast_sum(given))
    return gpus


def add_slices(model: mathopt.Model, asked: Asked) -> dict[SliceKind, mathopt.Variable]:
    """Add whole numbers of slices of each kind that together serve a demand."""
    rate, replicas = asked.demand.rate, asked.demand.replicas
    most = {kind: max(replicas, math.ceil(rate / point.throughput)) for kind, point in asked.points.items()}
    own = {kind: model.add_integer_variable(lb=0, ub=most[kind]) for kind in asked.points}
    parts = (own[kind] * (point.throughput / rate) for kind, point in asked.points.items())
    model.add_linear_constraint(mathopt.fast_sum(parts) >= 1)
    if replicas > 1:
        model.add_linear_constraint(mathopt.fast_sum(own.values()) >= replicas)
    return own


def solved(model: mathopt.Model, until: float) -> tuple[dict[mathopt.Variable, float], float]:
    """Return the values of the best answer that is found by `until` (monotonic), and the bound. Raises SolverError."""
    limit = timedelta(seconds=max(_LEAST_S, until - time.monotonic()))
    result = mathopt.solve(model, mathopt.SolverType.HIGHS, params=mathopt.SolveParameters(time_limit=limit))
    if not result.has_primal_feasible_solution():
        said = result.termination.reason.name.lower().replace("_", " ")
        raise SolverError(
            f"The solver found no answer within {limit.total_seconds():.0f} s ({said}): give it more seconds."
        )
    return dict(result.variable_values()), result.termination.objective_bounds.dual_bound
