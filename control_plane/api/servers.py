"""`/v1/servers`: the Triton servers, as the loop last saw them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from control_plane.api import schemas
from control_plane.api.parts import UsedParts
from control_plane.api.problems import documented, not_found
from control_plane.api.views import server_body, server_list

router = APIRouter(prefix="/v1/servers", tags=["servers"])

Id = Annotated[str, Path(min_length=1, max_length=128, examples=["triton-0"])]


@router.get("")
async def list_all(parts: UsedParts) -> schemas.ServerList:
    """Show every server with what it holds."""
    return server_list(parts.reconciler.view)


@router.get("/{server_id}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(server_id: Id, parts: UsedParts) -> schemas.ServerBody:
    """Show one server."""
    observed = parts.reconciler.view.observed
    seen = next((it for it in observed if it.server.id == server_id), None)
    if seen is None:
        raise not_found("server", server_id, tuple(it.server.id for it in observed))
    return server_body(seen)
