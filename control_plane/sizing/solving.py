"""The fewest GPUs for a list of demands.

Few demands go into one integer programme, which a MIP solver proves in milliseconds; many are decomposed
(`decomposing`). What is said to be proved is what the solver proved.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence

from ortools.math_opt.python import mathopt

from control_plane.mig import SliceKind, maximal_mixes
from control_plane.sizing.decomposing import decomposed
from control_plane.sizing.layout import Wanted, lay_out
from control_plane.sizing.model import (
    Admission,
    Demand,
    Model,
    Offer,
    OperatingPoint,
    Refused,
    Sizing,
    best_points,
)
from control_plane.sizing.programme import Answer, Asked, Cut, add_gpus, add_slices, solved

FEW = 60
"""Demands up to which one programme holds them all."""
_FOR_SOLVER = 0.8
"""Part of the time that the solver has; the rest is for building programmes and laying the answer out."""


def size(
    demands: Iterable[Demand],
    measured: Mapping[Model, Sequence[OperatingPoint]],
    offers: Sequence[Offer],
    admission: Admission | None = None,
    seconds: float = 10.0,
) -> Sizing:
    """Return the least GPUs on `offers` for `demands`, by what was `measured` of each model. Raises SolverError.

    The solver has about `seconds`; what it cannot prove within that is told by the gap.
    """
    given, until = admission or Admission(), time.monotonic() + seconds * _FOR_SOLVER
    cuts = [
        Cut(offer.product.name, mix, offer.cost, {SliceKind(offer.product.name, key): n for key, n in mix})
        for offer in offers
        for mix in maximal_mixes(offer.product, given.rules_of(offer.product))
        if mix
    ]
    kinds = sorted({kind for cut in cuts for kind in cut.gives})
    asked: list[Asked] = []
    refused: list[Refused] = []
    for demand in demands:
        points = best_points(demand, measured.get(demand.model, ()), given, kinds)
        if isinstance(points, Refused):
            refused.append(points)
        else:
            asked.append(Asked(demand, points))
    if not asked:
        return Sizing(refused=tuple(refused))
    answer = _whole(asked, kinds, cuts, until) if len(asked) <= FEW else decomposed(asked, kinds, cuts, until)
    by_name = {offer.product.name: offer for offer in offers}
    used = [(by_name[cut.product].product, cut.mix) for cut, n in zip(cuts, answer.gpus, strict=True) for _ in range(n)]
    gpus = lay_out(answer.wanted, used, given, [offer.product for offer in offers])
    cost = sum(by_name[gpu.product].cost for gpu in gpus)
    bound = answer.bound
    if len({offer.cost for offer in offers}) == 1:  # every answer costs a whole number of GPUs
        bound = math.ceil(bound / offers[0].cost - 1e-6) * offers[0].cost
    return Sizing(gpus, cost, min(bound, cost), tuple(refused))


def _whole(asked: Sequence[Asked], kinds: Sequence[SliceKind], cuts: Sequence[Cut], until: float) -> Answer:
    """Solve for all demands in one programme: whole numbers of slices for each, and of GPUs of each cut."""
    model = mathopt.Model()
    slices = [add_slices(model, it) for it in asked]
    gpus = add_gpus(model, cuts, {kind: [own[kind] for own in slices if kind in own] for kind in kinds})
    values, bound = solved(model, until)
    wanted = [
        Wanted(it.demand, it.points, {kind: round(values[variable]) for kind, variable in own.items()})
        for it, own in zip(asked, slices, strict=True)
    ]
    return Answer(wanted, [round(values[gpu]) for gpu in gpus], bound)
