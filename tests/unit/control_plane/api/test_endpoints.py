"""The stream of the endpoint list, over fakes."""

import asyncio

from control_plane.api.endpoints import _stream
from tests.fakes.rig import Rig


def test_a_stream_is_kept_alive_where_passes_end_often_and_change_nothing() -> None:
    async def scenario() -> None:
        rig = Rig()
        stream = _stream(rig.app().state.parts, "b", keep_alive_s=0.05)

        async def passes() -> None:
            while True:
                await rig.loop.run_pass()

        running = asyncio.create_task(passes())
        async with asyncio.timeout(10):
            assert (await anext(stream)).startswith("event: endpoints\ndata: ")
            assert [await anext(stream) for _ in range(2)] == [": still here\n\n"] * 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
