"""What the shell offers for a value: names that the control plane, or the model repository, knows.

Pressing a key must neither print an error nor hang: without an answer at once there is nothing to offer.
"""

import os
import re
from collections.abc import Callable, Iterable, MutableMapping
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import httpx
import typer

from builders.errors import SpecError
from builders.spec import find_packages
from builders.targets import PRECISIONS
from control_plane.cli.client import DEFAULT_URL, TOKEN_VARIABLE, segment
from control_plane.mig import products
from control_plane.settings import CLIENT_URL_VARIABLE

DEFAULT_REPOSITORY = Path("model_repository")
BACKENDS = (
    *("dali", "fil", "identity", "onnxruntime", "openvino", "python", "pytorch", "repeat", "square", "tensorflow"),
    *("tensorrt", "tensorrt_rtx", "tensorrtllm", "vllm"),
)
"""Backends that are offered: Triton's own (github.com/triton-inference-server/backend) and this project's."""

_SHELL_VARIABLE = "_TRITONFLEET_COMPLETE"
_BASH = "complete_bash"
_BREAKS = re.compile(r"[:=]+")
"""What bash breaks words at beside spaces (COMP_WORDBREAKS), of the characters that our values have."""
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
    """Return what the control plane of this command line answers; nothing where it does not in time.

    The deadline is kept beside the client's own: those are for each read, and looking a host up has none.
    """
    url = ctx.params.get("url") or os.environ.get(CLIENT_URL_VARIABLE) or DEFAULT_URL
    token = ctx.params.get("token") or os.environ.get(TOKEN_VARIABLE)
    found: SimpleQueue[object] = SimpleQueue()
    Thread(target=lambda: found.put(_body(f"{url}{path}", token)), daemon=True).start()
    try:
        body = found.get(timeout=_DEADLINE_S)
    except Empty:
        return {}
    return body if isinstance(body, dict) else {}


def _body(url: str, token: str | None) -> object:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(timeout=_DEADLINE_S, trust_env=False, verify=url.startswith("https")) as client:
            return client.get(url, headers=headers).json()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, RecursionError, ValueError):
        return None


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete) and name.isprintable()})


def join_bash_words(environ: MutableMapping[str, str]) -> None:
    """Join in the environment what bash has broken words into, where it asks: `http`, `:`, `//host` are one address.

    The words stand one a line, as Typer's script for bash gives them.
    """
    pieces, number = environ.get("COMP_WORDS", "").split("\n"), environ.get("COMP_CWORD", "")
    if environ.get(_SHELL_VARIABLE) != _BASH or not number.isdecimal() or int(number) >= len(pieces):
        return
    pieces = pieces[: int(number) + 1]
    words = pieces[:1]
    for before, piece in pairwise(pieces):
        if piece and (_BREAKS.fullmatch(before) or _BREAKS.fullmatch(piece)):
            words[-1] += piece
        else:
            words.append(piece)
    environ.update(COMP_WORDS="\n".join(words), COMP_CWORD=str(len(words) - 1))


def _column(table: str, name: str) -> Callable[[dict[str, Any]], Iterable[str]]:
    return lambda body: (str(row[name]) for row in body.get(table, []))


deployments = _asked("/v1/deployments", _column("deployments", "name"))
models = _asked("/v1/models", _column("models", "name"))
servers = _asked("/v1/servers", _column("servers", "id"))
operations = _asked("/v1/operations?limit=50", _column("operations", "id"))
open_operations = _asked("/v1/operations?state=queued&state=running&state=waiting", _column("operations", "id"))
pools = _asked("/v1/servers", _column("servers", "pool"))


def replicas_in_pools(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer NAME= for every pool; nothing behind the "=", where bash would set NAME= once more."""
    return [] if "=" in incomplete else [f"{pool}=" for pool in pools(ctx, incomplete)]


def quarantined(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the models that are quarantined on the server that was given before."""
    server = segment(str(ctx.params.get("server") or ""))
    return _of_answer(ctx, f"/v1/servers/{server}", lambda body: body.get("quarantined", {}), incomplete)


def precisions(incomplete: str) -> list[str]:
    """Offer the precisions there are."""
    return _offered(("default", *PRECISIONS), incomplete)


def gpu_products(incomplete: str) -> list[str]:
    """Offer the GPU products whose slices are known."""
    return _offered(products(), incomplete)


def backends(incomplete: str) -> list[str]:
    """Offer the backends that a Triton may have."""
    return _offered(BACKENDS, incomplete)


def packages(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the packages of the model repository that was given before, or else of the usual one."""
    try:
        return _offered(find_packages(Path(ctx.params.get("repository") or DEFAULT_REPOSITORY)), incomplete)
    except (SpecError, OSError):
        return []
