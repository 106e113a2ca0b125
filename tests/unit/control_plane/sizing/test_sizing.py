"""Fleet sizing: published scenarios at their proved optimum, and small cases against brute force.

The way for many demands is held against the exact one.
"""

import math
import time
from collections import Counter
from itertools import product as every
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.mig import Product, Rules, SliceKind, illegality, maximal_mixes, product_named
from control_plane.sizing import Admission, Demand, Model, Offer, OperatingPoint, Sizing
from control_plane.sizing.decomposing import decomposed
from control_plane.sizing.programme import Asked, Cut
from control_plane.sizing.solving import size
from control_plane.sizing.tables import parva_admission, read_profiles, read_scenarios

DATA = Path(__file__).parents[3] / "data" / "parvagpu"
A100, A30, L4 = (product_named(name) for name in ("a100-80gb", "a30-24gb", "l4-24gb"))
MEASURED = read_profiles(DATA / "prof_data", A100)
SCENARIOS = read_scenarios(DATA / "scenarios.csv")
PARVA = parva_admission(A100)
M = Model("m")


def check(sizing: Sizing, demands: list[Demand], products: list[Product], admission: Admission) -> None:
    """Check an answer against everything that was asked for, without a solver."""
    by_name = {it.name: it for it in products}
    served: Counter[str] = Counter()
    for gpu in sizing.gpus:
        product = by_name[gpu.product]
        placements = [it.placement for it in gpu.replicas]
        assert illegality(product, placements) == ""
        rules = admission.rules_of(product)
        assert all(it.start in rules.starts_of(product.profiles[it.profile]) for it in placements)
        for it in gpu.replicas:
            assert it.point.kind == SliceKind(gpu.product, it.placement.profile)
            assert it.rate <= it.point.throughput * (1 + 1e-6)
            served[it.demand] += it.rate  # type: ignore[assignment]
    refused = {it.demand for it in sizing.refused}
    for demand in demands:
        if demand.name not in refused:
            assert served[demand.name] == pytest.approx(demand.rate)
            homes = [gpu for gpu in sizing.gpus if any(it.demand == demand.name for it in gpu.replicas)]
            assert len(homes) >= demand.replicas
            points = [it.point for gpu in sizing.gpus for it in gpu.replicas if it.demand == demand.name]
            assert all(it.latency_s < demand.latency_s * admission.latency_part for it in points)


@pytest.mark.parametrize(("scenario", "gpus"), [("S1", 2), ("S2", 3), ("S3", 5), ("S4", 7)])
def test_the_published_scenarios_are_sized_at_their_proved_optimum(scenario: str, gpus: int) -> None:
    demands = list(SCENARIOS[scenario])
    found = size(demands, MEASURED, [Offer(A100)], PARVA)
    assert (len(found.gpus), found.bound, found.gap, found.refused) == (gpus, gpus, 0.0, ())
    check(found, demands, [A100], PARVA)


def points(product: Product, each: dict[str, float], model: Model = M) -> dict[Model, list[OperatingPoint]]:
    return {model: [OperatingPoint(SliceKind(product.name, key), 1, 1, rate, 0.01) for key, rate in each.items()]}


def brute_force(demands: list[Demand], each: dict[str, float], product: Product) -> int:
    """Return the fewest GPUs by trying every number of slices for every demand."""
    keys = sorted(each)
    mixes = [dict(it) for it in maximal_mixes(product, Rules(frozenset(product.plain)))]

    def gpus(needed: tuple[int, ...], known: dict[tuple[int, ...], int]) -> int:
        if not any(needed):
            return 0
        if needed not in known:
            left = (tuple(max(0, n - mix.get(key, 0)) for key, n in zip(keys, needed, strict=True)) for mix in mixes)
            known[needed] = 1 + min(gpus(it, known) for it in set(left) if it != needed)
        return known[needed]

    ways = []
    for demand in demands:
        most = [math.ceil(demand.rate / each[key]) for key in keys]
        ways.append(
            [
                it
                for it in every(*(range(n + 1) for n in most))
                if sum(n * each[key] for n, key in zip(it, keys, strict=True)) >= demand.rate
            ]
        )
    known: dict[tuple[int, ...], int] = {}
    return min(gpus(tuple(map(sum, zip(*way, strict=True))), known) for way in every(*ways))


