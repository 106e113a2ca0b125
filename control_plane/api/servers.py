"""`/v1/servers`: the Triton servers as the loop last saw them; registering, draining, restarting them."""

from http import HTTPStatus
from typing import Annotated, assert_never

from fastapi import APIRouter, Path, Response

from control_plane.api import bodies, plan_schemas, server_schemas
from control_plane.api.parts import DryRun, Parts, UsedParts
from control_plane.api.problems import Problem, documented, not_found
from control_plane.api.views import plan_body, server_body, server_list
from control_plane.operations import OperationKind
from control_plane.rehearsal import Proposal
from control_plane.state import (
    Device,
    Endpoints,
    Mark,
    ModelName,
    ObservedServer,
    Server,
    ServerCondition,
    ServerId,
    Source,
)

router = APIRouter(prefix="/v1/servers", tags=["servers"])

Id = Annotated[str, Path(min_length=1, max_length=128, examples=["triton-0"])]
Model = Annotated[str, Path(pattern=bodies.MODEL_NAME, examples=["text_embedding"])]


@router.get("")
async def list_all(parts: UsedParts) -> server_schemas.ServerList:
    """Show every server with what it holds."""
    return server_list(parts.reconciler.view, parts.fleet.problems())


@router.post("", status_code=HTTPStatus.CREATED, responses=documented(HTTPStatus.CONFLICT))
async def register(new: server_schemas.NewServer, parts: UsedParts, response: Response) -> server_schemas.ServerBody:
    """Have a server commanded. An earlier registration of the same id is replaced."""
    server = _server(new)
    if not await parts.fleet.register(server):
        cause = f"Server '{new.id}' is there and not registered through the API: {_whence(parts, new.id)[0]}"
        raise Problem(HTTPStatus.CONFLICT, "name-taken", "The id is taken", (cause,), "Take another id.")
    response.headers["Location"] = f"/v1/servers/{new.id}"
    parts.reconciler.wake()
    return server_body(ObservedServer(server, ServerCondition.UNREACHABLE, detail="It was not asked yet."))


@router.get("/{server_id}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(server_id: Id, parts: UsedParts) -> server_schemas.ServerBody:
    """Show one server."""
    return server_body(_seen(parts, server_id), parts.reconciler.view)


@router.delete(
    "/{server_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
)
async def unregister(server_id: Id, parts: UsedParts) -> None:
    """Forget a registered server. What it holds goes on serving there, and is nobody's concern here any more."""
    if not await parts.fleet.unregister(ServerId(server_id)):
        _seen(parts, server_id)
        said, step = _whence(parts, server_id)
        cause = f"Server '{server_id}' was not registered through the API: {said}"
        raise Problem(HTTPStatus.CONFLICT, "not-registered", "It cannot be forgotten", (cause,), step)
    parts.reconciler.wake()


@router.post("/{server_id}/drain", responses=documented(HTTPStatus.NOT_FOUND))
async def drain(
    server_id: Id,
    parts: UsedParts,
    body: server_schemas.DrainBody | None = None,
    dry_run: DryRun = False,  # noqa: FBT002 - FastAPI's way to write a query parameter
) -> server_schemas.ServerBody | plan_schemas.RehearsalBody:
    """Have a server hold nothing: its replicas are placed elsewhere, clients sent there, then it is emptied.

    With `dry_run` the answer is the plan that this would come to.
    """
    seen = _seen(parts, server_id)
    mark = Mark(ServerId(server_id), (body or server_schemas.DrainBody()).reason, parts.now())
    if dry_run:
        plan = await parts.reconciler.preview(Proposal(drained=mark))
        return plan_schemas.RehearsalBody(deployment=None, plan=plan_body(plan))
    await parts.store.mark(mark)
    await parts.journal.begin(OperationKind.DRAIN, server=ServerId(server_id))
    parts.reconciler.wake()
    return server_body(seen, parts.reconciler.view)


@router.post("/{server_id}/resume", responses=documented(HTTPStatus.NOT_FOUND))
async def resume(server_id: Id, parts: UsedParts) -> server_schemas.ServerBody:
    """End a drain, or let a server back in that was taken out."""
    seen = _seen(parts, server_id)
    await parts.store.unmark(ServerId(server_id))
    parts.reconciler.wake()
    return server_body(seen, parts.reconciler.view)


@router.post("/{server_id}/restart", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def restart(server_id: Id, parts: UsedParts) -> server_schemas.ServerBody:
    """Kill a server's process and start it again, once nothing else will do. Drain it first where it serves."""
    seen = _seen(parts, server_id)
    if not await parts.fleet.restart(ServerId(server_id), "An operator asked for a restart."):
        cause = f"The process of server '{server_id}' is not this control plane's."
        raise Problem(HTTPStatus.CONFLICT, "not-ours", "It cannot be restarted", (cause,), "Restart it where it runs.")
    parts.reconciler.wake()
    return server_body(seen, parts.reconciler.view)


@router.delete(
    "/{server_id}/quarantine/{model}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND),
)
async def release(server_id: Id, model: Model, parts: UsedParts) -> None:
    """Have a quarantined model tried again on a server."""
    _seen(parts, server_id)
    await parts.store.forget(frozenset({ModelName(model)}), ServerId(server_id))
    parts.reconciler.wake()


def _seen(parts: Parts, server_id: str) -> ObservedServer:
    """Return what was seen of a server; one that is known and was not asked yet is unreachable."""
    seen = parts.reconciler.view.by_id.get(ServerId(server_id))
    if seen is not None:
        return seen
    known = {server.id: server for server in parts.fleet.servers()}
    if server_id in known:
        return ObservedServer(known[ServerId(server_id)], ServerCondition.UNREACHABLE, detail="It was not asked yet.")
    raise not_found("server", server_id, tuple(sorted(known)))


def _whence(parts: Parts, server_id: str) -> tuple[str, str]:
    """Say where a server comes from that is not registered, and how to have it forgotten."""
    source = next((it.source for it in parts.fleet.servers() if it.id == server_id), None)
    match source:
        case Source.EMBEDDED:
            said = "this control plane started it (embedded)."
            return said, "Drain it, or start the control plane with fewer servers."
        case Source.FILE:
            return "the servers file names it (file).", "Take it out of the file, which is read again by itself."
        case Source.DISCOVERED:
            said = "a DNS name in the servers file has its address (discovered)."
            return (
                said,
                "Take the name out of the file, or stop the server: it leaves once DNS has not named it for long.",
            )
        case Source.REGISTERED | None:
            return "it is gone just now.", "Look again: tritonfleet server list."
        case _:
            assert_never(source)


def _server(new: server_schemas.NewServer) -> Server:
    devices = tuple(Device(**device.model_dump()) for device in new.devices)
    return Server(
        ServerId(new.id),
        Endpoints(new.http, new.grpc, new.metrics),
        new.admin_key,
        tuple(sorted({device.compute_capability for device in devices if device.compute_capability})),
        frozenset(new.backends),
        devices=devices,
        memory_bytes=new.memory_bytes or sum(device.memory_bytes for device in devices),
        pool=new.pool,
        repository=new.repository,
        labels=dict(sorted(new.labels.items())),
    )
