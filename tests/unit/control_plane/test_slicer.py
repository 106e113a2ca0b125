"""Slices are given out and up by what is remembered and what is real: over nodes, a Triton and a clock in memory."""

import asyncio
from collections.abc import Awaitable, Callable

from control_plane.deployments import Changes
from control_plane.state import Deployment, DeploymentName, ModelName
from control_plane.tidying import Tidier
from control_plane.wanted import ANY_POOL, Domain, Needs, Replicas, Requirements
from tests.fakes.rig import Rig
from tests.fakes.world import a_package

MODELS = tuple(a_package(name) for name in "abcdz")
WHOLE = "7g.80gb of h100-80gb"
TWO = ("h100-80gb,h100-80gb",)


def run(scenario: Callable[[Rig], Awaitable[None]], gpus: tuple[str, ...] = TWO) -> None:
    async def body() -> None:
        await scenario(Rig(packages=MODELS, gpus=gpus))

    asyncio.run(body())


async def deploy(
    rig: Rig, name: str, profile: str, replicas: int = 1, spread: Domain = Domain.NONE, *, anyway: bool = False
) -> None:
    needs = Needs({ANY_POOL: Replicas(replicas)}, requirements=Requirements(mig_profile=profile), spread=spread)
    changes = Changes(needs=needs)
    made = await rig.deployments.create(DeploymentName(name), ModelName(name), changes=changes, store_anyway=anyway)
    assert isinstance(made, Deployment), made


def where(rig: Rig) -> dict[str, str]:
    """Return each replica's slice that is not being left."""
    return {str(it.replica): str(it.server) for it in rig.slices.kept.values() if not it.leaving}


def cut(rig: Rig, node: int = 0) -> list[list[tuple[str, int]]]:
    return [[(it.profile, it.start) for it in gpu.geometry] for gpu in rig.nodes[node].gpus]


def test_a_slice_is_given_out_and_its_replica_serves_and_given_back_when_nobody_wants_it() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "3g.40gb", replicas=2)
        await rig.rest()
        servers = where(rig)
        assert sorted(servers) == ["a/0", "a/1"]
        assert all({"a:1"} == rig.ready(rig.nodes[0].servers[it]) for it in rig.nodes[0].servers)
        await rig.deployments.delete(DeploymentName("a"))
        await rig.rest()
        assert (where(rig), cut(rig), rig.nodes[0].servers) == ({}, [[], []], {})

    run(scenario)


def test_one_that_moves_serves_from_its_new_slice_before_the_old_one_goes() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "7g.80gb")
        await deploy(rig, "b", "1g.20gb")
        await rig.rest()
        await rig.deployments.delete(DeploymentName("a"))
        await rig.rest()
        await deploy(rig, "c", "4g.40gb")
        await rig.rest()
        before = where(rig)
        await deploy(rig, "z", "7g.80gb")
        await rig.rest()
        after = where(rig)
        assert sorted(after) == ["b/0", "c/0", "z/0"]
        moved = [it for it in before if after[it] != before[it]]
        assert len(moved) == 1
        calls = rig.nodes[0].calls
        assert calls.index(f"create {after[moved[0]]}") < calls.index(f"destroy {before[moved[0]]}")
        assert calls.index(f"destroy {before[moved[0]]}") < calls.index(f"create {after['z/0']}")

    run(scenario)


def test_a_control_plane_that_begins_anew_changes_nothing_and_cuts_again_what_a_reboot_took() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "2g.20gb", replicas=3)
        await rig.rest()
        before, calls = where(rig), list(rig.nodes[0].calls)
        rig.begin()
        await rig.rest()
        assert (where(rig), rig.nodes[0].calls) == (before, calls)
        node = rig.nodes[0]
        node.servers.clear()
        node.cut()
        for server in list(rig.triton.processes):
            rig.triton.processes[server].up = False
        await rig.rest()
        assert where(rig) == before
        assert len(node.servers) == 3

    run(scenario)


def test_what_a_node_that_is_away_held_is_placed_elsewhere_after_half_a_minute_and_not_before() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "3g.40gb", replicas=2, spread=Domain.NODE)
        await rig.rest()
        kept = where(rig)
        lost = next(it for it, server in kept.items() if server.startswith("n1"))
        rig.nodes[1].away = True
        for server in rig.nodes[1].servers:
            rig.triton.processes[server].up = False
        for _ in range(5):
            await rig.loop.run_pass()
            rig.clock.move(5)
        assert where(rig) == kept
        rig.clock.move(30)
        for _ in range(4):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            assert rig.slicer is not None
            await rig.slicer.work_ended()
            rig.clock.move(2)
        assert where(rig)[lost].startswith("n2")

    run(scenario, ("h100-80gb", "h100-80gb", "h100-80gb"))


