"""The loop, pass by pass, over fakes and a clock that stands still."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from control_plane.planning import DeploymentState, Infeasible
from control_plane.planning.retry import CAP_S, QUARANTINED_AFTER
from control_plane.state import Deployment, DeploymentName, ModelName, ServerId
from tests.fakes.rig import Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_server, until


def run(scenario: Callable[[Rig], Awaitable[None]], rig: Rig | None = None) -> None:
    async def body() -> None:
        await scenario(rig or Rig())

    asyncio.run(body())


async def deploy(rig: Rig, name: str, model: str, version: int | None = None) -> Deployment:
    answer = await rig.deployments.create(DeploymentName(name), ModelName(model), version)
    assert isinstance(answer, Deployment), answer
    return answer


def state(rig: Rig, deployment: Deployment) -> DeploymentState:
    return rig.loop.view.status_of(deployment).state


def test_a_deployment_is_carried_out_and_then_nothing_is_left_to_do() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, "d", "e")
        await rig.settle()
        assert rig.ready() == {"a:2", "b:1", "e:1"}
        assert state(rig, deployment) is DeploymentState.SERVING
        assert rig.loop.view.has_seen(deployment)
        calls = len(rig.triton.calls)
        await rig.settle()
        assert len(rig.triton.calls) == calls

    run(scenario)


def test_a_deleted_deployment_leaves_what_another_needs() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "d", "e")
        await deploy(rig, "keep", "b")
        await rig.settle()
        await rig.deployments.delete(DeploymentName("d"))
        await rig.settle()
        assert rig.ready() == {"b:1"}

    run(scenario)


def test_a_new_version_is_picked_up_by_a_redeploy_only() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "d", "b")
        await rig.settle()
        rig.triton.published["b"] = FakeModel((1, 2))
        published = rig.catalogue.published[ModelName("b")]
        rig.catalogue.published[ModelName("b")] = replace(published, versions=(1, 2))
        await rig.settle()
        assert rig.ready() == {"b:1"}
        answer = await rig.deployments.redeploy(DeploymentName("d"))
        assert isinstance(answer, Deployment)
        assert answer.revision == 2
        await rig.settle()
        assert rig.ready() == {"b:2"}
        assert ("unload", ServerId("s0"), "b", 0) not in rig.triton.calls

    run(scenario)


def test_a_server_that_comes_back_empty_is_filled_again() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "d", "e")
        await rig.settle()
        rig.triton.start(rig.servers[0])
        await rig.settle()
        assert rig.ready() == {"a:2", "b:1", "e:1"}

    run(scenario)


def test_a_failed_load_waits_for_its_time_and_is_healed_by_a_better_model() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(broken="ModuleNotFoundError: nothing")
        deployment = await deploy(rig, "d", "b")
        for delay_s in (1.0, 2.0, 4.0):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            await rig.loop.run_pass()
            status = rig.loop.view.status_of(deployment)
            assert status.state is DeploymentState.FAILED
            assert "ModuleNotFoundError: nothing" in status.servers[0].reason
            before = len(rig.triton.calls)
            rig.clock.move(delay_s - 0.1)
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            assert len(rig.triton.calls) == before
            rig.clock.move(0.1)
        rig.triton.published["b"] = FakeModel()
        await rig.settle()
        assert state(rig, deployment) is DeploymentState.SERVING

    run(scenario)


def test_what_fails_too_often_is_quarantined_until_somebody_asks_again() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(broken="boom")
        deployment = await deploy(rig, "d", "b")
        for _ in range(QUARANTINED_AFTER + 4):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            rig.clock.move(CAP_S)
        assert len(rig.triton.calls) == QUARANTINED_AFTER
        assert rig.loop.view.plan.waiting[0].reason.startswith(
            f"Quarantined: {QUARANTINED_AFTER} loads in a row failed"
        )
        assert state(rig, deployment) is DeploymentState.FAILED
        rig.triton.published["b"] = FakeModel()
        await rig.store.forget(frozenset({ModelName("b")}), ServerId("s0"))
        await rig.settle()
        assert state(rig, deployment) is DeploymentState.SERVING

    run(scenario)


def test_somebody_who_asks_again_does_not_wait_for_the_backoff() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(broken="boom")
        await deploy(rig, "d", "b")
        await rig.settle()
        rig.triton.published["b"] = FakeModel()
        await rig.deployments.redeploy(DeploymentName("d"))
        await rig.settle()
        assert rig.ready() == {"b:1"}

    run(scenario)


def test_a_model_that_does_not_stay_is_not_loaded_without_end() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(vanishes=True)
        await deploy(rig, "d", "b")
        await rig.settle()
        assert len(rig.triton.calls) == 2
        assert "soon not ready any more" in rig.loop.view.plan.waiting[0].reason
        rig.clock.move(1.0)
        await rig.settle()
        assert len(rig.triton.calls) == 3
        rig.clock.move(1.0)
        await rig.settle()
        assert len(rig.triton.calls) == 3

    run(scenario)


def test_a_server_on_which_a_load_takes_long_delays_no_other() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.processes[ServerId("s1")].up = False
        await deploy(rig, "d", "b")
        rig.triton.gate = asyncio.Event()
        await rig.loop.run_pass()
        await until(lambda: bool(rig.triton.calls))
        rig.triton.processes[ServerId("s1")].up = True
        slow, rig.triton.gate = rig.triton.gate, None
        await rig.loop.run_pass()
        await until(lambda: bool(rig.ready(rig.servers[1])))
        assert rig.ready(rig.servers[0]) == set()
        slow.set()
        await rig.settle()
        assert rig.ready(rig.servers[0]) == {"b:1"}

    run(scenario, Rig(a_server("s0"), a_server("s1")))


def test_an_unreachable_server_is_told_with_the_supervisors_word() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.processes[ServerId("s0")].up = False
        rig.fleet.notes[ServerId("s0")] = "tritonserver ended with status 137."
        deployment = await deploy(rig, "d", "b")
        await rig.loop.run_pass()
        status = rig.loop.view.status_of(deployment)
        assert status.state is DeploymentState.PENDING
        assert "ended with status 137" in status.servers[0].reason

    run(scenario)


def test_a_preview_touches_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "d", "e")
        plan = await rig.loop.preview()
        assert [step.action.model for step in plan.steps] == ["a", "b", "e"]
        assert (rig.triton.calls, rig.loop.passes) == ([], 0)

    run(scenario)


def test_an_unexpected_error_is_shown_and_the_loop_goes_on() -> None:
    async def scenario(rig: Rig) -> None:
        rig.catalogue.fails = RuntimeError("what nobody expected")
        task = asyncio.create_task(rig.loop.run())
        await until(lambda: bool(rig.loop.last_error))
        assert "RuntimeError: what nobody expected" in rig.loop.last_error
        assert 'tritonfleet_unexpected_errors_total{place="pass"} 1.0' in rig.metrics.text().decode()
        rig.catalogue.fails = None
        await deploy(rig, "d", "b")
        while rig.ready() != {"b:1"}:
            await rig.loop.pass_ended()
        task.cancel()
        await asyncio.wait({task})
        assert rig.fleet.listeners == []

    run(scenario)


def test_the_fleet_wakes_the_loop() -> None:
    async def scenario(rig: Rig) -> None:
        task = asyncio.create_task(rig.loop.run())
        await rig.loop.pass_ended()
        before = rig.loop.passes
        rig.fleet.change()
        await rig.loop.pass_ended()
        assert rig.loop.passes > before
        task.cancel()
        await asyncio.wait({task})

    run(scenario)


def test_what_cannot_be_served_is_not_stored() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.deployments.create(DeploymentName("d"), ModelName("unbuilt"), None)
        assert isinstance(answer, Infeasible)
        assert await rig.store.list() == ()

    run(scenario)


def test_of_a_server_that_leaves_while_it_loads_nothing_is_kept_and_it_is_filled_when_it_is_back() -> None:
    s0, s1 = a_server("s0"), a_server("s1")

    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, "d", "b")
        rig.triton.gate = asyncio.Event()
        await rig.loop.run_pass()
        await until(lambda: len(rig.triton.calls) == 2)
        await rig.fleet.unregister(s1.id)
        rig.triton.gate.set()
        await rig.loop.executions_ended()
        assert {record.server for record in await rig.store.records()} == {s0.id}
        await rig.settle()
        assert [it.server for it in rig.loop.view.status_of(deployment).servers] == [s0.id]
        assert state(rig, deployment) is DeploymentState.SERVING
        rig.triton.start(s1)
        await rig.fleet.register(s1)
        await rig.settle()
        assert rig.ready(s1) == {"b:1"}

    run(scenario, Rig(s0, s1))
