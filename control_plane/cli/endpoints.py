"""`tritonfleet endpoints`: where clients of a model are to go now, and every change of it."""

import time
from typing import Annotated, Any

import typer
from rich.table import Table

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url

_AGAIN_S = 0.5


def endpoints(
    model: Annotated[str, typer.Argument(help="The model, as clients name it.", autocompletion=completion.models)],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print it again whenever it changes.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show the servers that serve a model, each with its part of the traffic. With --watch and --json, lines of JSON.

    Example: tritonfleet endpoints text_embedding --watch
    """
    with ControlPlaneClient(url, token) as client:
        if not watch:
            data = client.get("/v1/endpoints", model=model)
            if as_json:
                output.print_json(data)
            else:
                output.show(_table(data))
            return
        shown: Any = None
        while True:
            for data in client.events("/v1/endpoints/events", model=model):
                if data is None or data == shown:
                    continue
                shown = data
                if as_json:
                    output.print_json_line(data)
                else:
                    output.show(_table(data))
            time.sleep(_AGAIN_S)


def _table(data: dict[str, Any]) -> Table | str:
    if not data["endpoints"]:
        return f"no server serves {data['model']} now"
    rows = [
        (it["server"], it["http"], it["grpc"], it["deployment"], str(it["version"]), f"{100 * it['weight']:.3g} %")
        for it in data["endpoints"]
    ]
    return output.table(["server", "HTTP", "gRPC", "deployment", ">version", ">traffic"], rows)
