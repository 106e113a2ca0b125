"""Laws of the lifecycle plan, for any repository, deployments and fleet that Hypothesis can think of."""

import random
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.targets import Precision
from control_plane.actions import Load, Unload
from control_plane.planning import Pinned, Plan, conflicts_with, plan_lifecycle, resolve_pins
from control_plane.state import (
    Deployment,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Published,
    ServerCondition,
)
from tests.fakes.world import a_deployment, a_package, a_repository, a_server, with_targets

NAMES = "abcdef"
TARGETS = ("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8")
WISHES: tuple[tuple[Precision, ...], ...] = ((), ("int8", "fp32"))
CONDITIONS = (ServerCondition.HEALTHY, ServerCondition.DEGRADED, ServerCondition.UNREACHABLE)
"""Draining has laws of its own."""
STATES = st.sampled_from([ModelState.READY, ModelState.LOADING, ModelState.UNAVAILABLE, ModelState.UNLOADING])


@dataclass(frozen=True)
class Situation:
    deployments: tuple[Deployment, ...]
    published: Published
    observed: tuple[ObservedServer, ...]


@st.composite
def repositories(draw: st.DrawFn) -> Published:
    """Draw packages whose ensembles call only models earlier in the alphabet, so there is no circle."""
    packages = []
    for index, name in enumerate(NAMES):
        earlier = st.sampled_from(NAMES[:index]) if index else st.nothing()
        members = draw(st.lists(earlier, unique=True, max_size=3)) if index else []
        versions = draw(st.lists(st.integers(1, 3), unique=True, min_size=1, max_size=3))
        package = a_package(name, tuple(sorted(versions)), tuple(members))
        targets = () if members else draw(st.lists(st.sampled_from(TARGETS), unique=True, max_size=2))
        packages.append(with_targets(package, *targets) if targets else package)
    return a_repository(*packages)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[ObservedServer, ...]:
    servers = []
    for index in range(draw(st.integers(0, 3))):
        rows = draw(st.dictionaries(st.tuples(st.sampled_from(NAMES + "x"), st.integers(1, 3)), STATES, max_size=8))
        files = st.sampled_from(["", "model.py", *TARGETS])
        models = tuple(
            ObservedModel(ModelName(name), version, state, filename=draw(files) if state is ModelState.READY else "")
            for (name, version), state in rows.items()
        )
        condition = draw(st.sampled_from(CONDITIONS))
        servers.append(ObservedServer(a_server(f"s{index}"), condition, models))
    return tuple(servers)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    published = draw(repositories())
    deployments: list[Deployment] = []
    precisions = draw(st.sampled_from(WISHES))
    for index, model in enumerate(draw(st.lists(st.sampled_from(NAMES), max_size=4))):
        answer = resolve_pins(ModelName(model), None, published)
        if isinstance(answer, Pinned) and not conflicts_with(answer.pins, deployments):
            pins = [(str(pin.model), pin.version) for pin in answer.pins]
            deployments.append(a_deployment(f"d{index}", *pins, at=draw(st.integers(0, 2)), precisions=precisions))
    return Situation(tuple(deployments), published, draw(fleets()))


def plan_of(situation: Situation) -> Plan:
    return plan_lifecycle(situation.deployments, situation.published, situation.observed)


def apply(plan: Plan, observed: tuple[ObservedServer, ...]) -> tuple[ObservedServer, ...]:
    """Carry the plan out on paper, in its order."""
    after = {entry.server.id: entry for entry in observed}
    for step in plan.steps:
        entry = after[step.action.server]
        rows = [row for row in entry.models if row.name != step.action.model]
        if isinstance(step.action, Load):
            target = step.action.setting(step.action.model).target  # its file is called like it
            rows.append(ObservedModel(step.action.model, step.action.version, ModelState.READY, filename=target))
        after[step.action.server] = replace(entry, models=tuple(rows))
    return tuple(after.values())


