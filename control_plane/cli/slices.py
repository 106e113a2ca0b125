"""`tritonfleet placement show|plan|apply|explain|defrag`: the GPUs that the control plane cuts for deployments."""

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url, segment
from control_plane.cli.files import write_text

WholeOption = Annotated[
    bool, typer.Option("--whole", help="Look for the best for the whole fleet, and not for the least change.")
]
Seconds = Annotated[float, typer.Option("--seconds", min=0.5, max=25, help="How long the optimiser may look.")]


def show(
    drawing: Annotated[
        Path | None, typer.Option("--svg", help="Write a drawing, now and after the plan, there.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show every GPU of the fleet with its slices and who is on them, and which replicas have none.

    Example: tritonfleet placement show --svg gpus.svg
    """
    with ControlPlaneClient(url, token) as client:
        data = client.get("/v1/placement")
        if drawing is not None:
            write_text(drawing, client.text("/v1/placement/drawing"))
    if as_json:
        output.print_json(data)
        return
    for gpu in data["gpus"]:
        zone = f", zone {gpu['zone']}" if gpu["zone"] else ""
        output.show(f"{gpu['node']} {gpu['product']} {gpu['uuid']}{zone}")
        output.show(f"  {gpu['drawing']}")
        for it in gpu["slices"]:
            if it["state"] != "running":
                why = f": {it['reason']}" if it["reason"] else ""
                output.show(f"  {it['profile']} at {it['start']}: {it['state'].replace('_', ' ')}{why}")
        output.show(f"  cannot be used: {gpu['unusable']}" if gpu["unusable"] else f"  fits: {_listed(gpu['free'])}")
    _show_rejected(data["rejected"])
    for server, problem in sorted(data["problems"].items()):
        output.show(f"slice {server}: {problem}")
    for node, problem in sorted(data["away"].items()):
        output.show(f"node {node} is away: {problem}")
    output.show(f"moves left within this hour: {data['moves_left']}")


def plan(
    whole: WholeOption = False,
    seconds: Seconds = 10,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Show what would change on the GPUs now, step by step, each with its reason. Nothing is changed.

    Example: tritonfleet placement plan --whole
    """
    query = {"whole": "true", "seconds": str(seconds)} if whole else {}
    with ControlPlaneClient(url, token) as client, output.Spinner("planning"):
        data = client.get("/v1/placement/plan", **query)
    if as_json:
        output.print_json(data)
    else:
        _show_plan(data)


def apply(
    seconds: Seconds = 10,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Carry out the best plan for the whole fleet: every replica serves from its new slice before it leaves the old.

    Newcomers are placed without it. What does not fit the budget of moves is left for later.

    Example: tritonfleet placement apply
    """
    _apply("whole", seconds, ControlPlaneClient(url, token), as_json=as_json)


def defrag(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would free.")] = False,
    seconds: Seconds = 10,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Move replicas together, so that whole GPUs and room for larger slices become free.

    Example: tritonfleet placement defrag --dry-run
    """
    if not dry_run:
        _apply("defragmentation", seconds, ControlPlaneClient(url, token), as_json=as_json)
        return
    with ControlPlaneClient(url, token) as client, output.Spinner("planning"):
        data = client.get("/v1/placement/defragmentation", seconds=str(seconds))
    if as_json:
        output.print_json(data)
        return
    output.show(
        f"empty GPUs: {data['empty_before']} now, {data['empty_after']} after {len(data['plan']['moved'])} moves"
    )
    rows = [(it["product"], it["profile"], str(it["before"]), str(it["after"])) for it in data["room"]]
    if rows:
        output.show(output.table(["product", "profile", ">fit now", ">fit after"], rows))
    _show_plan(data["plan"])


def explain(
    name: Annotated[
        str, typer.Argument(help="The deployment, or one replica as NAME/0.", autocompletion=completion.deployments)
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Tell why each replica is on its slice and not elsewhere, or what would give it one.

    Example: tritonfleet placement explain text_embedding
    """
    deployment, _, number = name.partition("/")
    with ControlPlaneClient(url, token) as client:
        data = client.get(f"/v1/placement/replicas/{segment(deployment)}")
    data["replicas"] = [it for it in data["replicas"] if not number or it["replica"] == name]
    if not data["replicas"]:
        raise typer.BadParameter(f"{deployment} has no replica {number}")
    if as_json:
        output.print_json(data)
        return
    for it in data["replicas"]:
        where = f"{it['profile']} at {it['start']} of {it['gpu']}" if it["gpu"] is not None else "nowhere"
        output.show(f"{it['replica']}: {where}. {it['reason']}")
        if it["remedy"]:
            output.show(f"  it takes {it['remedy']}")
        output.show(output.table(["not on", "because it"], [(no["gpu"], no["reason"]) for no in it["elsewhere"]]))
    for reason in data["impossible"]:
        output.show(f"  no slice: {reason}")


def _apply(kind: str, seconds: float, client: ControlPlaneClient, *, as_json: bool) -> None:
    with client, output.Spinner("planning"):
        data = client.post("/v1/placement/apply", kind=kind, seconds=str(seconds))
    if as_json:
        output.print_json(data)
        return
    _show_plan(data["plan"])
    if data["changed"]:
        output.show(f"{data['changed']} slices change now; `tritonfleet placement show` tells how far it is")


def _show_plan(data: dict[str, Any]) -> None:
    rows = [
        (it["step"], it["gpu"][-6:], f"{it['profile']} at {it['start']}", it["replica"], it["reason"])
        for it in data["steps"]
    ]
    if rows:
        output.show(output.table(["step", "GPU", "slice", "replica", "reason"], rows))
    else:
        output.show("nothing is to be done")
    for it in data["geometries"]:
        output.show(f"{it['gpu']}\n  before {it['before']}\n  after  {it['after']}")
    _show_rejected(data["rejected"])
    if data["bound"] is not None:
        proof = "proved to be the least" if data["gap"] == 0 else f"at most {data['gap']:.2%} above the least"
        output.show(f"cost {data['cost']['total'] - data['cost']['fragmentation']:g}, {proof}")


def _show_rejected(rejected: list[dict[str, Any]]) -> None:
    rows = [(it["replica"], it["reason"], it["remedy"]) for it in rejected]
    if rows:
        output.show(output.table(["without a slice", "because", "it takes"], rows))


def _listed(words: list[str]) -> str:
    return ", ".join(words) or "nothing"
