"""What deployments want of slices: how many, which can hold them, and why none can."""

from dataclasses import replace

from control_plane.mig import products
from control_plane.slicing.demand import Demand, SliceOffer, demand_of
from control_plane.state import Deployment, DeploymentName, MeasuredLatency, ModelName, Pin, Published
from control_plane.wanted import ANY_POOL, Domain, Needs, Objectives, Replicas, Requirements
from tests.fakes.world import a_deployment, a_package, a_repository, a_server, a_target, with_targets

NAME = DeploymentName("a")
A = Pin(ModelName("a"), 1)
H100, A30 = products()["h100-80gb"], products()["a30-24gb"]
OFFERS = (SliceOffer(A30, a_server("", None, "8.0"), "2.51.0"), SliceOffer(H100, a_server("", None, "9.0"), "2.51.0"))
REPOSITORY = a_repository(a_package("a"))


def asks(**needs: object) -> Deployment:
    return replace(a_deployment("a", ("a", 1)), needs=Needs(**needs))  # type: ignore[arg-type]


def demand(deployment: Deployment, published: Published = REPOSITORY, *, alone: bool = True) -> Demand:
    return demand_of([deployment], published, OFFERS, alone=alone)


def profiles(found: Demand) -> list[str]:
    return [it.kind.profile for it in found.wanted[0].choices if it.kind.product == H100.name]


def test_each_replica_wants_a_slice_of_any_kind_without_media_engines() -> None:
    found = demand(asks(replicas={ANY_POOL: Replicas(2)}, priority=1, spread=Domain.NODE))
    assert [it.id for it in found.wanted] == ["a/0", "a/1"]
    assert profiles(found) == ["1g", "1g.2x", "2g", "3g", "4g", "7g"]
    assert {(it.group, it.spread, it.value) for it in found.wanted} == {("a", Domain.NODE, 2.0)}
    assert set(found.owners.values()) == {"a"}


def test_how_many_there_are_follows_from_pools_and_from_whether_there_are_other_servers() -> None:
    for needs, alone, count in (
        ({}, True, 1),
        ({}, False, 0),
        ({"replicas": {ANY_POOL: Replicas(3)}}, True, 3),
        ({"replicas": {ANY_POOL: Replicas(3)}}, False, 0),
        ({"replicas": {ANY_POOL: Replicas(3), "slices": Replicas(2)}}, False, 2),
        ({"replicas": {"cpu": Replicas(3)}}, True, 0),
        ({"replicas": {ANY_POOL: Replicas(0)}}, True, 0),
    ):
        assert len(demand(asks(**needs), alone=alone).wanted) == count, needs


def test_memory_counts_as_measured_with_headroom() -> None:
    small, needed = H100.profiles["1g"].memory_bytes, H100.profiles["1g"].memory_bytes * 95 // 100
    found = demand(asks(instances=2), replace(REPOSITORY, memory={A: needed // 2}))
    assert "1g" not in profiles(found)
    assert "1g.2x" in profiles(found)
    asked = demand(asks(requirements=Requirements(memory_bytes=small + 1)))
    assert "1g" not in profiles(asked)


def test_an_objective_rules_out_what_was_measured_to_be_slower_and_prefers_what_was_measured() -> None:
    latencies = {A: (MeasuredLatency("9.0", "1g.10gb", 30.0), MeasuredLatency("9.0", "3g.40gb", 5.0))}
    found = demand(asks(objectives=Objectives(p99_ms=20.0)), replace(REPOSITORY, latencies=latencies))
    risks = {it.kind.profile: it.risk for it in found.wanted[0].choices if it.kind.product == H100.name}
    assert "1g" not in risks
    assert (risks["3g"], risks["2g"]) == (0.25, 1.0)


def test_what_no_slice_can_hold_is_told_for_each_kind() -> None:
    found = demand(asks(requirements=Requirements(compute_capabilities=("8.9",))))
    assert found.wanted[0].choices == ()
    assert "1g.10gb of h100-80gb: has compute capability 9.0, 8.9 is required" in found.impossible[NAME]
    nothing = demand_of([asks()], REPOSITORY, [], alone=True)
    assert nothing.impossible[NAME] == ("the fleet has no GPU that can be cut",)


def test_a_slice_for_which_there_is_no_engine_is_none() -> None:
    built = with_targets(a_package("a"), engine=a_target("tensorrt-sm_90-fp16", tensorrt="10.5.0.18"))
    found = demand(asks(), a_repository(built))
    assert {it.kind.product for it in found.wanted[0].choices} == {H100.name}
