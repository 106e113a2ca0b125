"""The agent of a machine with GPUs: what a `LocalNode` does, for a control plane elsewhere, over mutual TLS.

Who asks must show a certificate of the authority; a connection without one ends in the handshake. It decides nothing:
it is told which slices to cut, with which server on each, and tells what is there.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from control_plane.adapters.agent_wire import (
    INSTALLED,
    SERVERS,
    VIEWS,
    HeldBody,
    NeededBody,
    RestartBody,
    SliceBody,
    told,
)
from control_plane.answering import answer, listen, url_of
from control_plane.errors import ControlPlaneError, RetryableError
from control_plane.node.versions import NodeVersions, pin_of
from control_plane.nodes import GpuNode
from control_plane.state import ServerId
from control_plane.tls import TlsFiles, server_context


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent that answers at `url`; `task` ends when it does."""

    url: str
    task: asyncio.Task[None]


def create_agent_app(node: GpuNode, versions: NodeVersions | None = None) -> FastAPI:
    """Return the API over a node, and over the versions in its folder where those are put there from elsewhere."""
    app = FastAPI(title="Tritonfleet agent", openapi_url=None)

    @app.exception_handler(ControlPlaneError)
    async def tell(_request: Request, error: ControlPlaneError) -> Response:
        status = HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, RetryableError) else HTTPStatus.CONFLICT
        return JSONResponse(told(error).model_dump(), status)

    @app.get("/v1/node")
    async def look() -> Response:
        return Response(VIEWS.dump_json(await node.look()), media_type="application/json")

    @app.put("/v1/slices/{server}")
    async def create(server: str, body: SliceBody) -> Response:
        made = await node.create(body.of(server))
        return Response(SERVERS.dump_json(made), media_type="application/json")

    @app.post("/v1/slices/{server}/destroy")
    async def destroy(server: str, body: SliceBody) -> None:
        await node.destroy(body.of(server))

    @app.post("/v1/slices/{server}/restart")
    async def restart(server: str, body: RestartBody) -> bool:
        return await node.restart(ServerId(server), body.reason)

    if versions is not None:
        _add_versions(app, versions)
    return app


def _add_versions(app: FastAPI, versions: NodeVersions) -> None:
    @app.get("/v1/versions")
    async def installed() -> Response:
        found = await asyncio.to_thread(versions.installed)
        return Response(INSTALLED.dump_json(found), media_type="application/json")

    @app.post("/v1/versions/held")
    async def held(body: HeldBody) -> bool:
        return await asyncio.to_thread(versions.holds, body.pin, body.files)

    @app.post("/v1/versions/needed")
    async def needed(body: NeededBody) -> bool:
        await asyncio.to_thread(versions.note_needed, [it.pin for it in body.pins])
        return True

    @app.put("/v1/versions/{model}/{version}")
    async def receive(model: str, version: int, request: Request) -> int:
        with tempfile.TemporaryFile() as packed:
            async for chunk in request.stream():
                await asyncio.to_thread(packed.write, chunk)
            packed.seek(0)
            return await asyncio.to_thread(versions.receive, pin_of(model, version), packed)

    @app.delete("/v1/versions/{model}/{version}")
    async def remove(model: str, version: int) -> bool:
        return await asyncio.to_thread(versions.remove, pin_of(model, version))


@asynccontextmanager
async def running_agent(
    node: GpuNode, address: tuple[str, int], files: TlsFiles, versions: NodeVersions | None = None
) -> AsyncIterator[RunningAgent]:
    """Answer over mutual TLS at an address; port 0 takes a free one. Raises SettingsError, PortTakenError."""
    host, port = address
    context = server_context(files)
    with listen(host, port, "--port") as listener:
        async with answer(create_agent_app(node, versions), listener, context) as task:
            yield RunningAgent(url_of("https", host, listener), task)
