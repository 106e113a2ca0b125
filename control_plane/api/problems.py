"""Errors as problem+json (RFC 9457): every answer that is no success has a title, its causes, and a next step.

`Problem` is raised by the routers; what FastAPI and the services raise is translated here.
"""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from control_plane.errors import ControlPlaneError, RetryableError

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it, with what to do next."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "tag:tritonfleet,2026:problem/cannot-be-served",
                    "title": "The deployment cannot be served",
                    "status": 422,
                    "detail": "Model 'text_embedding' has no built version: run `tritonfleet build text_embedding`.",
                    "causes": ["Model 'text_embedding' has no built version: run `tritonfleet build text_embedding`."],
                    "next_step": "Mend what the causes name, then send the request again.",
                }
            ]
        }
    )

    type: str = Field(description="Which kind of problem; stable, to be compared by programs.")
    title: str
    status: int
    detail: str = Field(description="What went wrong this time.")
    causes: list[str] = Field(description="Every cause that was found.")
    next_step: str = Field(description="What to do about it.")


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Answer this request with an error. `kind` is the last part of the problem's type."""

    def __init__(self, status: HTTPStatus, kind: str, title: str, causes: tuple[str, ...], next_step: str) -> None:
        super().__init__(title)
        self.status = status
        self.body = ProblemBody(
            type=f"tag:tritonfleet,2026:problem/{kind}",
            title=title,
            status=status.value,
            detail=" ".join(causes),
            causes=list(causes),
            next_step=next_step,
        )

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.body.model_dump(), self.status.value, headers, MEDIA_TYPE)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that can answer with these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {status.value: {"description": status.phrase, "content": content} for status in sorted(statuses)}


def not_found(kind: str, name: str, there: tuple[str, ...]) -> Problem:
    """Say that there is no such thing, and which there are."""
    others = f"There are: {', '.join(there)}." if there else f"There is no {kind} at all yet."
    return Problem(
        HTTPStatus.NOT_FOUND, "not-found", f"There is no {kind} '{name}'", (f"There is no {kind} '{name}'.",), others
    )


def install(app: FastAPI) -> None:
    """Have every error of `app` answered as a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ControlPlaneError, _on_failure)
    app.add_exception_handler(Exception, _on_bug)


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - registered for it alone
    return error.response()


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    causes = tuple(_cause(entry) for entry in error.errors())
    if any(entry["type"] == "json_invalid" for entry in error.errors()):
        return _undecodable(causes).response()
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "invalid-request",
        "The request is not valid",
        causes,
        "Correct the named fields; /docs shows what this call takes.",
    ).response()


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:
        return _undecodable((str(error.detail),)).response()
    kind = status.phrase.lower().replace(" ", "-")
    causes = (f"{request.method} {request.url.path}: {error.detail}.",)
    problem = Problem(status, kind, status.phrase, causes, "/docs lists the calls there are, with their methods.")
    return problem.response(dict(error.headers or {}))


async def _on_failure(_request: Request, error: Exception) -> JSONResponse:
    logger.warning("A request failed: %s", error)
    if isinstance(error, RetryableError):
        step = "Send the request again in a moment."
        problem = Problem(HTTPStatus.SERVICE_UNAVAILABLE, "not-now", "That cannot be done now", (str(error),), step)
        return problem.response({"Retry-After": "1"})
    step = "Mend the cause, then send the request again."
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "failed", "The control plane failed", (str(error),), step
    ).response()


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    request.app.state.parts.metrics.error("api")
    step = "This is a bug in Tritonfleet. The control plane's log has the traceback."
    cause = f"{type(error).__name__}: {error}"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "bug", "Unexpected error", (cause,), step).response()


def _undecodable(causes: tuple[str, ...]) -> Problem:
    step = "Send a JSON object, encoded in UTF-8, with content-type application/json."
    return Problem(HTTPStatus.BAD_REQUEST, "undecodable-body", "The body is not JSON", causes, step)


def _cause(entry: Any) -> str:  # noqa: ANN401 - pydantic's error dictionaries
    place = ".".join(str(part) for part in entry["loc"])
    text = f"{place}: {entry['msg']}."
    return text.encode(errors="backslashreplace").decode()  # a name sent by the client may hold half a surrogate pair
