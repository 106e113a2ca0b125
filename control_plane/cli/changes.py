"""`tritonfleet scale`, `rollback` and `revisions`: changes of a deployment that is there, and the way back."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from control_plane.cli import completion, output, settling
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, deployment_path

Name = Annotated[str, typer.Argument(help="The deployment's name.", autocompletion=completion.deployments)]


def scale(
    name: Name,
    replicas: Annotated[
        int | None, typer.Option("--replicas", min=0, help="How many servers hold it.", show_default=False)
    ] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, help="Instances on each of them.", show_default=False)
    ] = None,
    dry_run: settling.DryRun = False,
    wait: settling.Wait = 300,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Have more or fewer replicas of a deployment, or instances on each. Versions stay.

    Example: tritonfleet scale text_embedding --replicas 3 --instances 2
    """
    if replicas is None and instances is None:
        raise typer.BadParameter("give --replicas, --instances or both")
    asked = {"replicas": replicas, "instances": instances}
    told = _Telling(f"scaling {name}", None if dry_run else wait, as_json)
    _change(name, "scale", asked, ControlPlaneClient(url, token), told)


def rollback(
    name: Name,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="REVISION", min=1, help="Revision to return to (default: the last).", show_default=False
        ),
    ] = None,
    dry_run: settling.DryRun = False,
    wait: settling.Wait = 300,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Return to an earlier revision, everything as it was then. `tritonfleet revisions` shows them.

    Example: tritonfleet rollback text_embedding --to 3
    """
    told = _Telling(f"rolling {name} back", None if dry_run else wait, as_json)
    _change(name, "rollback", {"revision": to}, ControlPlaneClient(url, token), told)


def revisions(
    name: Name,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the revisions of a deployment, the newest first: what was pinned when, and what was asked for.

    Example: tritonfleet revisions text_embedding
    """
    with ControlPlaneClient(url, token) as client:
        data = client.get(f"{deployment_path(name)}/revisions")
    if as_json:
        output.print_json(data)
        return
    rows = [
        (
            str(body["revision"]),
            output.clock(body["updated_at"]),
            " ".join(f"{pin['model']}:{pin['version']}" for pin in body["pins"]),
            _asked(body),
        )
        for body in data["revisions"]
    ]
    output.show(output.table([">revision", "since", "versions", "asked for"], rows))


@dataclass(frozen=True, slots=True)
class _Telling:
    """What is said of a change: while it is made, and in which form. `wait_s` is None where it is only tried out."""

    doing: str
    wait_s: float | None
    as_json: bool


def _change(name: str, verb: str, body: dict[str, Any], control_plane: ControlPlaneClient, telling: _Telling) -> None:
    path, wait_s = f"{deployment_path(name)}/{verb}", telling.wait_s
    with control_plane as client, output.Spinner(telling.doing) as spinner:
        if wait_s is None:
            settling.show_rehearsal(client.post(path, body, 0, **settling.REHEARSE), as_json=telling.as_json)
            return
        changed = client.post(path, body, settling.first_wait(wait_s))
        changed = settling.until_settled(client, changed, wait_s, spinner)
    settling.report(changed, wait_s, as_json=telling.as_json)


def _asked(body: dict[str, Any]) -> str:
    """Say in a few words what a revision asks for beside its versions."""
    needs = body["needs"]
    replicas, pools = needs["replicas"], needs["pools"] or {}
    said = ["on every server"] if replicas == "everywhere" else []
    if isinstance(replicas, dict):
        said.append(f"{_bounds(replicas)} replicas")
    said += [f"{_bounds(bounds)} in pool {pool}" for pool, bounds in pools.items()]
    if needs["instances"] != "config":
        said.append(f"{needs['instances']} instances")
    said += [f"{it['share']} % to version {it['pins'][-1]['version']}" for it in body["others"]]
    if body["precisions"]:
        said.append(" or ".join(body["precisions"]))
    return ", ".join(said)


def _bounds(bounds: dict[str, Any]) -> str:
    return str(bounds["min"]) if bounds["max"] is None else f"{bounds['min']} to {bounds['max']}"
