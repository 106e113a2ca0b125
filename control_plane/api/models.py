"""`/v1/models`: what the model repository holds, what is wrong with it, and where it is ready."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from control_plane.api import bodies, schemas
from control_plane.api.parts import UsedParts
from control_plane.api.problems import documented, not_found
from control_plane.api.views import model_body
from control_plane.state import ModelName

router = APIRouter(prefix="/v1/models", tags=["models"])

Name = Annotated[str, Path(pattern=bodies.MODEL_NAME, examples=["text_embedding"])]


@router.get("")
async def list_all(parts: UsedParts) -> schemas.ModelList:
    """Show every package, read from disk now."""
    published = await asyncio.to_thread(parts.catalogue.read)
    deployments = await parts.deployments.list()
    view = parts.reconciler.view
    return schemas.ModelList(models=[model_body(package, view, deployments) for package in published])


@router.get("/{name}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(name: Name, parts: UsedParts) -> schemas.ModelBody:
    """Show one package."""
    published = await asyncio.to_thread(parts.catalogue.read)
    package = published.get(ModelName(name))
    if package is None:
        raise not_found("model", name, tuple(package.name for package in published))
    return model_body(package, parts.reconciler.view, await parts.deployments.list())
