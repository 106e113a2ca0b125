"""What the shell offers for a value: names that the control plane, or the model repository, knows.

Pressing a key must neither print an error nor hang: without an answer at once there is nothing to offer.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import typer

from builders.errors import SpecError
from builders.spec import find_packages
from builders.targets import PRECISIONS
from control_plane.cli.client import DEFAULT_URL, TOKEN_VARIABLE
from control_plane.settings import CLIENT_URL_VARIABLE

DEFAULT_REPOSITORY = Path("model_repository")
_DEADLINE_S = 0.8

Complete = Callable[[typer.Context, str], list[str]]


def _asked(path: str, names: Callable[[dict[str, Any]], Iterable[str]]) -> Complete:
    """Return what offers the names in the answer of GET `path`."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        return _of_answer(ctx, path, names, incomplete)

    return complete


def _of_answer(
    ctx: typer.Context, path: str, names: Callable[[dict[str, Any]], Iterable[str]], incomplete: str
) -> list[str]:
    try:
        return _offered(names(_answer(ctx, path)), incomplete)
    except (AttributeError, KeyError, TypeError):  # something else answers there
        return []


def _answer(ctx: typer.Context, path: str) -> dict[str, Any]:
    """Return what the control plane of this command line answers; nothing where it does not."""
    url = ctx.params.get("url") or os.environ.get(CLIENT_URL_VARIABLE) or DEFAULT_URL
    token = ctx.params.get("token") or os.environ.get(TOKEN_VARIABLE)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(timeout=_DEADLINE_S, trust_env=False, verify=url.startswith("https")) as client:
            body = client.get(f"{url}{path}", headers=headers).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _column(table: str, name: str) -> Callable[[dict[str, Any]], Iterable[str]]:
    return lambda body: (str(row[name]) for row in body.get(table, []))


deployments = _asked("/v1/deployments", _column("deployments", "name"))
models = _asked("/v1/models", _column("models", "name"))
servers = _asked("/v1/servers", _column("servers", "id"))
operations = _asked("/v1/operations?limit=50", _column("operations", "id"))
open_operations = _asked("/v1/operations?state=queued&state=running&state=waiting", _column("operations", "id"))
pools = _asked("/v1/servers", _column("servers", "pool"))


def replicas_in_pools(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer NAME= for every pool."""
    return [f"{pool}=" for pool in pools(ctx, incomplete.partition("=")[0])]


def quarantined(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the models that are quarantined on the server that was given before."""
    server = quote(str(ctx.params.get("server") or ""), safe="")
    return _of_answer(ctx, f"/v1/servers/{server}", lambda body: body.get("quarantined", {}), incomplete)


def precisions(incomplete: str) -> list[str]:
    """Offer the precisions there are."""
    return _offered(("default", *PRECISIONS), incomplete)


def packages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the packages of the model repository that was given before, or else of the usual one."""
    try:
        return _offered(find_packages(Path(ctx.params.get("repository") or DEFAULT_REPOSITORY)), incomplete)
    except SpecError:
        return []