def settle(observed: tuple[ObservedServer, ...]) -> tuple[ObservedServer, ...]:
    """Let what is on its way arrive."""
    arrived = {ModelState.LOADING: ModelState.READY, ModelState.UNLOADING: ModelState.UNAVAILABLE}
    return tuple(
        replace(entry, models=tuple(replace(row, state=arrived.get(row.state, row.state)) for row in entry.models))
        for entry in observed
    )


@given(situations())
def test_planning_after_applying_is_empty(situation: Situation) -> None:
    observed = situation.observed
    for _ in range(3):  # what was on its way, then what waited for a reload of its ensemble
        observed = settle(observed)
        observed = apply(plan_of(replace(situation, observed=observed)), observed)
    plan = plan_of(replace(situation, observed=observed))
    assert (plan.steps, plan.waiting) == ((), ())


@given(situations())
def test_after_applying_every_healthy_server_holds_what_is_desired_and_nothing_else(situation: Situation) -> None:
    observed = settle(situation.observed)
    for _ in range(2):
        observed = apply(plan_of(replace(situation, observed=observed)), observed)
    pins = {(pin.model, pin.version) for deployment in situation.deployments for pin in deployment.pins}
    for entry in observed:
        if entry.condition is ServerCondition.HEALTHY:
            assert {(row.name, row.version) for row in entry.models if row.state is ModelState.READY} == pins
    assert all(choice.serves for choice in plan_of(replace(situation, observed=observed)).targets)


@given(situations(), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_order_of_the_input_does_not_matter(situation: Situation, dice: random.Random) -> None:
    shuffled = Situation(
        tuple(dice.sample(situation.deployments, len(situation.deployments))),
        Published(dict(dice.sample(list(situation.published.models.items()), len(situation.published.models)))),
        tuple(
            replace(entry, models=tuple(dice.sample(entry.models, len(entry.models))))
            for entry in dice.sample(situation.observed, len(situation.observed))
        ),
    )
    assert plan_of(shuffled) == plan_of(situation)


@given(situations())
def test_an_ensemble_is_loaded_after_its_members_and_unloaded_before_them(situation: Situation) -> None:
    for steps in plan_of(situation).by_server().values():
        stages = {(type(step.action), step.action.model): step.stage for step in steps}
        for (kind, model), stage in stages.items():
            package = situation.published.get(model)
            for member in package.draft.members if package is not None else ():
                if (kind, member) in stages:
                    earlier = stages[kind, member] < stage
                    assert earlier if kind is Load else not earlier


@given(situations())
def test_every_unload_comes_after_every_load(situation: Situation) -> None:
    for steps in plan_of(situation).by_server().values():
        loads = [step.stage for step in steps if isinstance(step.action, Load)]
        unloads = [step.stage for step in steps if isinstance(step.action, Unload)]
        assert not loads or not unloads or max(loads) < min(unloads)


@given(situations())
def test_what_a_deployment_needs_is_never_unloaded(situation: Situation) -> None:
    needed = {pin.model for deployment in situation.deployments for pin in deployment.pins}
    assert not any(isinstance(step.action, Unload) and step.action.model in needed for step in plan_of(situation).steps)


@given(situations())
def test_no_model_is_both_loaded_and_unloaded_nor_twice(situation: Situation) -> None:
    touched = [(step.action.server, step.action.model) for step in plan_of(situation).steps]
    assert len(touched) == len(set(touched))


@given(situations())
def test_only_healthy_servers_are_touched(situation: Situation) -> None:
    healthy = {entry.server.id for entry in situation.observed if entry.condition is ServerCondition.HEALTHY}
    assert {step.action.server for step in plan_of(situation).steps} <= healthy


@given(situations())
def test_every_step_and_every_wait_has_a_reason(situation: Situation) -> None:
    plan = plan_of(situation)
    assert all(step.reason for step in plan.steps)
    assert all(entry.reason for entry in plan.waiting)
