"""Laws of live placement on slices, for any fleet and demand that Hypothesis can think of."""

import random
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.mig import SliceKind, geometries, illegality, products
from control_plane.slicing import (
    Choice,
    Destroy,
    Domain,
    Fleet,
    FleetGpu,
    GpuId,
    Place,
    Remove,
    ReplicaId,
    Slice,
    Wanted,
    after,
)
from control_plane.slicing.planning import SlicePlan, plan_slices

PRODUCTS = ("a100-40gb", "h100-80gb", "a30-24gb", "l4-24gb")
GEOMETRIES = {name: tuple(geometries(products()[name])) for name in PRODUCTS}
KINDS = [SliceKind(name, key) for name in PRODUCTS for key in products()[name].plain]


@dataclass(frozen=True)
class Case:
    fleet: Fleet
    wanted: tuple[Wanted, ...]

    @property
    def by_id(self) -> dict[ReplicaId, Wanted]:
        return {it.id: it for it in self.wanted}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a few GPUs with replicas on them, on slices that can hold them or not any more, and newcomers."""
    names = [ReplicaId(f"r{number}") for number in range(draw(st.integers(0, 12)))]
    left, gpus = list(names), []
    for number in range(draw(st.integers(1, 4))):
        product = products()[draw(st.sampled_from(PRODUCTS))]
        slices = []
        for placement in draw(st.sampled_from(GEOMETRIES[product.name])):
            held = bool(left) and draw(st.booleans())
            holder = left.pop() if held else None
            slices.append(Slice(placement, holder))
        usable, cordoned = draw(st.integers(0, 5)) > 0, draw(st.integers(0, 5)) == 0
        gpu = FleetGpu(GpuId(f"gpu{number}"), product, tuple(slices), f"node{number % 2}", "", usable, cordoned)
        gpus.append(gpu)
    wanted = []
    for name in names:
        if draw(st.integers(0, 4)) == 0:
            continue
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4, unique=True))
        wanted.append(
            Wanted(
                name,
                tuple(Choice(kind, draw(st.sampled_from((0.0, 0.5)))) for kind in kinds),
                draw(st.sampled_from("ab")),
                draw(st.sampled_from((Domain.NONE, Domain.NONE, Domain.GPU, Domain.NODE))),
                draw(st.sampled_from((1.0, 2.0))),
                draw(st.sampled_from((0.0, 1.0, 1.0))),
            )
        )
    return Case(Fleet.of(gpus), tuple(wanted))


def crowded(case: Case, fleet: Fleet) -> set[tuple[str, str]]:
    """Return the domains that hold two replicas of a group that is to be apart, as it counts them."""
    seen: dict[tuple[str, str, str], set[ReplicaId]] = {}
    for seat, replica in fleet.taken():
        it = case.by_id.get(replica)
        gpu = fleet.by_id[seat.gpu]
        if it is not None and it.spread is not Domain.NONE and gpu.usable and gpu.domain(it.spread):
            seen.setdefault((it.group, it.spread, gpu.domain(it.spread)), set()).add(replica)
    return {(group, name) for (group, _, name), replicas in seen.items() if len(replicas) > 1}


@settings(deadline=None, max_examples=150)
@given(cases(), st.sampled_from((None, 0, 1, 3)))
def test_every_step_is_legal_and_nobody_is_without_a_slice(case: Case, budget: int | None) -> None:
    plan = plan_slices(case.fleet, case.wanted, most_moves=budget)
    fleet, apart_before = case.fleet, crowded(case, case.fleet)
    served = {replica for seat, replica in fleet.taken() if fleet.by_id[seat.gpu].usable and replica in case.by_id}
    warm = {it.id for it in case.wanted if not it.move_cost}
    for step in plan.steps:
        if isinstance(step, Destroy):
            assert all(
                it.replica is None for it in fleet.by_id[step.seat.gpu].slices if it.placement == step.seat.placement
            )
        fleet = after(fleet, [step])
        assert not illegality(fleet.by_id[step.seat.gpu].product, fleet.by_id[step.seat.gpu].geometry)
        if isinstance(step, Place):
            kind = SliceKind(fleet.by_id[step.seat.gpu].product.name, step.seat.placement.profile)
            assert case.by_id[step.replica].choice_of(kind) is not None
            assert fleet.by_id[step.seat.gpu].usable
            assert not fleet.by_id[step.seat.gpu].cordoned
        if isinstance(step, Remove) and step.replica in served - warm:
            usable = [it for it in fleet.seats.get(step.replica, ()) if fleet.by_id[it.gpu].usable]
            assert usable, "a replica that serves was left without a slice"
        assert crowded(case, fleet) <= apart_before
    assert {
        replica: seats[0] for replica, seats in fleet.seats.items() if fleet.by_id[seats[0].gpu].usable
    } == plan.seats
    told = {it.replica for it in plan.rejected}
    assert told | plan.seats.keys() == case.by_id.keys()
    if budget is not None:
        assert sum(case.by_id[it].move_cost > 0 for it in plan.moved) <= budget


@settings(deadline=None, max_examples=100)
@given(cases())
def test_once_it_is_done_there_is_nothing_left_to_do(case: Case) -> None:
    plan = plan_slices(case.fleet, case.wanted)
    done = after(case.fleet, plan.steps)
    again = plan_slices(done, case.wanted)
    assert again.steps == ()
    assert again.seats == plan.seats


@settings(deadline=None, max_examples=50)
@given(cases(), st.randoms())
def test_the_order_of_the_input_changes_nothing(case: Case, dice: random.Random) -> None:
    def plan(gpus: list[FleetGpu], wanted: list[Wanted]) -> SlicePlan:
        return plan_slices(Fleet.of(gpus), wanted)

    gpus, wanted = list(case.fleet.gpus), list(case.wanted)
    expected = plan(gpus, wanted)
    dice.shuffle(gpus)
    dice.shuffle(wanted)
    assert plan([replace(it) for it in gpus], wanted) == expected
