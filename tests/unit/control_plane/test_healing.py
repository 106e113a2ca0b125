"""A fleet that stays right when things break: over fakes, with a clock that stands still until it is moved."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from control_plane.actions import Restart
from control_plane.deployments import Changes
from control_plane.planning import DeploymentState
from control_plane.planning.fitting import GRACE
from control_plane.planning.lifecycle import LINGER
from control_plane.planning.outages import TOO_MANY, WINDOW
from control_plane.planning.retry import QUARANTINED_AFTER
from control_plane.state import (
    ActionRecord,
    Deployment,
    DeploymentName,
    Device,
    Mark,
    ModelName,
    Result,
    Server,
    ServerId,
)
from control_plane.wanted import ANY_POOL, Drift, Needs, Replicas
from tests.fakes.rig import Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_server, until, with_backend

S0, S1, S2 = (ServerId(f"s{number}") for number in range(3))
B = ModelName("b")


def rig_of(count: int) -> Rig:
    return Rig(*(a_server(f"s{number}") for number in range(count)))


def run(scenario: Callable[[Rig], Awaitable[None]], servers: int = 3) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario(rig_of(servers))

    asyncio.run(limited())


async def deploy(rig: Rig, model: str = "b", replicas: int = 0, **needs: object) -> Deployment:
    wanted = Needs({ANY_POOL: Replicas(replicas)} if replicas else {}, **needs)  # type: ignore[arg-type]
    answer = await rig.deployments.create(DeploymentName(model), ModelName(model), None, changes=Changes(needs=wanted))
    assert isinstance(answer, Deployment), answer
    await rig.settle()
    return answer


def holders(rig: Rig) -> list[str]:
    """List the servers that have b ready."""
    return [server.id for server in rig.servers if rig.triton.processes[server.id].up and "b:1" in rig.ready(server)]


def server(rig: Rig, name: ServerId) -> Server:
    return next(it for it in rig.servers if it.id == name)


def test_replicas_are_spread_and_stay_where_they_are() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, replicas=2)
        assert holders(rig) == ["s0", "s1"]
        calls = len(rig.triton.calls)
        await rig.settle()
        assert len(rig.triton.calls) == calls

    run(scenario)


def test_a_server_that_stays_away_loses_its_replicas_and_one_that_restarts_does_not() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, replicas=2)
        rig.triton.processes[S0].up = False
        await rig.settle()
        assert holders(rig) == ["s1"]
        rig.clock.move(GRACE.total_seconds())
        await rig.settle()
        assert holders(rig) == ["s1", "s2"]
        assert rig.loop.view.status_of(deployment).state is DeploymentState.SERVING
        rig.triton.start(server(rig, S0))  # comes back empty, and is not needed any more
        await rig.settle()
        assert holders(rig) == ["s1", "s2"]

    run(scenario)


def test_a_drain_loads_elsewhere_sends_clients_there_and_then_empties_the_server() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, replicas=1)
        assert holders(rig) == ["s0"]
        await rig.store.mark(Mark(S0, "maintenance", rig.clock()))
        await rig.loop.run_pass()
        assert [it.server for it in rig.loop.view.endpoints_of(deployment)] == ["s0"], "nobody else serves yet"
        await rig.loop.executions_ended()
        await rig.settle()
        assert holders(rig) == ["s0", "s1"]
        assert [it.server for it in rig.loop.view.endpoints_of(deployment)] == ["s1"]
        assert rig.loop.view.plan.waiting[0].reason == "Unloaded once clients had time to leave it."
        rig.clock.move(LINGER.total_seconds())
        await rig.settle()
        assert holders(rig) == ["s1"]

    run(scenario)


def test_what_answers_ready_and_serves_nobody_is_healed_without_an_unload() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, replicas=2)
        rig.triton.processes[S0].dead.add("b")
        await rig.loop.prober.probe_now()
        await rig.loop.run_pass()
        assert [it.server for it in rig.loop.view.endpoints_of(deployment)] == ["s1"]
        step = rig.loop.view.plan.steps[0]
        assert "answers READY and serves nobody: Stub process 'b_0_0' is not healthy." in step.reason
        await rig.loop.executions_ended()
        await rig.settle()
        assert rig.triton.processes[S0].generations["b"] == 1
        assert not rig.triton.processes[S0].dead
        assert not any(call[0] == "unload" for call in rig.triton.calls)
        await rig.loop.prober.probe_now()
        assert rig.loop.prober.found == {}
        await rig.settle()
        assert [it.server for it in rig.loop.view.endpoints_of(deployment)] == ["s0", "s1"]

    run(scenario)


def test_failures_that_rise_have_a_model_probed_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, replicas=1)
        probing = asyncio.create_task(rig.loop.prober.run())
        await asyncio.sleep(0.05)  # the first probe of it is over
        process = rig.triton.processes[S0]
        process.dead.add("b")
        process.failed["b"] = 3
        await rig.loop.run_pass()
        await until(lambda: bool(rig.loop.prober.found))
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        assert rig.loop.prober.found[S0, B].reason.startswith("Stub process")

    run(scenario)


def test_a_model_that_breaks_again_and_again_is_quarantined_and_served_elsewhere() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, replicas=1)
        for _ in range(QUARANTINED_AFTER):
            rig.triton.processes[S0].dead.add("b")
            await rig.loop.prober.probe_now()
            rig.clock.move(70)
            await rig.settle()
        assert rig.loop.view.plan.placement.of(deployment.name)[0].server == S1
        rig.clock.move(LINGER.total_seconds())
        await rig.settle()
        assert holders(rig) == ["s1"]

    run(scenario)


def test_a_hung_load_has_a_server_of_ours_restarted() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(hangs=True)

        def restart(name: ServerId) -> None:
            rig.triton.start(server(rig, name))

        rig.fleet.restarting = restart
        answer = await rig.deployments.create(DeploymentName("b"), B, None)
        assert isinstance(answer, Deployment)
        await rig.loop.run_pass()
        await rig.loop.executions_ended()
        plan = await rig.loop.run_pass()
        assert [step.action for step in plan.steps] == [Restart(S0)]
        await rig.loop.executions_ended()
        ((name, reason),) = rig.fleet.restarts
        assert (name, "did not load within" in reason) == (S0, True)
        rig.triton.published["b"] = FakeModel()
        rig.clock.move(2)
        await rig.settle()
        assert holders(rig) == ["s0"]

    run(scenario, servers=1)


def test_a_hung_server_that_is_not_ours_is_left_alone() -> None:
    async def scenario(rig: Rig) -> None:
        rig.fleet.ours = False
        rig.triton.published["b"] = FakeModel(hangs=True)
        answer = await rig.deployments.create(DeploymentName("b"), B, None)
        assert isinstance(answer, Deployment)
        for _ in range(3):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
        assert rig.fleet.restarts == []
        assert [it.reason for it in rig.loop.view.plan.waiting] == ["Triton is loading it."]

    run(scenario, servers=1)


def test_a_server_that_keeps_failing_is_taken_out_and_let_back_in() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, replicas=1)
        for _ in range(TOO_MANY):
            rig.triton.processes[S0].up = False
            await rig.settle()
            rig.triton.start(server(rig, S0))
            rig.clock.move(5)
            await rig.settle()
        (mark,) = await rig.store.marks()
        assert (mark.server, mark.by_operator) == (S0, False)
        rig.clock.move(LINGER.total_seconds())
        await rig.settle()
        assert holders(rig) == ["s1"]
        rig.clock.move(WINDOW.total_seconds())
        await rig.settle()
        assert await rig.store.marks() == ()

    run(scenario, servers=2)


def test_a_server_that_an_operator_lets_back_in_stays_until_it_fails_as_often_again() -> None:
    async def scenario(rig: Rig) -> None:
        async def fail(times: int) -> None:
            for _ in range(times):
                rig.triton.processes[S0].up = False
                await rig.settle()
                rig.triton.start(server(rig, S0))
                rig.clock.move(5)
                await rig.settle()

        await deploy(rig, replicas=1)
        await fail(TOO_MANY)
        await rig.store.unmark(S0)
        await rig.settle()
        await fail(TOO_MANY - 1)
        assert await rig.store.marks() == ()
        await fail(1)
        assert [mark.server for mark in await rig.store.marks()] == [S0]

    run(scenario, servers=2)


def test_the_last_server_is_never_taken_out() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig)
        for _ in range(TOO_MANY + 1):
            rig.triton.processes[S0].up = False
            await rig.settle()
            rig.triton.start(server(rig, S0))
            rig.clock.move(70)
            await rig.settle()
        assert await rig.store.marks() == ()
        assert holders(rig) == ["s0"]

    run(scenario, servers=1)


def test_drift_by_hand_is_repaired_or_only_reported() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, replicas=1)
        await deploy(rig, "a", replicas=1, drift=Drift.REPORT)
        for model in ("a", "b"):
            for name in (S0, S1):
                await rig.triton.unload(server(rig, name), ModelName(model))
        rig.clock.move(60)
        await rig.settle()
        assert holders(rig) == ["s0"]
        ready = {it for name in (S0, S1) for it in rig.ready(server(rig, name))}
        assert ready == {"b:1"}
        (waiting,) = [it for it in rig.loop.view.plan.waiting if it.model == "a"]
        assert "its deployments ask that this is only reported" in waiting.reason
        for name in (S0, S1):
            rig.triton.start(server(rig, name))  # a restart is no drift
        rig.clock.move(60)
        await rig.settle()
        assert {it for name in (S0, S1) for it in rig.ready(server(rig, name))} == {"b:1", "a:2"}

    run(scenario, servers=2)


def test_instances_are_changed_in_place_and_kept_by_a_heal() -> None:
    async def scenario(rig: Rig) -> None:
        deployment = await deploy(rig, replicas=1, instances=2)
        process = rig.triton.processes[S0]
        assert process.instances["b"] == 2
        await rig.deployments.change(
            deployment.name, lambda it: Changes(needs=Needs(it.needs.replicas, instances=5)), expected=1
        )
        await rig.loop.run_pass()
        assert rig.loop.view.plan.steps[0].reason == "2 instances are running, 5 asked for."
        await rig.loop.executions_ended()
        process.dead.add("b")
        await rig.loop.prober.probe_now()
        rig.clock.move(60)
        await rig.settle()
        assert (process.instances["b"], process.generations["b"]) == (5, 1)
        assert not any(call[0] == "unload" for call in rig.triton.calls)

    run(scenario)


def test_an_ensemble_over_a_dead_member_is_healed_by_healing_the_member() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "e")
        process = rig.triton.processes[S0]
        process.dead |= {"b", "e"}  # requests to an ensemble fail with its member's
        await rig.loop.prober.probe_now()
        rig.clock.move(1)
        await rig.loop.run_pass()
        reasons = {str(step.action.model): step.reason for step in rig.loop.view.plan.steps}
        assert reasons["b"].startswith("It answers READY and serves nobody")
        assert reasons["e"] == "Its member 'b' is loaded anew."
        process.dead.discard("e")
        await rig.loop.executions_ended()
        await rig.settle()
        assert (process.generations["b"], process.generations["e"]) == (1, 0)
        await rig.loop.prober.probe_now()
        assert rig.loop.prober.found == {}

    run(scenario, servers=1)


def test_a_backend_that_a_server_turns_out_to_lack_is_believed_and_the_replica_goes_elsewhere() -> None:
    async def scenario(rig: Rig) -> None:
        for name in ("a", "b"):
            rig.triton.published[name] = FakeModel(rig.triton.published[name].versions, backend="dali")
            rig.catalogue.published[ModelName(name)] = with_backend(rig.catalogue.published[ModelName(name)], "dali")
        rig.triton.processes[S1].has |= {"dali"}
        await deploy(rig, replicas=1)
        assert holders(rig) == ["s1"]
        assert rig.loop.view.by_id[S0].lacks == {"dali"}
        assert "dali" in rig.loop.view.by_id[S1].backends
        attempts = [call for call in rig.triton.calls if call[:2] == ("load", S0)]
        assert len(attempts) == 1
        await deploy(rig, "a", replicas=1)
        assert "a:2" in rig.ready(server(rig, S1))
        assert [call for call in rig.triton.calls if call[:2] == ("load", S0)] == attempts

    run(scenario, servers=2)


def test_a_server_that_was_started_again_is_asked_again() -> None:
    async def scenario(rig: Rig) -> None:
        rig.triton.published["b"] = FakeModel(backend="dali")
        rig.catalogue.published[B] = with_backend(rig.catalogue.published[B], "dali")
        answer = await rig.deployments.create(DeploymentName("b"), B, None)
        assert isinstance(answer, Deployment)
        for _ in range(3):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            rig.clock.move(100)
        assert [call[0] for call in rig.triton.calls] == ["load"]
        assert "which the server said it does not have" in rig.loop.view.plan.waiting[0].reason
        rig.triton.start(rig.servers[0]).has |= {"dali"}
        await rig.settle()
        assert holders(rig) == ["s0"]

    run(scenario, servers=1)


def test_a_server_whose_memory_does_not_come_back_is_drained_restarted_and_let_back_in() -> None:
    async def scenario(rig: Rig) -> None:
        rig.fleet.memory = dict.fromkeys((S0, S1), 10**9)
        rig.fleet.restarting = lambda name: restart(rig, name)
        await deploy(rig, replicas=1)
        await rest(rig)
        for times in range(3):
            assert rig.loop.view.by_id[S0].memory_missing_bytes == times * 100 * 2**20
            await rig.store.record(ActionRecord(S0, ModelName("a"), 1, Result.FAILED, "no", rig.clock()))
            rig.fleet.memory[S0] += 100 * 2**20
            await rest(rig)
        await rest(rig)
        assert [server for server, _ in rig.fleet.restarts] == [S0]
        assert "300 MiB of memory did not come back" in rig.fleet.restarts[0][1]
        assert holders(rig) == ["s1"]
        assert await rig.store.marks() == ()
        assert rig.loop.view.by_id[S0].memory_missing_bytes == 0

    def restart(rig: Rig, name: ServerId) -> None:
        rig.triton.start(server(rig, name))
        rig.fleet.memory[name] = 10**9

    async def rest(rig: Rig) -> None:
        for _ in range(8):
            rig.clock.move(5)
            await rig.loop.run_pass()
            await rig.loop.executions_ended()

    run(scenario, servers=2)


def test_the_only_server_is_not_drained_for_memory_that_does_not_come_back() -> None:
    async def scenario(rig: Rig) -> None:
        rig.fleet.memory = {S0: 10**9}
        await deploy(rig, replicas=1)
        for step in range(40):
            rig.clock.move(5)
            if step == 10:
                await rig.store.record(ActionRecord(S0, ModelName("a"), 1, Result.FAILED, "no", rig.clock()))
                rig.fleet.memory[S0] += 2**30
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
        assert rig.loop.view.by_id[S0].memory_missing_bytes == 2**30
        assert rig.fleet.restarts == []
        assert holders(rig) == ["s0"]

    run(scenario, servers=1)


async def scale(rig: Rig, instances: int) -> None:
    wanted = Changes(needs=Needs({ANY_POOL: Replicas(1)}, instances=instances))
    assert isinstance(await rig.deployments.change(DeploymentName("b"), lambda _: wanted), Deployment)


def test_instances_are_spread_over_the_gpus_of_a_server_that_has_several() -> None:
    async def scenario() -> None:
        devices = (Device("GPU-0"), Device("GPU-1"))
        rig = Rig(replace(a_server("s0"), devices=devices))
        await deploy(rig, replicas=1)
        for asked in (3, 1, 4):
            await scale(rig, asked)
            await rig.settle()
            groups = rig.triton.processes[S0].configs["b"]["instance_group"]
            assert sum(group["count"] * len(group["gpus"]) for group in groups) == asked
            assert rig.loop.view.by_id[S0].rows_of(B)[0].instances == asked

    asyncio.run(scenario())
