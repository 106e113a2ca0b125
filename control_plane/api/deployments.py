"""`/v1/deployments`: what should serve, and whether it does."""

from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, assert_never

from fastapi import APIRouter, Header, Path, Query, Response

from control_plane.api import bodies, deployment_schemas, plan_schemas
from control_plane.api.idempotency import REPLAYED, IdempotencyKey, once
from control_plane.api.parts import ChangingParts, Parts, UsedParts
from control_plane.api.problems import Problem, documented, not_found
from control_plane.api.views import deployment_body, explanation, plan_body, revision_body
from control_plane.api.waiting import until_released, until_settled
from control_plane.deployments import Changes, Deleted, MovesOthers, NameTaken, NoRevision, NotFound, Outdated, Versions
from control_plane.planning import DeploymentState, Infeasible
from control_plane.rehearsal import RehearsedStore
from control_plane.state import Deployment, DeploymentName, ModelName
from control_plane.wanted import ANY_POOL, Needs, Replicas

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])

Name = Annotated[str, Path(pattern=bodies.DEPLOYMENT_NAME, examples=["embeddings"])]
Wait = Annotated[
    float, Query(ge=0, le=600, description="Seconds to wait until it serves, is degraded or failed. 0: answer at once.")
]
Together = Annotated[
    bool, Query(description="Whether other deployments that share a model which moves are redeployed with it, at once.")
]
Anyway = Annotated[
    bool, Query(description="Whether to store what no server can hold at present; it is placed once one can.")
]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=64,
        description='The ETag of the revision that you have seen, such as `"3"`: a newer one is not overwritten.',
    ),
]
_STILL_ON_ITS_WAY = {
    "model": deployment_schemas.DeploymentBody,
    "description": "Stored, and still on its way when the wait ended. `Location` is where to look.",
}