@given(
    st.lists(st.floats(0.5, 5), min_size=1, max_size=3),
    st.fixed_dictionaries({"1g": st.floats(1, 2), "2g": st.floats(1.5, 4), "4g": st.floats(2, 8)}),
)
@settings(max_examples=40, deadline=None)
def test_small_cases_are_as_few_gpus_as_trying_everything_finds(rates: list[float], each: dict[str, float]) -> None:
    demands = [Demand(f"d{number}", M, rate, 1.0) for number, rate in enumerate(rates)]
    found = size(demands, points(A30, each), [Offer(A30)])
    check(found, demands, [A30], Admission())
    assert len(found.gpus) == found.bound == brute_force(demands, each, A30)


@given(st.lists(st.tuples(st.floats(0.1, 30), st.integers(1, 3)), min_size=2, max_size=12), st.floats(0.3, 0.9))
@settings(max_examples=25, deadline=None)
def test_the_way_for_many_demands_bounds_and_nearly_reaches_the_exact_one(
    asked: list[tuple[float, int]], cost: float
) -> None:
    demands = [Demand(f"d{number}", M, rate, 1.0, replicas) for number, (rate, replicas) in enumerate(asked)]
    own = points(A30, {"1g": 1.0, "2g": 2.3, "4g": 5.0})[M] + points(L4, {"full": 3.1})[M]
    offers = [Offer(A30), Offer(L4, cost)]
    cuts = [
        Cut(it.product.name, mix, it.cost, {SliceKind(it.product.name, key): n for key, n in mix})
        for it in offers
        for mix in maximal_mixes(it.product, Rules(frozenset(it.product.plain)))
        if mix
    ]
    kinds = sorted({kind for cut in cuts for kind in cut.gives})
    answer = decomposed(
        [Asked(it, {point.kind: point for point in own}) for it in demands], kinds, cuts, time.monotonic() + 20
    )
    exact = size([Demand(it.name, M, it.rate, 1.0) for it in demands], {M: own}, offers)
    replicated = size(demands, {M: own}, offers)
    check(replicated, demands, [A30, L4], Admission())
    spent = sum(n * cut.cost for n, cut in zip(answer.gpus, cuts, strict=True))
    assert answer.bound <= replicated.cost + 1e-6
    assert exact.bound <= replicated.cost + 1e-6
    assert spent >= exact.bound - 1e-6
    for it in answer.wanted:
        assert sum(it.points[kind].throughput * n for kind, n in it.slices.items()) >= it.demand.rate * (1 - 1e-6)
        assert sum(it.slices.values()) >= it.demand.replicas
        assert all(n >= 0 for n in it.slices.values())


def test_hundreds_of_demands_on_mixed_products_are_within_a_percent_of_the_bound() -> None:
    own = {name: [*its] for name, its in MEASURED.items()}
    for its in own.values():
        whole = [it for it in its if it.kind.profile == "4g"]
        its += [
            OperatingPoint(SliceKind(L4.name, "full"), it.batch_size, it.processes, it.throughput * 0.8, it.latency_s)
            for it in whole
        ]
    base = SCENARIOS["S4"]
    demands = [
        Demand(f"d{number}", it.model, it.rate * (0.02 + number % 7 / 5), it.latency_s)
        for number, it in enumerate(base[index % len(base)] for index in range(300))
    ]
    found = size(demands, own, [Offer(A100), Offer(L4, 0.35)], seconds=20)
    check(found, demands, [A100, L4], Admission())
    assert found.gap < 0.01


def test_replicas_are_on_gpus_of_their_own() -> None:
    demand = Demand("d", M, 0.5, 1.0, replicas=3)
    found = size([demand], points(A100, {"1g": 1.0}), [Offer(A100)])
    assert len(found.gpus) == 3
    check(found, [demand], [A100], Admission())


def test_what_cannot_be_served_is_refused_with_the_latency_that_it_lacks() -> None:
    strict = Demand("strict", Model("bert"), 1.0, 0.001)
    found = size([strict, Demand("x", Model("unknown"), 1, 1), *SCENARIOS["S1"]], MEASURED, [Offer(A100)], PARVA)
    assert len(found.gpus) == 2
    assert [(it.demand, it.reason) for it in found.refused] == [
        ("strict", "the best latency of 'bert' is 13 ms; 0.45 ms are allowed (0.45 of its objective)"),
        ("x", "nothing was measured of model 'unknown' on any slice on offer"),
    ]
    assert size([strict], MEASURED, [Offer(A100)], PARVA).gpus == ()
