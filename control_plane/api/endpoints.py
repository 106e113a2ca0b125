"""`/v1/endpoints`: where clients of a model are to go now, as a list and as a stream of its changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from control_plane.api import bodies, deployment_schemas
from control_plane.api.parts import Parts, UsedParts
from control_plane.api.views import endpoint_bodies

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

Model = Annotated[str, Query(pattern=bodies.MODEL_NAME, examples=["text_embedding"])]

KEEP_ALIVE_S = 15.0
"""A comment is sent after so long without a change, so that a dead client or proxy is noticed."""


@router.get("")
async def list_all(model: Model, parts: UsedParts) -> deployment_schemas.EndpointList:
    """Show the servers that serve a model, each with the part of the traffic that it should get."""
    return await _endpoints(parts, model)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "An `endpoints` event for each change."}},
)
async def events(model: Model, parts: UsedParts) -> StreamingResponse:
    """Send the list at once, and again whenever it changes, as server-sent events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(parts, model), media_type="text/event-stream", headers=headers)


async def _stream(parts: Parts, model: str, keep_alive_s: float = KEEP_ALIVE_S) -> AsyncIterator[str]:
    clock, sent, sent_at = asyncio.get_running_loop().time, "", 0.0
    while True:
        now = (await _endpoints(parts, model)).model_dump_json()
        if now != sent:
            sent, sent_at = now, clock()
            yield f"event: endpoints\ndata: {now}\n\n"
        elif clock() - sent_at >= keep_alive_s:  # passes end more often than that, and change nothing mostly
            sent_at = clock()
            yield ": still here\n\n"
        with suppress(TimeoutError):
            async with asyncio.timeout_at(sent_at + keep_alive_s):
                await parts.reconciler.pass_ended()


async def _endpoints(parts: Parts, model: str) -> deployment_schemas.EndpointList:
    view = parts.reconciler.view
    own = [it for it in await parts.deployments.list() if it.model == model]
    found = [endpoint for deployment in own for endpoint in view.endpoints_of(deployment)]
    return deployment_schemas.EndpointList(model=model, endpoints=endpoint_bodies(found))
