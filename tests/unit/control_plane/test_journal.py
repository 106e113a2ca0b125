"""The journal of the loop: every step in an operation, every end told, nothing lost over a restart."""

import asyncio
from collections.abc import Awaitable, Callable

from control_plane.actions import Failed
from control_plane.deployments import Changes
from control_plane.journal import Journal
from control_plane.operations import Operation, OperationKind, OperationState, StepAction, StepState
from control_plane.planning import Plan
from control_plane.planning.retry import QUARANTINED_AFTER
from control_plane.state import Deployment, DeploymentName, Mark, ModelName, ServerId
from control_plane.wanted import ANY_POOL, Needs, Replicas
from tests.fakes.rig import Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_server

S0, S1 = ServerId("s0"), ServerId("s1")


def run(scenario: Callable[[Rig], Awaitable[None]], servers: int = 1) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario(Rig(*(a_server(f"s{number}") for number in range(servers))))

    asyncio.run(limited())


async def deploy(rig: Rig, model: str = "e", replicas: int = 0) -> Deployment:
    needs = Needs({ANY_POOL: Replicas(replicas)} if replicas else {})
    answer = await rig.deployments.create(DeploymentName("d"), ModelName(model), None, changes=Changes(needs=needs))
    assert isinstance(answer, Deployment)
    return answer


async def newest(rig: Rig) -> Operation:
    return (await rig.operations.list(limit=1))[0]


def steps(operation: Operation) -> list[str]:
    return [f"{it.action} {it.model} on {it.server}: {it.state}" for it in operation.steps]


def test_a_deploy_is_an_operation_whose_steps_are_done() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig)
        assert (await newest(rig)).state is OperationState.QUEUED
        await rig.settle()
        operation = await newest(rig)
        assert (operation.kind, operation.state, operation.revision) == (OperationKind.DEPLOY, OperationState.DONE, 1)
        assert steps(operation) == ["load a on s0: done", "load b on s0: done", "load e on s0: done"]
        assert await rig.operations.open() == ()

    run(scenario)


def test_steps_that_begin_and_end_at_once_on_several_servers_are_all_written_down() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig)
        plan = await rig.loop.preview()
        await rig.journal.planned(plan)
        await asyncio.gather(*(rig.journal.started(step) for step in plan.steps))
        assert [it.state for it in (await newest(rig)).steps] == [StepState.RUNNING] * 9
        ends = (
            rig.journal.ended(it, Failed(it.action, "boom", retryable=True, seconds=1.0), None) for it in plan.steps
        )
        await asyncio.gather(*ends)
        assert [(it.state, it.attempts) for it in (await newest(rig)).steps] == [(StepState.FAILED, 1)] * 9

    run(scenario, servers=3)


def test_a_load_that_fails_waits_for_its_retry_and_fails_in_the_end_with_tritons_reason() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(broken="ModuleNotFoundError: nothing")
        await deploy(rig, "b")
        await rig.loop.run_pass()
        await rig.loop.executions_ended()
        operation = await newest(rig)
        (step,) = operation.steps
        assert (operation.state, step.state, step.attempts) == (OperationState.WAITING, StepState.WAITING, 1)
        assert "ModuleNotFoundError: nothing" in step.cause
        for _ in range(QUARANTINED_AFTER):
            rig.clock.move(70)
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
        operation = await newest(rig)
        assert (operation.state, operation.steps[0].attempts) == (OperationState.FAILED, QUARANTINED_AFTER)
        assert "ModuleNotFoundError: nothing" in operation.cause

    run(scenario)


def test_a_deploy_is_not_judged_by_a_pass_that_read_the_deployments_before_it() -> None:
    async def scenario(rig: Rig) -> None:
        known = rig.journal.open_now()
        await deploy(rig)
        await rig.journal.settle(Plan(), {}, {}, known)
        assert (await newest(rig)).state is OperationState.QUEUED
        await rig.settle()
        assert (await newest(rig)).state is OperationState.DONE

    run(scenario)


