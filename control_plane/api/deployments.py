"""`/v1/deployments`: what should serve, and whether it does."""

from http import HTTPStatus
from typing import Annotated, assert_never

from fastapi import APIRouter, Path, Query, Response

from control_plane.api import schemas
from control_plane.api.parts import Parts, UsedParts
from control_plane.api.problems import Problem, documented, not_found
from control_plane.api.views import deployment_body
from control_plane.api.waiting import until_released, until_settled
from control_plane.deployments import Deleted, MovesOthers, NameTaken, NotFound
from control_plane.planning import Infeasible
from control_plane.state import Deployment, DeploymentName, ModelName

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])

Name = Annotated[str, Path(pattern=schemas.DEPLOYMENT_NAME, examples=["embeddings"])]
Wait = Annotated[
    float, Query(ge=0, le=600, description="Seconds to wait until it serves, is degraded or failed. 0: answer at once.")
]
Together = Annotated[
    bool, Query(description="Whether other deployments that share a model which moves are redeployed with it, at once.")
]
_STILL_ON_ITS_WAY = {
    "model": schemas.DeploymentBody,
    "description": "Stored, and still on its way when the wait ended. `Location` is where to look.",
}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses={202: _STILL_ON_ITS_WAY, **documented(HTTPStatus.CONFLICT)},
)
async def create(
    new: schemas.NewDeployment, parts: UsedParts, response: Response, wait: Wait = 0
) -> schemas.DeploymentBody:
    """Declare what should serve. Versions are pinned now; a later publish changes nothing until a redeploy."""
    answer = await parts.deployments.create(
        DeploymentName(new.name),
        ModelName(new.model),
        new.version,
        precisions=tuple(new.precisions),
        allow_unproven=new.allow_unproven,
    )
    match answer:
        case Deployment():
            return await _answer(parts, answer, response, wait)
        case NameTaken():
            cause = f"There is a deployment '{new.name}' already (model '{answer.existing.model}')."
            step = f"Redeploy it (POST /v1/deployments/{new.name}/redeploy), delete it first, or take another name."
            raise Problem(HTTPStatus.CONFLICT, "name-taken", "The name is taken", (cause,), step)
        case Infeasible():
            raise _cannot_be_served(answer)
        case _:
            assert_never(answer)


@router.get("")
async def list_all(parts: UsedParts) -> schemas.DeploymentList:
    """Show every deployment with its state."""
    deployments = await parts.deployments.list()
    view = parts.reconciler.view
    return schemas.DeploymentList(deployments=[deployment_body(it, view.status_of(it)) for it in deployments])


@router.get("/{name}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(name: Name, parts: UsedParts) -> schemas.DeploymentBody:
    """Show one deployment: its state on each server, with Triton's own reasons."""
    deployment = await parts.deployments.get(DeploymentName(name))
    if deployment is None:
        raise await _no_such(parts, name)
    return deployment_body(deployment, parts.reconciler.view.status_of(deployment))


@router.post(
    "/{name}/redeploy",
    responses={202: _STILL_ON_ITS_WAY, **documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)},
)
async def redeploy(
    name: Name,
    parts: UsedParts,
    response: Response,
    changes: schemas.Redeployment | None = None,
    wait: Wait = 0,
    together: Together = False,  # noqa: FBT002 - FastAPI's way to write a query parameter
) -> schemas.DeploymentBody:
    """Pin a deployment again, to the newest versions published by now. What serves goes on until the new is ready."""
    given = changes or schemas.Redeployment()
    answer = await parts.deployments.redeploy(
        DeploymentName(name),
        together=together,
        precisions=None if given.precisions is None else tuple(given.precisions),
        allow_unproven=given.allow_unproven,
    )
    match answer:
        case MovesOthers():
            raise _moves_others(answer)
        case Deployment():
            return await _answer(parts, answer, response, wait)
        case NotFound():
            raise await _no_such(parts, name)
        case Infeasible():
            raise _cannot_be_served(answer)
        case _:
            assert_never(answer)


@router.delete(
    "/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    response_model=None,
    responses={
        202: {"model": schemas.Released, "description": "Gone; servers still hold models that only it needed."},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
async def delete(name: Name, parts: UsedParts, response: Response, wait: Wait = 0) -> schemas.Released | None:
    """Have something serve no more. Models that another deployment needs stay; with `wait`, the others are gone."""
    answer = await parts.deployments.delete(DeploymentName(name))
    match answer:
        case NotFound():
            raise await _no_such(parts, name)
        case Deleted():
            still = await until_released(parts.reconciler, answer.released, wait) if wait else ()
            if still:
                response.status_code = HTTPStatus.ACCEPTED
                return schemas.Released(name=name, still_loaded=list(still))
            return None
        case _:
            assert_never(answer)


async def _answer(parts: Parts, deployment: Deployment, response: Response, wait: float) -> schemas.DeploymentBody:
    response.headers["Location"] = f"/v1/deployments/{deployment.name}"
    if not wait:
        return deployment_body(deployment, parts.reconciler.view.status_of(deployment))
    status, settled = await until_settled(parts.reconciler, deployment, wait)
    if not settled:
        response.status_code = HTTPStatus.ACCEPTED
    return deployment_body(deployment, status)


async def _no_such(parts: Parts, name: str) -> Problem:
    return not_found("deployment", name, tuple(it.name for it in await parts.deployments.list()))


def _moves_others(answer: MovesOthers) -> Problem:
    name, model = answer.deployment.name, answer.deployment.model
    others = ", ".join(f"'{other}'" for other in answer.others)
    step = (
        f"Redeploy it and {others} at once: POST /v1/deployments/{name}/redeploy?together=true "
        f"(`tritonfleet deploy {model} --name {name} --redeploy --together`)."
    )
    title = "Other deployments would move with it"
    return Problem(HTTPStatus.CONFLICT, "moves-others", title, answer.reasons, step)


def _cannot_be_served(answer: Infeasible) -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "cannot-be-served",
        "The deployment cannot be served",
        answer.reasons,
        "Mend what the causes name, then send the request again.",
    )
