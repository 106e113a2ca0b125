"""Carrying a plan out on one server."""

import asyncio

from control_plane.actions import Failed, Load, Loaded, Outcome, Skipped, Unload, Unloaded
from control_plane.executor import Executor
from control_plane.planning import PlannedAction
from control_plane.state import ModelName, Pin, ServerId
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeFleet, a_package, a_server, until

SERVER = a_server()
MEMBER = Pin(ModelName("a"), 1)


def step(stage: int, model: str, *members: Pin) -> PlannedAction:
    return PlannedAction(Load(SERVER.id, ModelName(model), 1, members), "why", stage)


def execute(triton: FakeTriton, *steps: PlannedAction) -> tuple[Outcome, ...]:
    kept: list[Outcome] = []

    async def keep(_: PlannedAction, outcome: Outcome) -> None:
        kept.append(outcome)

    async def scenario() -> tuple[Outcome, ...]:
        triton.start(SERVER)
        catalogue = FakeCatalogue(a_package("a"), a_package("b"), a_package("e"))
        return await Executor(triton, catalogue, FakeFleet(SERVER)).execute(SERVER, steps, keep)

    outcomes = asyncio.run(scenario())
    assert kept == list(outcomes)
    return outcomes


def test_stages_are_kept_and_members_pinned_again_right_before_their_ensemble() -> None:
    triton = FakeTriton({"a": FakeModel(), "b": FakeModel(), "e": FakeModel(members=("a",))})
    outcomes = execute(triton, step(1, "e", MEMBER), step(0, "a"))
    assert [(type(outcome), outcome.action.model) for outcome in outcomes] == [(Loaded, "a"), (Loaded, "e")]
    assert [(kind, model) for kind, _, model, _ in triton.calls] == [("load", "a"), ("load", "a"), ("load", "e")]


def test_a_failed_member_stops_its_ensemble_and_nothing_else() -> None:
    triton = FakeTriton({"a": FakeModel(broken="boom"), "b": FakeModel(), "e": FakeModel(members=("a",))})
    failed, loaded, skipped = execute(triton, step(0, "a"), step(0, "b"), step(1, "e", MEMBER))
    assert isinstance(failed, Failed)
    assert "boom" in failed.reason
    assert not failed.retryable
    assert isinstance(loaded, Loaded)
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith("Its member 'a' failed: load failed for model 'a'")


def test_an_unload() -> None:
    triton = FakeTriton({})
    unload = Unload(SERVER.id, ModelName("a"))
    assert execute(triton, PlannedAction(unload, "why", 0)) == (Unloaded(unload),)
    assert triton.calls == [("unload", ServerId("s0"), "a", 0)]


def test_a_deadline_is_retryable() -> None:
    (outcome,) = execute(FakeTriton({"a": FakeModel(hangs=True)}), step(0, "a"))
    assert isinstance(outcome, Failed)
    assert outcome.retryable


def test_no_more_calls_at_once_than_allowed() -> None:
    async def scenario() -> int:
        triton = FakeTriton({name: FakeModel() for name in "abe"})
        triton.start(SERVER)
        triton.gate = asyncio.Event()
        executor = Executor(triton, FakeCatalogue(*(a_package(name) for name in "abe")), FakeFleet(SERVER), at_once=2)

        async def keep(_: PlannedAction, __: Outcome) -> None:
            """Forget it."""

        task = asyncio.create_task(executor.execute(SERVER, [step(0, name) for name in "abe"], keep))
        await until(lambda: len(triton.calls) == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        calls = len(triton.calls)
        triton.gate.set()
        assert len(await task) == 3
        return calls

    assert asyncio.run(scenario()) == 2
