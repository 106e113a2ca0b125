"""The FastAPI application, put together: routers, errors, guard, and an OpenAPI document that tells all of it."""

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from control_plane.api import deployments, endpoints, models, operations, placement, servers, system
from control_plane.api.parts import Parts
from control_plane.api.problems import ProblemBody, documented, install
from control_plane.api.security import OPEN_PATHS, Access, Guard

_DESCRIPTION = """Declare what should serve on a fleet of NVIDIA Triton servers; the control plane makes it so and
keeps it so. Every error is problem+json (RFC 9457) with its causes and the next step."""

_bearer = HTTPBearer(auto_error=False, description="Asked for where the control plane was started with a token.")


async def _documents_the_token(_token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Put the token into the OpenAPI document; `Guard` is what checks it."""


def create_app(parts: Parts, access: Access) -> FastAPI:
    """Return the application over `parts`, open to whom `access` allows."""
    app = _App(title="Tritonfleet", version=_version(), description=_DESCRIPTION, redoc_url=None)
    app.state.parts = parts
    errors = documented(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.MISDIRECTED_REQUEST,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.SERVICE_UNAVAILABLE,
    )
    for router in (
        deployments.router,
        endpoints.router,
        models.router,
        operations.router,
        placement.router,
        servers.router,
        system.router,
    ):
        app.include_router(router, responses=errors, dependencies=[Depends(_documents_the_token)])
    install(app)
    app.add_middleware(Guard, access=access)
    return app


class _App(FastAPI):
    """FastAPI with ProblemBody, which only `documented` refers to, in the document, and liveness without a token."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["schemas"]["ProblemBody"] = ProblemBody.model_json_schema()
            for path in OPEN_PATHS:
                document["paths"][path]["get"]["security"] = []
        return super().openapi()


def _version() -> str:
    try:
        return version("tritonfleet")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