def test_a_newer_revision_ends_the_older_operation() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(broken="boom")
        await deploy(rig, "b")
        await rig.settle()
        rig.triton.published["b"] = FakeModel()
        await rig.deployments.redeploy(DeploymentName("d"))
        older, newer = reversed(await rig.operations.list())
        assert (older.state, newer.id in older.cause) == (OperationState.CANCELLED, True)
        await rig.settle()
        assert (await newest(rig)).state is OperationState.DONE

    run(scenario)


def test_what_nobody_asked_for_is_a_healing() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "b")
        await rig.settle()
        rig.triton.start(rig.servers[0])
        rig.clock.move(60)
        await rig.settle()
        operation = await newest(rig)
        assert (operation.kind, operation.server, operation.state) == (OperationKind.HEAL, S0, OperationState.DONE)
        assert steps(operation) == ["load b on s0: done"]

    run(scenario)


def test_a_drain_ends_once_the_server_is_empty_and_an_undeploy_once_nobody_holds_its_models() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "b", replicas=1)
        await rig.settle()
        await rig.store.mark(Mark(S0, "maintenance", rig.clock()))
        drain = await rig.journal.begin(OperationKind.DRAIN, server=S0)
        await rig.settle()
        rig.clock.move(5)
        await rig.settle()
        found = await rig.operations.get(drain.id)
        assert found is not None
        assert (found.state, steps(found)) == (OperationState.DONE, ["unload b on s0: done"])
        await rig.deployments.delete(DeploymentName("d"))
        await rig.settle()
        operation = await newest(rig)
        assert (operation.kind, operation.state) == (OperationKind.UNDEPLOY, OperationState.DONE)
        assert steps(operation) == ["unload b on s1: done"]

    run(scenario, servers=2)


def test_after_a_restart_what_ran_is_queued_again_and_ends_by_what_is_seen() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "b")
        rig.triton.gate = asyncio.Event()
        await rig.loop.run_pass()
        await asyncio.sleep(0.01)
        assert (await newest(rig)).steps[0].state is StepState.RUNNING
        again = Rig(*rig.servers)
        again.store, again.operations, again.triton = rig.store, rig.operations, rig.triton
        journal = Journal(rig.operations, rig.clock)
        await journal.recover()
        (step,) = (await newest(rig)).steps
        assert (step.state, step.attempts) == (StepState.QUEUED, 1)
        rig.triton.gate.set()
        await rig.loop.executions_ended()

    run(scenario)


def test_a_cancelled_operation_begins_nothing_more() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.processes[S0].up = False
        await deploy(rig, "b")
        await rig.loop.run_pass()
        operation = await newest(rig)
        await rig.journal.cancel(operation.id, "An operator cancelled it.")
        found = await rig.operations.get(operation.id)
        assert found is not None
        assert found.state is OperationState.CANCELLED

    run(scenario)


def test_scaling_instances_is_a_step_of_its_own_kind() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, "b", replicas=1)
        await rig.deployments.change(deployment.name, lambda it: Changes(needs=Needs(it.needs.replicas, instances=2)))
        await rig.settle()
        rig.triton.processes[S0].instances["b"] = 2
        await rig.deployments.change(deployment.name, lambda it: Changes(needs=Needs(it.needs.replicas, instances=4)))
        await rig.settle()
        operation = await newest(rig)
        assert (operation.kind, [it.action for it in operation.steps]) == (OperationKind.SCALE, [StepAction.SCALE])
        assert operation.state is OperationState.DONE

    run(scenario)


def test_a_healing_whose_step_is_not_needed_any_more_ends() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "b")
        await rig.settle()
        rig.triton.start(rig.servers[0])
        rig.clock.move(60)
        rig.triton.gate = asyncio.Event()
        rig.triton.published["b"] = FakeModel(broken="boom")
        await rig.loop.run_pass()
        rig.triton.gate.set()
        await rig.loop.executions_ended()
        healing = (await rig.operations.list(limit=1))[0]
        assert (healing.kind, healing.state) == (OperationKind.HEAL, OperationState.WAITING)
        await rig.deployments.delete(DeploymentName("d"))
        for _ in range(3):
            await rig.loop.run_pass()
        found = await rig.operations.get(healing.id)
        assert found is not None
        assert found.is_finished, found

    run(scenario)
