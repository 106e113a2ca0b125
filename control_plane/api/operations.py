"""`/v1/operations`: every change and what became of it, step by step; cancelling; progress as it happens."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from control_plane.api import operation_schemas
from control_plane.api.endpoints import KEEP_ALIVE_S
from control_plane.api.parts import Parts, UsedParts
from control_plane.api.problems import Problem, documented, not_found
from control_plane.api.views import operation_body
from control_plane.operations import Cursor, Operation, OperationId, OperationState
from control_plane.state import DeploymentName, ServerId

router = APIRouter(prefix="/v1/operations", tags=["operations"])

Id = Annotated[str, Path(pattern=r"^[a-z]+-[0-9a-f]{12}$", examples=["deploy-0a1b2c3d4e5f"])]


@router.get("", responses=documented(HTTPStatus.BAD_REQUEST))
async def list_all(
    parts: UsedParts,
    state: Annotated[list[OperationState] | None, Query(description="Only those in one of these states.")] = None,
    deployment: Annotated[str, Query(max_length=64, description="Only those about this deployment.")] = "",
    server: Annotated[str, Query(max_length=128, description="Only those with a step on this server.")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> operation_schemas.OperationList:
    """Show operations, the newest first."""
    cursor = Cursor.parse(before) if before is not None else None
    if before is not None and cursor is None:
        cause = "`before` is not what an earlier page gave as `next`."
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-cursor", "No such page", (cause,), "Begin without it.")
    found = await parts.journal.store.list(
        states=tuple(state or ()),
        deployment=DeploymentName(deployment),
        server=ServerId(server),
        limit=limit + 1,
        before=cursor,
    )
    page = found[:limit]
    more = str(Cursor.after(page[-1])) if len(found) > limit else None
    return operation_schemas.OperationList(operations=[operation_body(it) for it in page], next=more)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "An `operation` event for each change."}},
)
async def events(
    parts: UsedParts,
    deployment: Annotated[str, Query(max_length=64, description="Only those about this deployment.")] = "",
) -> StreamingResponse:
    """Send every open operation, then each one again whenever it changes, as server-sent events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(parts, deployment), media_type="text/event-stream", headers=headers)


@router.get("/{operation}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(operation: Id, parts: UsedParts) -> operation_schemas.OperationBody:
    """Show one operation with all its steps."""
    return operation_body(await _found(parts, operation))


@router.post("/{operation}/cancel", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def cancel(operation: Id, parts: UsedParts) -> operation_schemas.OperationBody:
    """Begin nothing more of an operation. What runs ends first, and what is declared stays declared.

    So steps that its deployment still needs are taken up again by its next change, or undone by a rollback.
    """
    found = await _found(parts, operation)
    answer = await parts.journal.cancel(found.id, "An operator cancelled it.")
    if answer is None:
        cause = f"Operation {operation} is {found.state}."
        raise Problem(HTTPStatus.CONFLICT, "finished", "It has ended", (cause,), "Nothing is left to cancel.")
    parts.reconciler.wake()
    return operation_body(answer)


async def _found(parts: Parts, name: str) -> Operation:
    found = parts.journal.current(OperationId(name)) or await parts.journal.store.get(OperationId(name))
    if found is None:
        raise not_found("operation", name, ())
    return found


_MOST_WAITING = 1000
"""Changes that wait for a slow reader; beyond that its stream ends, and it begins again with what is open then."""


async def _stream(parts: Parts, deployment: str) -> AsyncIterator[str]:
    waiting: asyncio.Queue[Operation] = asyncio.Queue(_MOST_WAITING)
    overrun = False

    def changed(operation: Operation) -> None:
        nonlocal overrun
        try:
            waiting.put_nowait(operation)
        except asyncio.QueueFull:
            overrun = True

    forget = parts.journal.listen(changed)
    try:
        for operation in await parts.journal.store.open():
            if deployment in ("", operation.deployment):
                yield _event(operation)
        while not overrun:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    operation = await waiting.get()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if deployment in ("", operation.deployment):
                yield _event(operation)
    finally:
        forget()


def _event(operation: Operation) -> str:
    return f"event: operation\nid: {operation.id}\ndata: {operation_body(operation).model_dump_json()}\n\n"
