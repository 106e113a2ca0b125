"""The control plane itself: health, the plan, metrics."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from control_plane.api import plan_schemas, schemas
from control_plane.api.parts import Parts, UsedParts
from control_plane.api.views import conditions, plan_body

router = APIRouter(tags=["system"])

_PASSES_MISSED = 3
_LEAST_STALE_S = 15.0


@router.get("/v1/health/live")
async def live() -> schemas.Live:
    """Tell that the process answers. Needs no token."""
    return schemas.Live()


@router.get(
    "/v1/health", responses={503: {"model": schemas.Health, "description": "The loop does not run as it should."}}
)
async def health(parts: UsedParts, response: Response) -> schemas.Health:
    """Tell whether the loop runs, how long ago it last looked, and what went wrong inside it, if anything did."""
    found = _health(parts)
    if not found.ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return found


@router.get("/v1/plan")
async def plan(parts: UsedParts) -> plan_schemas.PlanBody:
    """Look at every server now and show what the loop would do, each step with its reason. Touches nothing."""
    return plan_body(await parts.reconciler.preview())


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(parts: UsedParts) -> Response:
    """Give the control plane's own metrics, in the Prometheus text format."""
    return Response(parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _health(parts: Parts) -> schemas.Health:
    view = parts.reconciler.view
    age_s = (parts.now() - view.started_at).total_seconds() if view.started_at is not None else None
    limit_s = max(_LEAST_STALE_S, _PASSES_MISSED * parts.interval_s)
    reason = ""
    if age_s is None:
        reason = "The first look at the servers has not ended yet."
    elif age_s > limit_s:
        reason = f"The last look at the servers began {age_s:.0f} s ago; more than {limit_s:.0f} s is too long."
    return schemas.Health(
        ready=not reason,
        reason=reason,
        passes=parts.reconciler.passes,
        last_pass_age_s=age_s,
        last_error=parts.reconciler.last_error,
        servers=conditions(view),
        problems=list(parts.fleet.problems()),
    )
