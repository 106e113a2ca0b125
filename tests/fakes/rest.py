"""The real REST API over a `Rig`, answering on a port of this machine, in a thread: what the command line talks to."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import uvicorn

from control_plane.api import Access
from tests.fakes.rig import Rig

_DEADLINE_S = 30.0


@contextmanager
def answering(rig: Rig, access: Access | None = None) -> Iterator[str]:
    """Yield the URL of a control plane over the fakes of `rig`, whose loop runs too."""
    config = uvicorn.Config(rig.app(access), port=0, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = _Server(config)

    async def serve() -> None:
        loop = asyncio.create_task(rig.loop.run())
        await server.serve()
        loop.cancel()
        await asyncio.wait({loop})

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert server.answers.wait(_DEADLINE_S)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """uvicorn that says when it answers; it installs signal handlers in the main thread alone, which this is not."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = Event()

    async def startup(self, sockets: object = None) -> None:
        assert sockets is None
        await super().startup()
        self.answers.set()
