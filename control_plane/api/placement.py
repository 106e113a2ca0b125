"""`/v1/placement`: the GPUs that are cut for deployments: what is where and why, what would change, and doing it."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from control_plane.api import placement_schemas as schemas
from control_plane.api.parts import Parts, UsedParts
from control_plane.api.placement_views import defragmentation_body, drawing, explained, placement_body, plan_body
from control_plane.api.problems import Problem, documented, not_found
from control_plane.errors import MissingExtraError
from control_plane.slice_view import SliceView
from control_plane.slicer import Slicer
from control_plane.slicing.explaining import explain
from control_plane.state import DeploymentName

if TYPE_CHECKING:
    from control_plane.slicing.defragmenting import Defragmentation
    from control_plane.slicing.whole import Optimised

router = APIRouter(prefix="/v1/placement", tags=["placement"])

Whole = Annotated[
    bool, Query(description="Whether to look for the best for the whole fleet, in place of the least change.")
]
Seconds = Annotated[float, Query(ge=0.5, le=60, description="How long the optimiser may look.")]
_NEEDS = "The optimiser needs OR-Tools: pip install 'tritonfleet[placement]'."
_NOT_CUT = documented(HTTPStatus.CONFLICT)


@router.get("", responses=_NOT_CUT)
async def show(parts: UsedParts) -> schemas.PlacementBody:
    """Show every GPU with its slices and who is on them, and which replicas have none."""
    return placement_body(_slicer(parts).view)


@router.get("/plan", responses=_NOT_CUT)
async def plan(parts: UsedParts, whole: Whole = False, seconds: Seconds = 10) -> schemas.SlicePlanBody:  # noqa: FBT002
    """Show what would change now, step by step, each with its reason. Touches nothing."""
    view = _slicer(parts).view
    if not whole:
        return plan_body(view, view.plan)
    found = await _optimised(view, seconds)
    return plan_body(view, found.plan, found)


@router.get("/defragmentation", responses=_NOT_CUT)
async def defragmentation(parts: UsedParts, seconds: Seconds = 10) -> schemas.DefragmentationBody:
    """Show what tidying up would free, and by which moves. Touches nothing."""
    view = _slicer(parts).view
    return defragmentation_body(view, await _defragmented(view, seconds))


@router.post("/apply", status_code=HTTPStatus.ACCEPTED, responses=_NOT_CUT)
async def apply(
    parts: UsedParts,
    kind: Annotated[Literal["whole", "defragmentation"], Query(description="Which plan to carry out.")] = "whole",
    seconds: Seconds = 10,
) -> schemas.AppliedBody:
    """Carry out the best plan for the whole fleet, or tidy up, within what is left of the budget of moves.

    Every replica serves from its new slice before it leaves the old one; `GET /v1/placement` shows how far it is.
    """
    slicer = _slicer(parts)
    view = slicer.view
    whole = kind == "whole"
    found = await _optimised(view, seconds) if whole else (await _defragmented(view, seconds)).optimised
    changed = await slicer.apply(found.plan)
    parts.reconciler.wake()
    return schemas.AppliedBody(changed=changed, plan=plan_body(view, found.plan, found))


@router.get("/replicas/{deployment}", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
async def replicas(deployment: Annotated[str, Path(max_length=128)], parts: UsedParts) -> schemas.ReplicasExplained:
    """Tell of each replica of a deployment why it is where it is, why not elsewhere, and what would give it a place."""
    view = _slicer(parts).view
    mine = [it.id for it in view.wanted if view.demand.owners.get(it.id) == deployment]
    if not mine:
        raise not_found("deployment on slices", deployment, tuple(sorted(set(view.demand.owners.values()))))
    return schemas.ReplicasExplained(
        deployment=deployment,
        replicas=[explained(view.fleet, explain(view.fleet, view.wanted, it)) for it in mine],
        impossible=list(view.demand.impossible.get(DeploymentName(deployment), ())),
    )


@router.get("/drawing", responses={200: {"content": {"image/svg+xml": {}}}, **_NOT_CUT}, response_class=Response)
async def draw(parts: UsedParts) -> Response:
    """Draw every GPU, now and after the plan, as SVG."""
    view = _slicer(parts).view
    return Response(drawing(view, view.plan), media_type="image/svg+xml")


async def _optimised(view: SliceView, seconds: float) -> "Optimised":
    try:
        from control_plane.slicing.whole import optimise  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError(_NEEDS) from exc
    return await asyncio.to_thread(optimise, view.fleet, view.wanted, None, seconds, view.moves_left)


async def _defragmented(view: SliceView, seconds: float) -> "Defragmentation":
    try:
        from control_plane.slicing.defragmenting import defragment  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError(_NEEDS) from exc
    return await asyncio.to_thread(defragment, view.fleet, view.wanted, None, seconds, view.moves_left)


def _slicer(parts: Parts) -> Slicer:
    if parts.slicer is None:
        raise Problem(
            HTTPStatus.CONFLICT,
            "no-gpus-are-cut",
            "No GPUs are cut here",
            ("This control plane was started without GPUs that it cuts for deployments.",),
            "Start it with `tritonfleet serve --simulate h100-80gb:2`, or with --agent for each machine with GPUs.",
        )
    return parts.slicer
