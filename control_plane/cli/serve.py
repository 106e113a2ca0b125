"""`tritonfleet serve`: the control plane and its embedded Tritons on this machine, until Ctrl-C."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from control_plane.cli import output
from control_plane.settings import Settings, load_settings

if TYPE_CHECKING:
    from control_plane.bootstrap import RunningControlPlane

_USUAL_PORTS = (8000, 8001, 8002)


def command(
    repository: Annotated[
        Path | None, typer.Option("--model-repository", "-r", help="Folder of packages (default: model_repository).")
    ] = None,
    servers: Annotated[int | None, typer.Option(min=1, max=64, help="How many tritonservers (default: 1).")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address of the REST API (default: 127.0.0.1). Any other needs TRITONFLEET_TOKEN."),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port of the REST API (default: 8700).")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="State file (default: .tritonfleet/state.db).")] = None,
    http_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Triton's HTTP port (default: 8000 where free, else any).")
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Triton's gRPC port (default: 8001).")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Triton's metrics port (default: 8002).")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=https://HOST:PORT",
            help="A machine whose agent cuts its GPUs; needs the TRITONFLEET_AGENT_* files. Repeatable.",
            show_default=False,
        ),
    ] = None,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="PRODUCT:COUNT[,...]",
            help="Made-up GPUs, cut into slices for deployments, with a real tritonserver on each (h100-80gb:2).",
            show_default=False,
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every action.")] = False,
) -> None:
    """Run the control plane and its tritonservers on this machine, until Ctrl-C or SIGTERM.

    What is deployed is stored, and served again by the next `serve` on the same state file. Every option can be set as
    TRITONFLEET_<OPTION> too. The tritonservers die with this process, however it ends.

    Example: tritonfleet serve --servers 2
    """
    # Not at the top: it takes more than a second, which every other command would wait for too.
    from control_plane.bootstrap import serve as serve_until_stopped  # noqa: PLC0415

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    given = {
        "model_repository": repository,
        "servers": servers,
        "host": host,
        "port": port,
        "state_path": state,
        "triton_http_port": http_port,
        "triton_grpc_port": grpc_port,
        "triton_metrics_port": metrics_port,
        "simulate": simulate,
        "agents": ",".join(agent) if agent else None,
    }
    settings = _with_usual_ports(load_settings({name: value for name, value in given.items() if value is not None}))
    with output.Spinner("starting") as spinner:

        def started(running: "RunningControlPlane") -> None:
            spinner.stop()
            _say_where(running)

        asyncio.run(serve_until_stopped(settings, started))
    output.err.print("stopped")


def _with_usual_ports(settings: Settings) -> Settings:
    """Give the first server Triton's usual ports where nobody chose any and all that would be taken are free."""
    chosen = (settings.triton_http_port, settings.triton_grpc_port, settings.triton_metrics_port)
    last = _USUAL_PORTS[0] + len(_USUAL_PORTS) * settings.servers
    if any(port is not None for port in chosen) or not all(map(_is_free, range(_USUAL_PORTS[0], last))):
        return settings
    names = ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
    return settings.model_copy(update=dict(zip(names, _USUAL_PORTS, strict=True)))


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _say_where(running: "RunningControlPlane") -> None:
    rows = [
        (server.server.id, server.server.endpoints.http, server.server.endpoints.grpc, server.server.endpoints.metrics)
        for server in running.fleet.servers()
    ]
    if rows:
        output.show(output.table(["server", "HTTP", "gRPC", "metrics"], rows))
    else:
        output.show("servers start as slices are cut for deployments: tritonfleet placement show")
    output.show(f"control plane: {running.url} (API: {running.url}/docs, metrics: {running.url}/metrics)")
    output.show("next, in another terminal: tritonfleet deploy text_embedding; Ctrl-C stops everything")
