"""Answering HTTP on a listener that is taken before anything is started: for the control plane, and for an agent.

uvicorn does the work; signals stay with the program that this is a part of.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from signal import SIGINT, SIGTERM
from typing import Any

import uvicorn
from fastapi import FastAPI

from control_plane.errors import ControlPlaneError, PortTakenError, SettingsError

_GRACE_S = 5
_STOP_SIGNALS = (SIGTERM, SIGINT)


async def until_signalled(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` until it ends, or until SIGTERM or SIGINT cancels it. Raises what it raises."""
    task = asyncio.create_task(work(), name="serve")
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not task.cancelling():  # a second signal must not cut the clearing up short
            task.cancel()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        await asyncio.wait({task})
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
    if not task.cancelled():
        task.result()


@asynccontextmanager
async def answer(
    app: FastAPI, listener: socket.socket, context: ssl.SSLContext | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Answer on `listener`, over TLS with a `context`; at the end, requests in flight have `_GRACE_S` seconds."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S, server_header=False
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="API server")
    answers = asyncio.create_task(server.answers.wait())
    try:
        await asyncio.wait({task, answers}, return_when=asyncio.FIRST_COMPLETED)
        if not server.started:
            raise ControlPlaneError("The API server ended before it answered.")
        yield task
    finally:
        answers.cancel()
        server.should_exit = True
        await asyncio.wait({task})


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: signals are `serve`'s, or those of the program that this one runs in."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when it answers."""
        await super().startup(sockets=sockets)
        self.answers.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextmanager
def listen(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """Listen at an address; `setting` is how another port is given. PortTakenError, SettingsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is; without that, answers take 40 ms more.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except socket.gaierror as exc:
            raise SettingsError(f"Host {host} is no address of this machine: {exc.strerror}.") from exc
        except OSError as exc:
            raise PortTakenError(
                f"Cannot listen on {host}:{port} ({exc.strerror}): stop what uses it "
                f"(`ss -ltnp 'sport = :{port}'` shows it), or give another {setting}."
            ) from exc
        yield listener


def url_of(scheme: str, host: str, listener: socket.socket) -> str:
    """Return where a listener is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{listener.getsockname()[1]}"
