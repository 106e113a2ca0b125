"""Laws of the optimiser for the whole fleet, and of the order of its steps; small cases against brute force."""

import random
from collections.abc import Iterator
from itertools import product as combinations_of

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.mig import Placement, SliceKind, illegality, products
from control_plane.slicing import Choice, Fleet, FleetGpu, GpuId, ReplicaId, Seat, Slice, Wanted, Weights, after
from control_plane.slicing.defragmenting import defragment
from control_plane.slicing.planning import plan_slices
from control_plane.slicing.steps import Place, Remove
from control_plane.slicing.whole import Optimised, optimise
from tests.property.test_slicing import Case, cases, crowded

pytest.importorskip("ortools")

SECONDS = 5.0
SLOW = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(cases(), st.sampled_from((None, 0, 1, 3)))
def test_its_steps_can_be_carried_out_and_nobody_is_without_a_slice(case: Case, budget: int | None) -> None:
    found = optimise(case.fleet, case.wanted, seconds=SECONDS, most_moves=budget)
    fleet, apart_before = case.fleet, crowded(case, case.fleet)
    served = {replica for seat, replica in fleet.taken() if fleet.by_id[seat.gpu].usable and replica in case.by_id}
    warm = {it.id for it in case.wanted if not it.move_cost}
    for step in found.plan.steps:
        fleet = after(fleet, [step])
        assert not illegality(fleet.by_id[step.seat.gpu].product, fleet.by_id[step.seat.gpu].geometry)
        if isinstance(step, Place):
            kind = SliceKind(fleet.by_id[step.seat.gpu].product.name, step.seat.placement.profile)
            assert case.by_id[step.replica].choice_of(kind) is not None
            assert fleet.by_id[step.seat.gpu].usable
            assert not fleet.by_id[step.seat.gpu].cordoned
        if isinstance(step, Remove) and step.replica in served - warm:
            assert any(fleet.by_id[it.gpu].usable for it in fleet.seats.get(step.replica, ()))
        assert crowded(case, fleet) <= apart_before
    assert {seat for seat, _ in fleet.taken() if fleet.by_id[seat.gpu].usable} == set(found.plan.seats.values())
    assert {it.replica for it in found.plan.rejected} | found.plan.seats.keys() == case.by_id.keys()
    if budget is not None:
        assert sum(case.by_id[it].move_cost > 0 for it in found.plan.moved) <= budget


@SLOW
@given(cases())
def test_it_is_never_worse_than_the_fast_path_nor_better_than_its_bound(case: Case) -> None:
    found = optimise(case.fleet, case.wanted, seconds=SECONDS)
    fast = plan_slices(case.fleet, case.wanted).cost
    assert found.bound - 1e-6 <= found.cost <= fast.total - fast.fragmentation + 1e-6


@SLOW
@given(cases())
def test_once_it_is_done_the_same_is_not_done_differently(case: Case) -> None:
    found = optimise(case.fleet, case.wanted, seconds=SECONDS)
    done = after(case.fleet, found.plan.steps)
    again = optimise(done, case.wanted, seconds=SECONDS)
    # A first plan may be held up by slices in use that the next one finds free; it never costs more, nor the same anew.
    assert again.plan.seats == found.plan.seats or again.cost < _standing(found) - 1e-9


def _standing(found: Optimised) -> float:
    """Return what a plan's end costs without its moves."""
    return found.cost - found.plan.cost.moves


@SLOW
@given(cases(), st.randoms())
def test_the_order_of_the_input_changes_nothing(case: Case, dice: random.Random) -> None:
    expected = optimise(case.fleet, case.wanted, seconds=SECONDS)
    gpus, wanted = list(case.fleet.gpus), list(case.wanted)
    dice.shuffle(gpus)
    dice.shuffle(wanted)
    assert optimise(Fleet.of(gpus), wanted, seconds=SECONDS) == expected


A30 = products()["a30-24gb"]


def endings(fleet: Fleet, wanted: tuple[Wanted, ...]) -> Iterator[dict[ReplicaId, Seat]]:
    """Yield every way for each replica to be somewhere legal, or nowhere."""
    places = [
        [None, *(Seat(gpu.id, Placement(start, it.kind.profile)) for gpu in fleet.gpus for it in one.choices
                 for start in A30.profiles[it.kind.profile].starts)]
        for one in wanted
    ]  # fmt: skip
    for chosen in combinations_of(*places):
        seats = {it.id: seat for it, seat in zip(wanted, chosen, strict=True) if seat is not None}
        legal = all(
            not illegality(A30, [it.placement for it in seats.values() if it.gpu == gpu.id]) for gpu in fleet.gpus
        )
        if legal and len(set(seats.values())) == len(seats):
            yield seats


@settings(deadline=None, max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_bound_is_the_least_cost_of_all_endings_of_a_small_fleet(dice: random.Random) -> None:
    """Two A30s and four replicas; an ending counts whether or not steps lead to it, so it may be below the cost."""
    weights = Weights()
    keys = ("1g", "2g")
    wanted = tuple(Wanted(ReplicaId(f"r{n}"), (Choice(SliceKind(A30.name, dice.choice(keys))),)) for n in range(4))
    gpus = [FleetGpu(GpuId(name), A30) for name in "ab"]
    fleet = Fleet.of(gpus)
    there = dice.choice([it for it in endings(fleet, wanted) if len(it) <= 3])
    fleet = Fleet.of(
        FleetGpu(gpu.id, A30, tuple(sorted(Slice(s.placement, r) for r, s in there.items() if s.gpu == gpu.id)))
        for gpu in gpus
    )

    def cost(seats: dict[ReplicaId, Seat]) -> float:
        moved = sum(seats.get(it) != seat for it, seat in there.items())
        refused = len(wanted) - len(seats)
        return weights.rejection * refused + weights.gpu * len({it.gpu for it in seats.values()}) + weights.move * moved

    least = min(cost(it) for it in endings(fleet, wanted) if there.keys() <= it.keys())
    found = optimise(fleet, wanted, weights, SECONDS)
    assert found.bound == pytest.approx(least)
    assert found.cost >= least - 1e-6


def test_two_half_empty_gpus_become_a_full_and_an_empty_one() -> None:
    h100 = products()["h100-80gb"]
    held = [FleetGpu(GpuId(n), h100, (Slice(Placement(0, "3g"), ReplicaId(n)),)) for n in ("a", "b")]
    wanted = [Wanted(ReplicaId(n), (Choice(SliceKind(h100.name, "3g")),)) for n in ("a", "b")]
    found = defragment(Fleet.of(held), wanted)
    assert found.is_worth_it
    assert (found.empty_before, found.empty_after) == (0, 1)
    whole = SliceKind(h100.name, "7g")
    assert (found.room_before[whole], found.room_after[whole]) == (0, 1)
    done = after(Fleet.of(held), found.optimised.plan.steps)
    assert not defragment(done, wanted).is_worth_it
    assert not defragment(Fleet.of(held), wanted, most_moves=0).is_worth_it
