"""What to load and unload where, case by case; the general laws are in tests/property."""

from dataclasses import replace
from datetime import timedelta

from control_plane.actions import Load, Unload
from control_plane.planning import Plan, Situation, plan_lifecycle
from control_plane.state import (
    ActionRecord,
    ModelName,
    ModelState,
    ObservedServer,
    Pin,
    Result,
    ServerCondition,
    ServerId,
)
from control_plane.wanted import ANY_POOL, Needs, Replicas
from tests.fakes.world import START, a_built, a_config, a_deployment, a_package, a_repository, a_server, seen

READY, LOADING, UNAVAILABLE = ModelState.READY, ModelState.LOADING, ModelState.UNAVAILABLE
PACKAGES = a_repository(a_package("a", (1, 2)), a_package("b"), a_package("e", members=("a", "b")))
ENSEMBLE = a_deployment("d", ("a", 1), ("b", 1), ("e", 1))


def words(plan: Plan) -> list[str]:
    """Write the steps shortly."""
    return [
        f"{step.stage} load {step.action.model}:{step.action.version}"
        if isinstance(step.action, Load)
        else f"{step.stage} unload {step.action.model}"
        for step in plan.steps
    ]


def plan_for(observed: ObservedServer) -> Plan:
    return plan_lifecycle([ENSEMBLE], PACKAGES, [observed])


def test_an_empty_server_is_filled_members_first() -> None:
    plan = plan_for(seen())
    assert words(plan) == ["0 load a:1", "0 load b:1", "1 load e:1"]
    assert plan.steps[0].reason == "Not loaded, needed by 'd'."
    load = plan.steps[2].action
    assert isinstance(load, Load)
    assert load.members == (Pin(ModelName("a"), 1), Pin(ModelName("b"), 1))


def test_nothing_to_do() -> None:
    assert plan_for(seen(("a", 1, READY), ("b", 1, READY), ("e", 1, READY))) == Plan()


def test_a_wrong_version_is_replaced_by_a_load_and_its_parent_loaded_anew() -> None:
    plan = plan_for(seen(("a", 2, READY), ("b", 1, READY), ("e", 1, READY)))
    assert words(plan) == ["0 load a:1", "1 load e:1"]
    assert plan.steps[0].reason == "Version 2 is ready, version 1 is needed by 'd'."
    assert plan.steps[1].reason == "Its member 'a' is loaded anew."


def test_what_is_loading_is_left_alone_and_its_parent_waits() -> None:
    plan = plan_for(seen(("a", 1, LOADING), ("b", 1, READY)))
    assert words(plan) == []
    assert [(entry.model, entry.reason) for entry in plan.waiting] == [
        ("a", "Triton is loading it."),
        ("e", "Its member 'a' is not ready."),
    ]


def test_another_version_on_its_way_is_waited_for_and_then_replaced() -> None:
    """What a restarted control plane finds where a load outlived its caller, and a rollback is asked for."""
    plan = plan_for(seen(("a", 1, READY), ("a", 2, LOADING), ("b", 1, READY), ("e", 1, READY)))
    assert words(plan) == []
    assert [(entry.model, entry.reason) for entry in plan.waiting] == [("a", "Triton is loading it.")]
    plan = plan_for(seen(("a", 1, UNAVAILABLE), ("a", 2, READY), ("b", 1, READY), ("e", 1, READY)))
    assert words(plan) == ["0 load a:1", "1 load e:1"]


def test_what_failed_and_is_not_due_is_left_alone() -> None:
    record = ActionRecord(
        ServerId("s0"), ModelName("a"), 1, Result.FAILED, "no module", START, 1, START + timedelta(seconds=1)
    )
    held = {(record.server, record.model): record}
    plan = plan_lifecycle([ENSEMBLE], PACKAGES, [seen(("b", 1, READY))], Situation(held=held))
    assert words(plan) == []
    assert "00:00:01 UTC. The last time: no module" in plan.waiting[0].reason
    other_version = a_deployment("d", ("a", 2))
    assert words(plan_lifecycle([other_version], PACKAGES, [seen()], Situation(held=held))) == ["0 load a:2"]


def test_what_nobody_needs_is_unloaded_parents_first() -> None:
    plan = plan_lifecycle([], PACKAGES, [seen(("a", 1, READY), ("b", 1, READY), ("e", 1, READY))])
    assert words(plan) == ["0 unload e", "1 unload a", "1 unload b"]


def test_a_member_that_another_deployment_needs_stays() -> None:
    plan = plan_lifecycle(
        [a_deployment("other", ("a", 1))], PACKAGES, [seen(("a", 1, READY), ("b", 1, READY), ("e", 1, READY))]
    )
    assert words(plan) == ["1 unload e", "2 unload b"]


def test_a_former_member_stays_while_its_live_ensemble_is_not_as_it_should_be() -> None:
    live = seen(("a", 1, READY), ("b", 1, READY), ("e", 1, READY), ("former", 1, READY))
    packages = a_repository(*PACKAGES, a_package("former"))
    moved = a_deployment("d", ("a", 2), ("b", 1), ("e", 1))
    plan = plan_lifecycle([moved], packages, [live])
    assert words(plan) == ["0 load a:2", "1 load e:1"]
    assert plan.waiting[0].reason == "Unloaded once ensemble 'e', which may still call it, is as it should be."


