"""`tritonfleet server ...`: the Triton servers of the fleet: registering, draining, restarting, forgiving them."""

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from builders.errors import SourceError
from control_plane.cli import completion, output, settling
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, segment
from control_plane.cli.status import problem_line, server_table
from control_plane.cli.values import capability, pair, size

_POLL_S = 0.25
_GONE = "UNAVAILABLE"

servers = typer.Typer(no_args_is_help=True, help="The Triton servers of the fleet.")

Server = Annotated[
    str, typer.Argument(help="The server's id, as `server list` shows it.", autocompletion=completion.servers)
]


@servers.command("list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """Show every server: its pool, its condition and since when, where it listens.

    Example: tritonfleet server list
    """
    with ControlPlaneClient(url, token) as client:
        data = client.get("/v1/servers")
    if as_json:
        output.print_json(data)
    else:
        none = "no server yet: tritonfleet server add <id>"
        table = server_table(data["servers"]) if data["servers"] else none
        output.show(output.stacked(table, *map(problem_line, data.get("problems", []))))


@servers.command()
def show(server: Server, url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """Show one server: its devices, what it holds, and what is quarantined there.

    Example: tritonfleet server show triton-0
    """
    with ControlPlaneClient(url, token) as client:
        _print(client.get(_path(server)), as_json=as_json)


@servers.command()
def add(
    server: Annotated[str, typer.Argument(help="An id for it.")],
    grpc: Annotated[str, typer.Option("--grpc", metavar="HOST:PORT", help="Where its gRPC is.")],
    http: Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="Where its HTTP is.")],
    metrics: Annotated[str, typer.Option("--metrics", metavar="HOST:PORT", help="Where its metrics are.")],
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool", help="Its pool (default: default).", show_default=False, autocompletion=completion.pools
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label. Repeatable.", show_default=False)
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            help="A backend that it has. Repeatable (default: python, onnxruntime).",
            show_default=False,
            autocompletion=completion.backends,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="UUID[,capability=8.9][,memory=24GiB][,mig=1g.10gb][,product=NAME]",
            help="A GPU that it runs on, or its MIG slice; none on a CPU. Repeatable.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="What models may take (default: its devices').", show_default=False
        ),
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            "--model-repository",
            help="Folder on the control plane's machine that it loads from, to which versions are copied "
            "(default: it reads the model repository itself).",
            show_default=False,
        ),
    ] = None,
    admin_key_file: Annotated[
        Path | None,
        typer.Option("--admin-key-file", help="File with the key of its restricted APIs.", show_default=False),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Have a Triton commanded that runs already. It must be the fleet's own: what no deployment needs is unloaded.

    Example: tritonfleet server add gpu-7 --grpc 10.0.0.7:8001 --http 10.0.0.7:8000 --metrics 10.0.0.7:8002
    """
    given = {
        "pool": pool,
        "labels": dict(pair("--label", it) for it in label) if label else None,
        "backends": backend,
        "devices": [_device(it) for it in device] if device else None,
        "memory_bytes": size("--memory", memory) if memory is not None else None,
        "repository": str(repository) if repository is not None else None,
        "admin_key": _key(admin_key_file) if admin_key_file is not None else None,
    }
    body: dict[str, Any] = {"id": server, "grpc": grpc, "http": http, "metrics": metrics}
    body |= {name: value for name, value in given.items() if value is not None}
    with ControlPlaneClient(url, token) as client:
        _print(client.post("/v1/servers", body), as_json=as_json)


@servers.command()
def remove(server: Server, url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """Forget a server that was added. What it holds goes on serving there; drain it first to have it empty.

    Example: tritonfleet server remove gpu-7
    """
    with ControlPlaneClient(url, token) as client:
        client.delete(_path(server))
    _done({"id": server, "removed": True}, f"{server} is forgotten", as_json=as_json)


@servers.command()
def drain(
    server: Server,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the others.", show_default=False)] = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, max=3600, help="Seconds to wait until it holds nothing; 0 returns at once."),
    ] = 0,
    dry_run: settling.DryRun = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Have a server hold nothing: its replicas are placed elsewhere first, then it is emptied. `resume` ends it.

    Ends with 1 where it still holds something once the wait is over.

    Example: tritonfleet server drain triton-0 --wait 300
    """
    with ControlPlaneClient(url, token) as client, output.Spinner(f"draining {server}") as spinner:
        asked = {"reason": reason} if reason is not None else None
        if dry_run:
            settling.show_rehearsal(
                client.post(f"{_path(server)}/drain", asked, 0, **settling.REHEARSE), as_json=as_json
            )
            return
        body = client.post(f"{_path(server)}/drain", asked)
        until = time.monotonic() + wait
        while wait and not _is_empty(body) and time.monotonic() < until:
            spinner.update(f"draining {server}: it holds {', '.join(_held(body)) or 'what nobody knows'}")
            time.sleep(_POLL_S)
            body = client.get(_path(server))
    _print(body, as_json=as_json)
    if not wait or _is_empty(body):
        return
    left = _held(body)
    problem = f"still holds {', '.join(left)}" if left else f"is {body['condition']}: what it holds is not known"
    causes = [body["detail"]] if body["detail"] else []
    output.print_error(f"{server} {problem} after {wait:g} s", causes, "tritonfleet plan shows what is waited for")
    raise typer.Exit(1)


@servers.command()
def resume(server: Server, url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """End a drain, or let a server back in that was taken out because it kept failing.

    Example: tritonfleet server resume triton-0
    """
    _order(server, "resume", f"{server} is placed on again", ControlPlaneClient(url, token), as_json=as_json)


@servers.command()
def restart(server: Server, url: Url = DEFAULT_URL, token: Token = None, as_json: output.AsJson = False) -> None:
    """Kill a server's process and start it again, where it is the control plane's own. Drain it first.

    Example: tritonfleet server restart triton-0
    """
    _order(server, "restart", f"{server} is being restarted", ControlPlaneClient(url, token), as_json=as_json)


@servers.command()
def release(
    server: Server,
    model: Annotated[str, typer.Argument(help="The quarantined model.", autocompletion=completion.quarantined)],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """End a quarantine: have a model that kept failing on a server tried again there.

    Example: tritonfleet server release triton-0 text_embedding
    """
    with ControlPlaneClient(url, token) as client:
        client.delete(f"{_path(server)}/quarantine/{segment(model)}")
    said = {"id": server, "model": model, "released": True}
    _done(said, f"{model} is tried again on {server}", as_json=as_json)


def _path(server: str) -> str:
    return f"/v1/servers/{segment(server)}"


def _order(server: str, verb: str, said: str, control_plane: ControlPlaneClient, *, as_json: bool) -> None:
    with control_plane as client:
        body = client.post(f"{_path(server)}/{verb}")
    _done(body, said, as_json=as_json)


def _done(data: object, said: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(data)
    else:
        output.show(said)


def _device(word: str) -> dict[str, Any]:
    """Read UUID[,name=value...]."""
    uuid, *more = word.split(",")
    device: dict[str, Any] = {"uuid": uuid}
    for part in more:
        name, value = pair("--device", part)
        match name:
            case "capability":
                device["compute_capability"] = capability("--device capability", value)
            case "memory":
                device["memory_bytes"] = size("--device memory", value)
            case "mig":
                device["mig_profile"] = value
            case "product":
                device["product"] = value
            case _:
                raise typer.BadParameter(f"--device knows capability, memory, mig and product, and not {name}")
    if not re.fullmatch(r"[^\s=]+", uuid):
        raise typer.BadParameter(f"--device begins with the device's UUID, and not with {uuid!r}")
    return device


def _key(path: Path) -> str:
    """Return the key in a file, so that it is in no list of processes and no shell's history."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path}: cannot be read: {exc}") from exc


def _held(body: dict[str, Any]) -> list[str]:
    return [f"{row['name']}:{row['version']}" for row in body["models"] if row["state"] != _GONE]


def _is_empty(body: dict[str, Any]) -> bool:
    """Tell whether a server is known to hold nothing: one that does not answer may hold anything."""
    return body["condition"] in {"healthy", "draining"} and not _held(body)


def _print(body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(body)
    else:
        output.show(_server(body))


def _server(body: dict[str, Any]) -> Table:
    since = f" since {output.clock(body['since'])}" if body["since"] else ""
    detail = f": {body['detail']}" if body["detail"] else ""
    grid = output.stacked(
        Text.assemble(
            f"{body['id']} (pool {body['pool']}, {body['source']}): ",
            output.state(body["condition"]),
            f"{since}{detail}",
        )
    )
    where = body["endpoints"]
    memory = f", {output.size(body['memory_bytes'])} for models" if body["memory_bytes"] else ""
    if body["memory_used_bytes"] is not None:
        missing = body["memory_missing_bytes"]
        lost = f", {output.size(missing)} of it did not come back" if missing else ""
        memory += f", {output.size(body['memory_used_bytes'])} used{lost}"
    triton = f", Triton {body['triton_version']}" if body["triton_version"] else ""
    grid.add_row(f"  HTTP {where['http']}, gRPC {where['grpc']}, metrics {where['metrics']}{triton}{memory}")
    if body["labels"]:
        grid.add_row(f"  labels: {', '.join(f'{name}={value}' for name, value in body['labels'].items())}")
    for device in body["devices"]:
        known = (device["product"], device["compute_capability"], device["mig_profile"])
        size_of_it = output.size(device["memory_bytes"]) if device["memory_bytes"] else ""
        grid.add_row(f"  device {device['uuid']} {' '.join(word for word in (*known, size_of_it) if word)}")
    rows = [
        (row["name"], str(row["version"]), output.state(row["state"]), str(row["instances"] or ""), row["reason"])
        for row in body["models"]
    ]
    grid.add_row(
        output.table(["model", ">version", "state", ">instances", "reason"], rows) if rows else "  it holds nothing"
    )
    for model, why in body["quarantined"].items():
        grid.add_row(Text.assemble(f"  {model} is ", output.state("quarantined"), f": {why}"))
    return grid
