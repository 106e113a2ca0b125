"""`tritonfleet watch`: operations as they happen, a line for each change of a step.

The stream tells only what changes, and may have begun after the end of what is followed: so the newest operation is
looked up before, and whenever the stream has been silent for a while.
"""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, deployment_path
from control_plane.cli.operations import headline, step_words
from control_plane.operations import FINISHED

_AGAIN_S = 0.5
"""A stream that its control plane ends is begun again after so long."""


def watch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A deployment, until its newest operation has finished.",
            show_default=False,
            autocompletion=completion.deployments,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Follow operations, a line for each change of a step, until Ctrl-C. With --json, a line of JSON for each change.

    With a deployment it ends once its newest operation has: with 0 if it is done, with 1 if it failed or was cancelled.

    Example: tritonfleet watch text_embedding
    """
    seen = _Seen(as_json=as_json)
    with ControlPlaneClient(url, token) as client:
        if name is None:
            for body in _changes(client):
                if body is not None:
                    seen.show(body)
            return
        newest = _newest(client, name)
        if newest is None:
            client.get(deployment_path(name))  # which says so where there is none
            output.err.print(f"{name} has no operation yet")
            return
        seen.show(newest)
        if newest["state"] not in FINISHED:
            newest = _follow(client, name, newest, seen)
    if newest["state"] != "done":
        output.print_error(
            f"{newest['id']} is {newest['state']}",
            [newest["cause"]] if newest["cause"] else [],
            f"tritonfleet explain {name} shows where it stands",
        )
        raise typer.Exit(1)


class _Seen:
    """What was printed of each operation and step, so that only what has changed is printed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._printed: dict[tuple[str, int], tuple[object, ...]] = {}

    def show(self, body: dict[str, Any]) -> None:
        """Print what is new of an operation."""
        at = output.clock(body["updated_at"])
        head = self._is_new(body["id"], 0, (body["state"], body["cancel_asked"], body["cause"]))
        steps = [
            step
            for step in body["steps"]
            if self._is_new(body["id"], step["number"], (step["state"], step["attempts"], step["cause"]))
        ]
        if self._as_json:
            if head or steps:
                output.print_json_line(body)
            return
        if head and body["state"] not in FINISHED:
            output.show(Text.assemble(f"{at} ", headline(body)))
        for step in steps:
            action, model, server, state, why = step_words(step)
            what = " ".join(word for word in (action, model) if word)
            output.show(Text.assemble(f"{at} {body['id']} {what} on {server}: ", state, f" ({why})" if why else ""))
        if head and body["state"] in FINISHED:
            output.show(Text.assemble(f"{at} ", headline(body)))

    def _is_new(self, operation: str, number: int, now: tuple[object, ...]) -> bool:
        before = self._printed.get((operation, number))
        self._printed[operation, number] = now
        return before != now


def _follow(client: ControlPlaneClient, name: str, newest: dict[str, Any], seen: _Seen) -> dict[str, Any]:
    for change in _changes(client, deployment=name):
        body = change if change is not None else _newest(client, name)
        if body is None:
            continue
        seen.show(body)
        if body["id"] == newest["id"] or body["created_at"] > newest["created_at"]:
            newest = body
        if newest["state"] in FINISHED:
            break
    return newest


def _changes(client: ControlPlaneClient, **query: str) -> Iterator[dict[str, Any] | None]:
    """Yield operations as they change; None where nothing has for a while, or the stream was begun again."""
    while True:
        yield from client.events("/v1/operations/events", **query)
        yield None
        time.sleep(_AGAIN_S)


def _newest(client: ControlPlaneClient, name: str) -> dict[str, Any] | None:
    found: list[dict[str, Any]] = client.get("/v1/operations", deployment=name, limit="1")["operations"]
    return found[0] if found else None
