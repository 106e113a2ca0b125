"""`tritonfleet operations` and `cancel`: every change and what became of it, step by step. `watch` follows them."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, segment
from control_plane.operations import OperationState

_LIMIT = 20


def operations(
    operation: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="An operation, to show its steps.",
            show_default=False,
            autocompletion=completion.operations,
        ),
    ] = None,
    state: Annotated[
        list[OperationState] | None, typer.Option("--state", help="Only those in this state. Repeatable.")
    ] = None,
    deployment: Annotated[
        str | None,
        typer.Option(
            "--deployment",
            help="Only those of this deployment.",
            show_default=False,
            autocompletion=completion.deployments,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="Only those with a step on this server.",
            show_default=False,
            autocompletion=completion.servers,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=500, help=f"How many (default: {_LIMIT}).", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show operations, the newest first: who changed what, and how far it is. With an ID, each of its steps.

    Example: tritonfleet operations --state failed --deployment text_embedding
    """
    if operation is not None and (state or deployment is not None or server is not None or limit is not None):
        raise typer.BadParameter("An ID is one operation: leave --state, --deployment, --server and --limit out.")
    with ControlPlaneClient(url, token) as client:
        if operation is not None:
            _show(client.get(operation_path(operation)), as_json=as_json)
            return
        query: dict[str, str | list[str]] = {"limit": str(limit or _LIMIT)}
        given = {"state": [it.value for it in state or ()], "deployment": deployment, "server": server}
        data = client.get("/v1/operations", **query, **{key: value for key, value in given.items() if value})
    if as_json:
        output.print_json(data)
        return
    output.show(_list(data["operations"]) if data["operations"] else "no such operation")
    if data["next"] is not None:
        output.err.print("there are older ones: --limit shows more")


def cancel(
    operation: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The operation, as `operations` shows it.",
            autocompletion=completion.open_operations,
        ),
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Begin nothing more of an operation. What runs ends first; what is declared stays declared.

    Example: tritonfleet cancel deploy-0a1b2c3d4e5f
    """
    with ControlPlaneClient(url, token) as client:
        _show(client.post(f"{operation_path(operation)}/cancel"), as_json=as_json)


def operation_path(operation: str) -> str:
    """Return the path of an operation."""
    return f"/v1/operations/{segment(operation)}"


def headline(body: dict[str, Any]) -> Text:
    """Return an operation in one line: which, about what, how far, and why if it failed."""
    asked = " (to be cancelled)" if body["cancel_asked"] and body["state"] != "cancelled" else ""
    cause = f": {body['cause']}" if body["cause"] else ""
    return Text.assemble(f"{body['id']} {about(body)}: ", output.state(body["state"]), asked, cause)


def about(body: dict[str, Any]) -> str:
    """Say what an operation is about."""
    if body["deployment"]:
        return f"of {body['deployment']}" + (f", revision {body['revision']}" if body["revision"] else "")
    return f"of server {body['server']}"


def step_words(step: dict[str, Any]) -> tuple[str, str, str, Text, str]:
    """Return what a step does, to what, where, how far it is, and what went wrong or why it is done."""
    model = step["model"] + (f":{step['version']}" if step["version"] else "")
    tried = f" (attempt {step['attempts']})" if step["attempts"] > 1 else ""
    why = step["cause"] or step["reason"]
    if step["state"] == "waiting" and step["retry_at"]:
        why = f"{why}; again at {output.clock(step['retry_at'])}"
    return step["action"], model, step["server"], output.state(step["state"]) + Text(tried), why


def _show(body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(body)
        return
    output.show(headline(body))
    output.show(f"begun {output.clock(body['created_at'])}, changed {output.clock(body['updated_at'])}")
    rows = [
        (str(step["number"]), *step_words(step), output.clock(step["ended_at"] or step["started_at"]))
        for step in body["steps"]
    ]
    if rows:
        output.show(output.table([">", "step", "model", "server", "state", "why", "at"], rows))


def _list(bodies: list[dict[str, Any]]) -> Table:
    rows = [
        (
            body["id"],
            output.state(body["state"]),
            body["deployment"] or f"server {body['server']}",
            f"{sum(step['state'] == 'done' for step in body['steps'])}/{len(body['steps'])}",
            output.clock(body["created_at"]),
            body["cause"],
        )
        for body in bodies
    ]
    return output.table(["operation", "state", "of", ">steps done", "begun", "cause"], rows)