_REHEARSED = {"model": plan_schemas.RehearsalBody, "description": "A dry run: nothing was changed."}


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses={200: _REHEARSED, 202: _STILL_ON_ITS_WAY, **documented(HTTPStatus.CONFLICT)},
)
async def create(
    new: deployment_schemas.NewDeployment,
    parts: ChangingParts,
    response: Response,
    key: IdempotencyKey = None,
    wait: Wait = 0,
    anyway: Anyway = False,  # noqa: FBT002 - FastAPI's way to write a query parameter
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    """Declare what should serve. Versions are pinned now; a later publish changes nothing until a redeploy."""
    async with once(parts, key, "create", new) as first:
        if first:
            created = await _create(parts, new, store_anyway=anyway)
        else:
            created = await _replayed(parts, new.name, response)
    return await _answer(parts, created, response, wait)


async def _create(parts: Parts, new: deployment_schemas.NewDeployment, *, store_anyway: bool) -> Deployment:
    changes = Changes(_versions(new.versions), tuple(new.precisions), new.allow_unproven, new.changed())
    answer = await parts.deployments.create(
        DeploymentName(new.name), ModelName(new.model), new.version, changes=changes, store_anyway=store_anyway
    )
    match answer:
        case Deployment():
            return answer
        case NameTaken():
            cause = f"There is a deployment '{new.name}' already (model '{answer.existing.model}')."
            step = f"Redeploy it (POST /v1/deployments/{new.name}/redeploy), delete it first, or take another name."
            raise Problem(HTTPStatus.CONFLICT, "name-taken", "The name is taken", (cause,), step)
        case Infeasible():
            raise _cannot_be_served(answer)
        case _:
            assert_never(answer)


@router.get("")
async def list_all(
    parts: UsedParts,
    model: Annotated[str | None, Query(max_length=128, description="Only those of this model.")] = None,
    owner: Annotated[str | None, Query(max_length=200, description="Only those of this owner.")] = None,
    state: Annotated[DeploymentState | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 1000,
    after: Annotated[str | None, Query(max_length=64, description="Begin behind this name.")] = None,
) -> deployment_schemas.DeploymentList:
    """Show deployments with their state, by name."""
    view, found = parts.reconciler.view, []
    for it in await parts.deployments.list():
        if it.name <= (after or "") or model not in (None, it.model) or owner not in (None, it.needs.owner):
            continue
        status = view.status_of(it)
        if state in (None, status.state):
            found.append((it, status))
    shown = [deployment_body(it, status) for it, status in found[:limit]]
    return deployment_schemas.DeploymentList(deployments=shown, next=shown[-1].name if len(found) > limit else None)


@router.get("/{name}", responses=documented(HTTPStatus.NOT_FOUND))
async def get(name: Name, parts: UsedParts, response: Response) -> deployment_schemas.DeploymentBody:
    """Show one deployment: its state on each server, with Triton's own reasons. Its ETag is its revision."""
    deployment = await _found(parts, name)
    response.headers["ETag"] = _etag(deployment)
    return deployment_body(deployment, parts.reconciler.view.status_of(deployment))


@router.get("/{name}/revisions", responses=documented(HTTPStatus.NOT_FOUND))
async def revisions(name: Name, parts: UsedParts) -> deployment_schemas.RevisionList:
    """Show every revision that a rollback can return to, and the present one."""
    await _found(parts, name)
    kept = await parts.deployments.revisions(DeploymentName(name))
    return deployment_schemas.RevisionList(revisions=[revision_body(it) for it in kept])


@router.get("/{name}/explain", responses=documented(HTTPStatus.NOT_FOUND))
async def explain(name: Name, parts: UsedParts) -> deployment_schemas.Explanation:
    """Tell in words why each replica is where it is, and why others are nowhere."""
    return explanation(await _found(parts, name), parts.reconciler.view)


_CHANGED = {
    202: _STILL_ON_ITS_WAY,
    **documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
}


@router.patch("/{name}", responses=_CHANGED)
async def change(  # noqa: PLR0913, PLR0917 - a parameter for each header and query
    name: Name,
    patch: deployment_schemas.DeploymentPatch,
    parts: ChangingParts,
    response: Response,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    wait: Wait = 0,
    together: Together = False,  # noqa: FBT002
    anyway: Anyway = False,  # noqa: FBT002
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    """Change what a deployment asks for. What is left out stays; versions are pinned anew only where they are given."""
    versions = _versions(patch.versions)
    async with once(parts, key, f"change {name} {if_match}", patch) as first:
        if first:
            made = await _change(parts, name, lambda it: _changes(it, patch, versions), (if_match, together, anyway))
        else:
            made = await _replayed(parts, name, response)
    return await _answer(parts, made, response, wait)


@router.post("/{name}/redeploy", responses=_CHANGED)
async def redeploy(  # noqa: PLR0913, PLR0917 - a parameter for each header and query
    name: Name,
    parts: ChangingParts,
    response: Response,
    changes: deployment_schemas.Redeployment | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    wait: Wait = 0,
    together: Together = False,  # noqa: FBT002
    anyway: Anyway = False,  # noqa: FBT002
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    """Pin a deployment again, to the newest versions published by now. What serves goes on until the new is ready."""
    body = changes or deployment_schemas.Redeployment()
    async with once(parts, key, f"redeploy {name} {if_match} {together}", body) as first:
        if first:
            given = (if_match, together, anyway)
            made = await _change(parts, name, lambda it: replace(_changes(it, body, None), repin=True), given)
        else:
            made = await _replayed(parts, name, response)
    return await _answer(parts, made, response, wait)


@router.post("/{name}/scale", responses=_CHANGED)
async def scale(  # noqa: PLR0913, PLR0917 - a parameter for each header and query
    name: Name,
    asked: deployment_schemas.Scale,
    parts: ChangingParts,
    response: Response,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    wait: Wait = 0,
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    """Have more or fewer replicas, or instances on each. Instances change in place, and no request fails for it."""
    async with once(parts, key, f"scale {name} {if_match}", asked) as first:
        if first:
            given = (if_match, False, False)
            made = await _change(parts, name, lambda it: Changes(needs=_scaled(it, asked)), given)
        else:
            made = await _replayed(parts, name, response)
    return await _answer(parts, made, response, wait)


def _scaled(before: Deployment, asked: deployment_schemas.Scale) -> Needs:
    needs = before.needs
    if asked.replicas is not None:
        bounds = needs.replicas.get(ANY_POOL, Replicas())
        if bounds.max is not None and asked.replicas > bounds.max:
            cause = f"At most {bounds.max} replicas are allowed, and {asked.replicas} were asked for."
            step = f"Raise the bound first: PATCH /v1/deployments/{before.name} with replicas.max."
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "out-of-bounds", "Too many replicas", (cause,), step)
        needs = replace(needs, replicas={**needs.replicas, ANY_POOL: replace(bounds, min=asked.replicas)})
    return needs if asked.instances is None else replace(needs, instances=asked.instances)


@router.post("/{name}/rollback", responses=_CHANGED)
async def rollback(  # noqa: PLR0913, PLR0917 - a parameter for each header and query
    name: Name,
    parts: ChangingParts,
    response: Response,
    asked: deployment_schemas.Rollback | None = None,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
    wait: Wait = 0,
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    """Return to an earlier revision, everything as it was then, as the next revision."""
    async with once(parts, key, f"rollback {name} {if_match}", asked) as first:
        made = await (_rollback(parts, name, asked, if_match) if first else _replayed(parts, name, response))
    return await _answer(parts, made, response, wait)


async def _rollback(
    parts: Parts, name: str, asked: deployment_schemas.Rollback | None, if_match: str | None
) -> Deployment:
    revision = asked.revision if asked is not None else None
    answer = await parts.deployments.rollback(DeploymentName(name), revision, expected=_expected(if_match))
    match answer:
        case Deployment():
            return answer
        case NotFound():
            raise await _no_such(parts, name)
        case Outdated():
            raise _outdated(answer)
        case NoRevision():
            kept = ", ".join(map(str, answer.kept)) or "none"
            there = "no earlier one" if answer.asked is None else f"no revision {answer.asked}"
            cause = f"Deployment '{name}' is at revision {answer.current.revision}; there is {there} to return to."
            raise Problem(HTTPStatus.CONFLICT, "no-revision", "No such revision", (cause,), f"Earlier ones: {kept}.")
        case Infeasible():
            raise _cannot_be_served(answer)
        case _:
            assert_never(answer)


@router.delete(
    "/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    response_model=None,
    responses={
        200: _REHEARSED,
        202: {
            "model": deployment_schemas.Released,
            "description": "Gone; servers still hold models that only it needed.",
        },
        **documented(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
    },
)
async def delete(
    name: Name, parts: ChangingParts, response: Response, if_match: IfMatch = None, wait: Wait = 0
) -> deployment_schemas.Released | plan_schemas.RehearsalBody | None:
    """Have something serve no more. Models that another deployment needs stay; with `wait`, the others are gone."""
    answer = await parts.deployments.delete(DeploymentName(name), expected=_expected(if_match))
    match answer:
        case NotFound():
            raise await _no_such(parts, name)
        case Outdated():
            raise _outdated(answer)
        case Deleted() if parts.rehearsal is not None:
            return await _rehearsed(parts, parts.rehearsal, None, response)
        case Deleted():
            still = await until_released(parts.reconciler, answer.released, wait) if wait else ()
            if still:
                response.status_code = HTTPStatus.ACCEPTED
                return deployment_schemas.Released(name=name, still_loaded=list(still))
            return None
        case _:
            assert_never(answer)


def _versions(given: list[deployment_schemas.VersionShare] | None) -> Versions | None:
    return None if given is None else tuple((it.version, it.share) for it in given)


def _changes(before: Deployment, body: deployment_schemas.Redeployment, versions: Versions | None) -> Changes:
    precisions = None if body.precisions is None else tuple(body.precisions)
    return Changes(versions, precisions, body.allow_unproven, body.changed(before.needs))


async def _change(
    parts: Parts, name: str, make: Callable[[Deployment], Changes], given: tuple[str | None, bool, bool]
) -> Deployment:
    if_match, together, anyway = given
    answer = await parts.deployments.change(
        DeploymentName(name), make, expected=_expected(if_match), together=together, store_anyway=anyway
    )
    match answer:
        case MovesOthers():
            raise _moves_others(answer)
        case Deployment():
            return answer
        case NotFound():
            raise await _no_such(parts, name)
        case Outdated():
            raise _outdated(answer)
        case Infeasible():
            raise _cannot_be_served(answer)
        case _:
            assert_never(answer)


async def _replayed(parts: Parts, name: str, response: Response) -> Deployment:
    """Return the deployment of a request that was carried out before, as it stands now."""
    response.headers[REPLAYED] = "true"
    return await _found(parts, name)


async def _answer(
    parts: Parts, deployment: Deployment, response: Response, wait: float
) -> deployment_schemas.DeploymentBody | plan_schemas.RehearsalBody:
    if parts.rehearsal is not None:
        return await _rehearsed(parts, parts.rehearsal, deployment, response)
    response.headers["Location"] = f"/v1/deployments/{deployment.name}"
    response.headers["ETag"] = _etag(deployment)
    if not wait:
        return deployment_body(deployment, parts.reconciler.view.status_of(deployment))
    status, settled = await until_settled(parts.reconciler, deployment, wait)
    if not settled:
        response.status_code = HTTPStatus.ACCEPTED
    return deployment_body(deployment, status)


async def _rehearsed(
    parts: Parts, rehearsal: RehearsedStore, deployment: Deployment | None, response: Response
) -> plan_schemas.RehearsalBody:
    """Answer a dry run: with what would be stored, and what the loop would do about it."""
    response.status_code = HTTPStatus.OK
    plan = await parts.reconciler.preview(await rehearsal.proposal())
    stored = revision_body(deployment) if deployment is not None else None
    return plan_schemas.RehearsalBody(deployment=stored, plan=plan_body(plan))


def _etag(deployment: Deployment) -> str:
    return f'"{deployment.revision}"'


def _expected(if_match: str | None) -> int | None:
    """Return the revision that an If-Match names; None where there is none, or any will do (`*`)."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 - digits of the largest revision
        cause = f"If-Match is {if_match!r}, and an ETag here is a revision in quotes."
        step = 'Give what GET answered as ETag, such as "3".'
        raise Problem(HTTPStatus.BAD_REQUEST, "bad-etag", "If-Match is no ETag", (cause,), step)
    return int(text)


async def _found(parts: Parts, name: str) -> Deployment:
    deployment = await parts.deployments.get(DeploymentName(name))
    if deployment is None:
        raise await _no_such(parts, name)
    return deployment


async def _no_such(parts: Parts, name: str) -> Problem:
    return not_found("deployment", name, tuple(it.name for it in await parts.deployments.list()))


def _outdated(answer: Outdated) -> Problem:
    current = answer.current
    cause = f"Deployment '{current.name}' is at revision {current.revision}, and {answer.expected} was expected."
    step = f"Look at it again (GET /v1/deployments/{current.name}), and send the change with its new ETag."
    return Problem(HTTPStatus.PRECONDITION_FAILED, "outdated", "Somebody changed it meanwhile", (cause,), step)


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
