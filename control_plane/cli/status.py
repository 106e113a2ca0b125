"""`tritonfleet status`: what runs where, as one table of everything or of one deployment."""

import time
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, deployment_path


def status(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A deployment; everything when left out.",
            show_default=False,
            autocompletion=completion.deployments,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show what runs where: servers, deployments, and the models of the repository.

    Example: tritonfleet status --watch
    """
    if watch and as_json:
        raise typer.BadParameter("--watch draws tables until Ctrl-C: leave out either it or --json.")
    with ControlPlaneClient(url, token) as client:
        if as_json:
            output.print_json(client.get(deployment_path(name)) if name else _everything(client))
        elif watch:
            _watch(client, name)
        elif name:
            output.show(deployment_table(client.get(deployment_path(name))))
        else:
            output.show(_overview(_everything(client)))


def _watch(client: ControlPlaneClient, name: str | None) -> None:
    def view() -> Table:
        return deployment_table(client.get(deployment_path(name))) if name else _overview(_everything(client))

    with Live(view(), console=output.out, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(view(), refresh=True)


def _everything(client: ControlPlaneClient) -> dict[str, Any]:
    found = client.get("/v1/servers")
    return {
        "servers": found["servers"],
        "problems": found.get("problems", []),
        "deployments": client.get("/v1/deployments")["deployments"],
        "models": client.get("/v1/models")["models"],
    }


def _overview(data: dict[str, Any]) -> Table:
    grid = output.stacked(server_table(data["servers"]), *map(problem_line, data["problems"]))
    quarantined = [
        (server["id"], model, output.state("quarantined"), why)
        for server in data["servers"]
        for model, why in server["quarantined"].items()
    ]
    if quarantined:
        grid.add_row("")
        grid.add_row(output.table(["server", "model", "state", "why (tritonfleet server release)"], quarantined))
    grid.add_row("")
    deployments = [
        (
            body["name"],
            output.state(body["status"]["state"]),
            " ".join(f"{pin['model']}:{pin['version']}" for pin in body["pins"]),
            " ".join(_reasons(body)),
        )
        for body in data["deployments"]
    ]
    grid.add_row(
        output.table(["deployment", "state", "versions", "reasons"], deployments)
        if deployments
        else "no deployment yet: tritonfleet deploy <model>"
    )
    grid.add_row("")
    models = [
        (
            model["name"],
            ", ".join(map(str, model["versions"])) or "none: tritonfleet build " + model["name"],
            model["backend"],
            ", ".join(
                f"{ready['server']}:{ready['version']}" + (f" {ready['target']}" if ready["target"] else "")
                for ready in model["ready_on"]
            ),
            "; ".join([*model["problems"], *model["warnings"]]),
        )
        for model in data["models"]
    ]
    grid.add_row(output.table(["model", "versions", "backend", "ready on (server:version)", "problems"], models))
    return grid


def problem_line(problem: str) -> Text:
    """Return what is wrong with how servers are found, as a line below their table."""
    return output.labelled("problem:", problem, "bold red")


def server_table(servers: list[dict[str, Any]]) -> Table:
    """Return a row for each server; `since` is since when it drains or is unreachable."""
    rows = [
        (
            server["id"],
            server["pool"],
            server["source"],
            output.state(server["condition"]),
            output.clock(server["since"]),
            server["endpoints"]["http"],
            server["endpoints"]["grpc"],
            str(sum(row["state"] == "READY" for row in server["models"])),
            server["detail"],
        )
        for server in servers
    ]
    return output.table(["server", "pool", "source", "condition", "since", "HTTP", "gRPC", ">models ready", ""], rows)


def deployment_table(body: dict[str, Any]) -> Table:
    """Return where a deployment stands on each server, with the reasons."""
    word = output.state(body["status"]["state"])
    grid = output.stacked(
        Text.assemble(f"{body['name']}: ", word, f" (model {body['model']}, revision {body['revision']})")
    )
    if body["others"]:
        shares = [(body["pins"][-1]["version"], 100 - sum(it["share"] for it in body["others"]))]
        shares += [(it["pins"][-1]["version"], it["share"]) for it in body["others"]]
        grid.add_row(f"  traffic: {', '.join(f'version {version} {share} %' for version, share in shares)}")
    if body["precisions"]:
        grid.add_row(f"  in {' or '.join(body['precisions'])}")
    if body["allow_unproven"]:
        grid.add_row("  unproven artifacts are allowed")
    for reason in body["status"]["reasons"]:
        grid.add_row(f"  {reason}")
    rows = [
        (
            server["server"],
            row["model"],
            str(row["version"]),
            row["target"],
            output.state(row["state"] or "not loaded"),
            row["reason"],
        )
        for server in body["status"]["servers"]
        for row in server["models"]
    ]
    grid.add_row(output.table(["server", "model", ">version", "target", "state", "reason"], rows))
    for server in body["status"]["servers"]:
        if server["reason"]:
            grid.add_row(f"{server['server']}: {server['reason']}")
    return grid


def _reasons(body: dict[str, Any]) -> list[str]:
    return [*body["status"]["reasons"], *(server["reason"] for server in body["status"]["servers"] if server["reason"])]