def test_a_gpu_that_will_not_be_cut_is_left_alone_and_a_slice_is_looked_for_elsewhere() -> None:
    async def scenario(rig: Rig) -> None:
        rig.nodes[0].refuses = {rig.nodes[0].gpus[0].uuid}
        await deploy(rig, "a", "7g.80gb")
        for _ in range(40):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            assert rig.slicer is not None
            await rig.slicer.work_ended()
            rig.clock.move(5)
        assert cut(rig) == [[], [("7g", 0)]]
        assert rig.slicer is not None
        assert "could not be cut" in rig.slicer.view.gpus[0].unusable

    run(scenario)


def test_what_serves_on_a_gpu_that_will_not_be_cut_again_stays() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "3g.40gb")
        await rig.rest()
        before = where(rig)
        on = next(it.seat.gpu for it in rig.slices.kept.values())
        rig.nodes[0].refuses = {on}
        await deploy(rig, "b", "4g.40gb")
        for _ in range(40):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            assert rig.slicer is not None
            await rig.slicer.work_ended()
            rig.clock.move(5)
        after = where(rig)
        assert after["a/0"] == before["a/0"]
        assert "b/0" in after
        assert sorted(map(len, cut(rig))) == [1, 1]

    run(scenario)


def test_a_control_plane_that_begins_while_a_node_is_away_waits_for_it() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "3g.40gb", replicas=2, spread=Domain.NODE)
        await rig.rest()
        before = where(rig)
        rig.begin()
        rig.nodes[1].away = True
        for _ in range(4):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            rig.clock.move(5)
        assert where(rig) == before
        rig.nodes[1].away = False
        await rig.rest()
        assert where(rig) == before
        assert not [call for node in rig.nodes for call in node.calls if call.startswith("destroy")]

    run(scenario, ("h100-80gb", "h100-80gb", "h100-80gb"))


def test_a_server_of_ours_that_nobody_remembers_is_given_up() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "a", "3g.40gb")
        await rig.rest()
        rig.slices.kept.clear()
        await rig.deployments.delete(DeploymentName("a"))
        for process in rig.triton.processes.values():
            process.rows.clear()
        await rig.rest()
        assert (cut(rig), rig.nodes[0].servers) == ([[], []], {})

    run(scenario)


def test_what_somebody_else_cut_and_uses_is_never_touched() -> None:
    async def scenario(rig: Rig) -> None:
        rig.nodes[0].cut(("3g", 4))
        await deploy(rig, "a", "3g.40gb")
        await deploy(rig, "b", "7g.80gb")
        await rig.rest()
        assert cut(rig) == [[("3g", 0), ("3g", 4)], [("7g", 0)]]

    run(scenario)


def test_slices_are_kept_ready_and_taken_by_whoever_finds_no_other_place() -> None:
    async def body() -> None:
        rig = Rig(packages=MODELS, gpus=("h100-80gb",), warm={"3g.40gb": 2})
        await rig.rest()
        kept = where(rig)
        assert sorted(kept) == ["warm/3g.40gb/0", "warm/3g.40gb/1"]
        assert len(rig.nodes[0].servers) == 2
        await deploy(rig, "a", "3g.40gb")
        await rig.rest()
        after = where(rig)
        assert len(after) == 2
        assert after["a/0"] in kept.values(), "it has the slice that was ready"
        assert [call for call in rig.nodes[0].calls if call.startswith("destroy")] == []
        await deploy(rig, "z", "7g.80gb", anyway=True)
        await rig.deployments.delete(DeploymentName("a"))
        await rig.rest()
        assert "z/0" in where(rig)

    asyncio.run(body())


def test_replicas_move_together_once_nothing_changed_for_long_enough() -> None:
    async def scenario(rig: Rig) -> None:
        await deploy(rig, "c", "7g.80gb")
        await deploy(rig, "a", "3g.40gb")
        await rig.rest()
        await rig.deployments.delete(DeploymentName("c"))
        await rig.rest()
        await deploy(rig, "b", "4g.40gb")
        await rig.rest()
        assert sorted(map(len, cut(rig))) == [1, 1]
        assert rig.slicer is not None
        tidier = Tidier(rig.slicer, 60, rig.clock, rig.loop.wake)
        assert not await tidier.look()
        rig.clock.move(59)
        assert not await tidier.look()
        rig.clock.move(1)
        assert await tidier.look()
        await rig.rest()
        assert sorted(map(len, cut(rig))) == [0, 2]
        rig.clock.move(3600)
        assert not await tidier.look()
        rig.clock.move(3600)
        assert not await tidier.look(), "there is nothing to gain"

    run(scenario)


def test_what_gets_no_slice_is_refused_with_what_would_help() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.rest()
        needs = Needs({ANY_POOL: Replicas(3)}, requirements=Requirements(mig_profile="7g.80gb"))
        wide = Changes(needs=needs)
        refused = await rig.deployments.create(DeploymentName("a"), ModelName("a"), changes=wide)
        assert getattr(refused, "reasons", ()) == (
            f"1 replica has no slice: no {WHOLE} is free; it takes one {WHOLE} more, which no moves can free.",
        )

    run(scenario)
