"""`tritonfleet deploy`, `undeploy` and `status`: the REST API for people."""

import time
from http import HTTPStatus
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from control_plane.cli import output
from control_plane.cli.client import DEFAULT_URL, ApiError, ControlPlaneClient, Token, Url, deployment_path

_DEFAULT = "default"
_SETTLED = ("serving", "degraded", "failed")
_POLL_S = 0.25
# The control plane itself waits this long first: until its loop has looked, a state may be one of before the call.
_FIRST_WAIT_S = 5.0

Wait = Annotated[
    float, typer.Option("--wait", min=0, max=600, help="Seconds to wait until it is done; 0 returns at once.")
]


def deploy(
    model: Annotated[str, typer.Argument(help="The model to serve: a package of the repository, often an ensemble.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The deployment's name (default: the model's).", show_default=False)
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Version to pin (default: the newest).", show_default=False)
    ] = None,
    redeploy: Annotated[
        bool, typer.Option("--redeploy", help="Pin an existing deployment again, to the newest versions.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="With --redeploy: move the deployments that share its models, too.")
    ] = False,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="A precision that will do (fp32, fp16, bf16, int8, fp8), again for the next best; 'default' is each "
            "version's most precise.",
            show_default=False,
        ),
    ] = None,
    allow_unproven: Annotated[
        bool | None,
        typer.Option(
            "--allow-unproven/--no-allow-unproven", help="Load engines that were never run.", show_default=False
        ),
    ] = None,
    wait: Wait = 300,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Have a model served, with everything it needs, and wait until it is.

    The versions of the model and of its members are pinned: a later build changes nothing until --redeploy, which keeps
    the precisions and what is allowed unless they are given again.

    Example: tritonfleet deploy text_embedding --precision int8 --precision fp32
    """
    if redeploy and version:
        raise typer.BadParameter("--redeploy pins what the deployment was created with: leave --version out.")
    if together and not redeploy:
        raise typer.BadParameter("--together says how to --redeploy: give both.")
    wishes = _wishes(precision, allow_unproven)
    chosen = name or model.lower().replace(".", "-")
    first_wait_s = min(wait, _FIRST_WAIT_S)
    with ControlPlaneClient(url, token) as client, output.Spinner(f"deploying {chosen}") as spinner:
        if redeploy:
            query = {"together": "true"} if together else {}
            body = client.post(f"{deployment_path(chosen)}/redeploy", wishes or None, first_wait_s, **query)
        else:
            body = _create(client, {"name": chosen, "model": model, "version": version, **wishes}, first_wait_s)
        body = _wait_until_settled(client, body, wait - first_wait_s, spinner)
    if as_json:
        output.print_json(body)
    else:
        _print_deployment(body)
    state = body["status"]["state"]
    if wait and state != "serving":
        problem = f"{chosen} is {state}" if state in _SETTLED else f"{chosen} is still {state} after {wait:g} s"
        output.print_error(problem, next_step=f"tritonfleet status {chosen} shows it; it goes on being tried")
        raise typer.Exit(1)


def undeploy(
    name: Annotated[str, typer.Argument(help="The deployment's name.")],
    wait: Wait = 60,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Stop serving a deployment. Models that another deployment needs stay loaded.

    Example: tritonfleet undeploy text_embedding
    """
    with ControlPlaneClient(url, token) as client, output.Spinner(f"undeploying {name}"):
        left = client.delete(deployment_path(name), wait)
    still = list(left["still_loaded"]) if left else []
    if as_json:
        output.print_json({"name": name, "still_loaded": still})
    else:
        output.show(f"{name} is gone" + (f"; still being unloaded: {', '.join(still)}" if still else ""))


def status(
    name: Annotated[
        str | None, typer.Argument(help="A deployment; everything when left out.", show_default=False)
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
            _print_deployment(client.get(deployment_path(name)))
        else:
            output.show(_overview(_everything(client)))


def _watch(client: ControlPlaneClient, name: str | None) -> None:
    def view() -> Any:  # noqa: ANN401 - something rich can draw
        return _deployment_table(client.get(deployment_path(name))) if name else _overview(_everything(client))

    with Live(view(), console=output.out, auto_refresh=False) as live:
        while True:
            time.sleep(1)
            live.update(view(), refresh=True)


def _wishes(precisions: list[str] | None, allow_unproven: bool | None) -> dict[str, Any]:
    """Return what was said of the targets, for the body of the call."""
    said: dict[str, Any] = {}
    if precisions:
        if _DEFAULT in precisions and len(precisions) > 1:
            raise typer.BadParameter(f"--precision {_DEFAULT} stands alone: leave the others out.")
        said["precisions"] = [] if precisions == [_DEFAULT] else precisions
    if allow_unproven is not None:
        said["allow_unproven"] = allow_unproven
    return said


def _create(client: ControlPlaneClient, new: dict[str, Any], wait_s: float) -> Any:  # noqa: ANN401 - JSON
    try:
        return client.post("/v1/deployments", new, wait_s)
    except ApiError as error:
        if error.status != HTTPStatus.CONFLICT:
            raise
        step = (
            f"pin it again to the newest versions (tritonfleet deploy {new['model']} --name {new['name']} --redeploy), "
            f"remove it (tritonfleet undeploy {new['name']}), or take another --name"
        )
        raise ApiError(error.status, error.title, error.causes, step) from error


def _wait_until_settled(
    client: ControlPlaneClient, body: dict[str, Any], wait_s: float, spinner: output.Spinner
) -> dict[str, Any]:
    """Follow a deployment until it settles or `wait_s` is over, showing which model is at what."""
    until = time.monotonic() + wait_s
    while body["status"]["state"] not in _SETTLED and time.monotonic() < until:
        spinner.update(f"{body['name']}: {_doing(body)}")
        time.sleep(_POLL_S)
        body = client.get(deployment_path(body["name"]))
    return body


def _doing(body: dict[str, Any]) -> str:
    models = [row for server in body["status"]["servers"] for row in server["models"]]
    ready = sum(row["state"] == "READY" for row in models)
    loading = sorted({row["model"] for row in models if row["state"] == "LOADING"})
    return f"{ready} of {len(models)} models ready" + (f", loading {', '.join(loading)}" if loading else "")


def _everything(client: ControlPlaneClient) -> dict[str, Any]:
    return {
        "servers": client.get("/v1/servers")["servers"],
        "deployments": client.get("/v1/deployments")["deployments"],
        "models": client.get("/v1/models")["models"],
    }


def _overview(data: dict[str, Any]) -> Any:  # noqa: ANN401 - something rich can draw
    grid = output.table([""], [])
    grid.show_header = False
    servers = [
        (
            server["id"],
            output.state(server["condition"]),
            server["endpoints"]["http"],
            server["endpoints"]["grpc"],
            str(sum(row["state"] == "READY" for row in server["models"])),
            server["detail"],
        )
        for server in data["servers"]
    ]
    grid.add_row(output.table(["server", "condition", "HTTP", "gRPC", ">models ready", ""], servers))
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


def _print_deployment(body: dict[str, Any]) -> None:
    output.show(_deployment_table(body))


def _deployment_table(body: dict[str, Any]) -> Any:  # noqa: ANN401 - something rich can draw
    grid = output.table([""], [])
    grid.show_header = False
    word = output.state(body["status"]["state"])
    grid.add_row(Text.assemble(f"{body['name']}: ", word, f" (model {body['model']}, revision {body['revision']})"))
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