def test_a_model_that_left_the_repository_goes_first() -> None:
    plan = plan_lifecycle([], PACKAGES, [seen(("a", 1, READY), ("unknown", 7, READY))])
    assert words(plan) == ["0 unload unknown", "1 unload a"]


def test_a_server_that_is_not_healthy_gets_nothing() -> None:
    away = [
        seen(server=name, condition=name_condition)
        for name, name_condition in (
            ("s0", ServerCondition.UNREACHABLE),
            ("s1", ServerCondition.DEGRADED),
        )
    ]
    assert plan_lifecycle([ENSEMBLE], PACKAGES, away) == Plan()


def test_a_version_that_left_the_repository_is_infeasible_but_serves_on_where_it_is() -> None:
    gone = a_deployment("d", ("a", 9))
    plan = plan_lifecycle([gone], PACKAGES, [seen(), seen(("a", 9, READY), server="s1")])
    assert words(plan) == []
    assert plan.reasons_against(gone.name) == ("Version 9 of model 'a' is no longer in the model repository.",)


def test_of_two_deployments_that_disagree_the_later_is_infeasible() -> None:
    first, second = a_deployment("z", ("a", 1), at=0), a_deployment("y", ("a", 2), at=1)
    plan = plan_lifecycle([second, first], PACKAGES, [seen()])
    assert words(plan) == ["0 load a:1"]
    assert plan.reasons_against(first.name) == ()
    assert "'z' pins model 'a' at version 1" in plan.reasons_against(second.name)[0]


def test_a_failed_model_says_why_it_is_loaded_again() -> None:
    row = seen(("a", 1, UNAVAILABLE)).models[0]
    failed = ObservedServer(
        seen().server, ServerCondition.HEALTHY, (type(row)(row.name, 1, UNAVAILABLE, "Internal: boom\n\nAt: x"),)
    )
    plan = plan_lifecycle([a_deployment("d", ("a", 1))], PACKAGES, [failed])
    assert plan.steps[0].reason == "It is unavailable (Internal: boom) and needed by 'd'."


def test_a_broken_draft_leaves_what_is_deployed_alone() -> None:
    broken = a_config("e", ("gone",), ("config.pbtxt:3: no.",))
    packages = a_repository(*PACKAGES, a_built("e", ("a", "b"), draft=broken))
    plan = plan_lifecycle([ENSEMBLE], packages, [seen()])
    assert words(plan) == ["0 load a:1", "0 load b:1", "1 load e:1"]
    assert plan.reasons_against(ENSEMBLE.name) == ()


def test_a_version_whose_own_config_is_wrong_is_infeasible() -> None:
    model = a_built("m", (), ())
    wrong = replace(model, own={**model.own, 1: a_config("m", problems=("m/1/config.pbtxt: no.",))})
    first, second = a_deployment("d", ("m", 1)), a_deployment("d", ("m", 2))
    assert plan_lifecycle([first], a_repository(wrong), [seen()]).reasons_against(first.name) == (
        "Model 'm': m/1/config.pbtxt: no.",
    )
    assert words(plan_lifecycle([second], a_repository(wrong), [seen()])) == ["0 load m:2"]


def test_members_are_those_of_the_version_that_is_pinned_or_runs() -> None:
    packages = a_repository(a_package("old"), a_package("new"), a_built("e", ("old",), ("new",)))
    live = seen(("old", 1, READY), ("e", 1, READY))
    moved = a_deployment("d", ("new", 1), ("e", 2))
    assert words(plan_lifecycle([moved], packages, [live])) == ["0 load new:1", "1 load e:2"]
    assert words(plan_lifecycle([], packages, [live])) == ["0 unload e", "1 unload old"]


def test_every_server_is_planned_for_itself() -> None:
    servers = [seen(server="s1"), seen(("a", 1, READY), server="s0")]
    plan = plan_lifecycle([a_deployment("d", ("a", 1))], PACKAGES, servers)
    assert [step.action.server for step in plan.steps] == ["s1"]
    assert plan.by_server() == {ServerId("s1"): plan.steps}
    assert not any(isinstance(step.action, Unload) for step in plan.steps)


def test_the_last_that_serves_stays_on_a_draining_server_until_it_has_another() -> None:
    one = replace(a_deployment("d", ("a", 1)), needs=Needs(replicas={ANY_POOL: Replicas(1)}))
    ready = [seen(("a", 1, READY)), replace(seen(), server=a_server("s1"))]
    drained = [replace(ready[0], condition=ServerCondition.DRAINING), ready[1]]
    stuck = plan_lifecycle([one], PACKAGES, drained[:1])
    assert words(stuck) == []
    assert [it.reason for it in stuck.waiting] == [
        "Stays until deployment 'd' has another server: it would serve nowhere."
    ]
    assert "is draining" in stuck.infeasible[0].reasons[0]
    assert words(plan_lifecycle([one], PACKAGES, drained)) == ["0 load a:1"]
    served = [drained[0], replace(ready[0], server=a_server("s1"))]
    assert words(plan_lifecycle([one], PACKAGES, served, Situation(now=START))) == []
    left = {(ServerId("s0"), ModelName("a")): START - timedelta(seconds=3)}
    assert words(plan_lifecycle([one], PACKAGES, served, Situation(now=START, leaving=left))) == ["0 unload a"]
