"""Following a changed deployment until it settles, and what a command says of it then: shared by several commands.

Or of a dry run, which changes nothing and has the plan to show that the change would come to.
"""

import time
from typing import Annotated, Any

import typer

from control_plane.cli import output
from control_plane.cli.client import ControlPlaneClient, deployment_path
from control_plane.cli.plan import plan_table
from control_plane.cli.status import deployment_table

_SETTLED = ("serving", "degraded", "failed")
_POLL_S = 0.25
# The control plane itself waits this long first: until its loop has looked, a state may be one of before the call.
_FIRST_WAIT_S = 5.0

Wait = Annotated[
    float, typer.Option("--wait", min=0, max=600, help="Seconds to wait until it is done; 0 returns at once.")
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would be done.")]
REHEARSE = {"dry_run": "true"}
"""The query of a call that is only tried out."""


def show_rehearsal(body: dict[str, Any], *, as_json: bool) -> None:
    """Print what a change would come to."""
    if as_json:
        output.print_json(body)
        return
    output.show("dry run: nothing was changed")
    output.show(plan_table(body["plan"]))


def first_wait(wait_s: float) -> float:
    """Return how long the call that changes a deployment is to wait itself."""
    return min(wait_s, _FIRST_WAIT_S)


def until_settled(
    client: ControlPlaneClient, body: dict[str, Any], wait_s: float, spinner: output.Spinner
) -> dict[str, Any]:
    """Follow a deployment until it settles or `wait_s`, the first wait included, is over, showing what is at what."""
    until = time.monotonic() + wait_s - first_wait(wait_s)
    while body["status"]["state"] not in _SETTLED and time.monotonic() < until:
        spinner.update(f"{body['name']}: {_doing(body)}")
        time.sleep(_POLL_S)
        body = client.get(deployment_path(body["name"]))
    return body


def report(body: dict[str, Any], wait_s: float, *, as_json: bool) -> None:
    """Print where a deployment stands; ends the command with 1 where it was waited for and does not serve."""
    if as_json:
        output.print_json(body)
    else:
        output.show(deployment_table(body))
    name, state = body["name"], body["status"]["state"]
    if wait_s and state != "serving":
        problem = f"{name} is {state}" if state in _SETTLED else f"{name} is still {state} after {wait_s:g} s"
        output.print_error(problem, next_step=f"tritonfleet status {name} shows it; it goes on being tried")
        raise typer.Exit(1)


def _doing(body: dict[str, Any]) -> str:
    models = [row for server in body["status"]["servers"] for row in server["models"]]
    ready = sum(row["state"] == "READY" for row in models)
    loading = sorted({row["model"] for row in models if row["state"] == "LOADING"})
    return f"{ready} of {len(models)} models ready" + (f", loading {', '.join(loading)}" if loading else "")
