"""`tritonfleet plan` and `explain`: what the control plane would do now, and why replicas are where they are."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, deployment_path


def plan(url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """Show what would be done now, what waits, what cannot be, and where replicas go. Nothing is changed.

    Every server is looked at for it. Steps of a lower stage come first; those of one stage are independent.

    Example: tritonfleet plan
    """
    with ControlPlaneClient(url, token) as client, output.Spinner("looking at the servers"):
        data = client.get("/v1/plan")
    if as_json:
        output.print_json(data)
    else:
        output.show(plan_table(data))


def explain(
    name: Annotated[str, typer.Argument(help="The deployment's name.", autocompletion=completion.deployments)],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Tell in words why each replica of a deployment is where it is, and why others are nowhere.

    Example: tritonfleet explain text_embedding
    """
    with ControlPlaneClient(url, token) as client:
        data = client.get(f"{deployment_path(name)}/explain")
    if as_json:
        output.print_json(data)
        return
    output.show(f"{data['deployment']}: {data['summary']}")
    for replica in data["replicas"]:
        place = f"  {replica['server']}, version {replica['version']}: "
        reason = f" ({replica['reason']})" if replica["reason"] else ""
        output.show(
            Text.assemble(place, output.state(replica["state"]), f"{reason}. Here because: ", replica["why_here"])
        )
    for title, reasons in (("missing", data["missing"]), ("waiting", data["waiting"])):
        for reason in reasons:
            output.show(f"  {title}: {reason}")


def plan_table(data: dict[str, Any]) -> Table:
    """Return a plan as tables: the steps, what waits, what cannot be, and where replicas go."""
    steps = [
        (
            str(step["stage"]),
            step["kind"],
            step["server"],
            step["model"] + (f":{step['version']}" if step["version"] is not None else ""),
            step["target"],
            step["reason"],
        )
        for step in data["actions"]
    ]
    grid = output.stacked(
        output.table([">stage", "step", "server", "model", "target", "reason"], steps)
        if steps
        else "nothing is to be done now"
    )
    waiting = [(it["server"], it["model"], it["reason"]) for it in data["waiting"]]
    infeasible = [(it["deployment"], Text("infeasible", "red"), "\n".join(it["reasons"])) for it in data["infeasible"]]
    placement = [(it["deployment"], it["server"], it["reason"]) for it in data["placement"]]
    for headings, rows in (
        (["waits on server", "model", "reason"], waiting),
        (["deployment", "", "reasons"], infeasible),
        (["placed deployment", "server", "why there"], placement),
    ):
        if rows:
            grid.add_row("")
            grid.add_row(output.table(headings, rows))
    return grid
