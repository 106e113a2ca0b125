"""The bench of big fleets runs, on a small one; no speed is asserted."""

import asyncio

from tests.bench.fleet_scale import MODELS_PER_SERVER, REPLICAS, deploy_all, fleet, measured, table_of


def test_the_bench_places_everything_and_moves_what_was_lost() -> None:
    row = measured(20)
    assert row.assignments == 20 * MODELS_PER_SERVER * REPLICAS
    assert row.moved > 0
    assert row.idle.passes == 1
    assert table_of([row]).row_count == 3


def test_its_deployments_reach_their_end() -> None:
    async def scenario() -> None:
        rig = fleet(20)
        await deploy_all(rig)
        await rig.settle()
        assert await rig.operations.open() == ()

    asyncio.run(scenario())
