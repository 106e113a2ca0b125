"""`tritonfleet agent`: this machine's GPUs for a control plane elsewhere. `certificates`: what both need for it."""

import asyncio
import logging
import re
import socket
from pathlib import Path
from typing import Annotated

import typer

from control_plane.cli import output
from control_plane.mig.products import gpu_counts
from control_plane.tls import TlsFiles

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def agent(
    authority: Annotated[Path, typer.Option(help="PEM file of the authority that both sides trust.")],
    certificate: Annotated[Path, typer.Option(help="PEM file of this agent's certificate.")],
    key: Annotated[Path, typer.Option(help="PEM file of its private key.")],
    name: Annotated[
        str | None, typer.Option(help="What it is called (default: this host's name).", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to answer at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to answer at; 0 takes a free one.")] = 8710,
    repository: Annotated[
        Path, typer.Option("--model-repository", "-r", help="Folder that its tritonservers load from.")
    ] = Path("model_repository"),
    runtime: Annotated[
        Path, typer.Option(help="Folder of what runs; the next agent of it adopts the tritonservers that run on.")
    ] = Path(".tritonfleet/agent"),
    copies: Annotated[
        bool,
        typer.Option("--copies", help="The control plane copies versions into --model-repository, checked by digest."),
    ] = False,
    serve_on: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address that its tritonservers listen on. They have no TLS: mind who reaches it.",
        ),
    ] = "127.0.0.1",
    zone: Annotated[str, typer.Option(help="What it fails together with, for spreading replicas.")] = "",
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="PRODUCT:COUNT[,...]", help="Made-up GPUs in place of this machine's.", show_default=False
        ),
    ] = None,
    release: Annotated[
        bool,
        typer.Option("--release", help="Stop every tritonserver of --runtime, give its slice back, and end."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every action.")] = False,
) -> None:
    """Cut this machine's GPUs and run a tritonserver on each slice, as the control plane asks over mutual TLS.

    The tritonservers outlive it, however it ends, and are adopted by the next agent of the same --runtime.

    Example: tritonfleet agent --authority tls/authority.pem --certificate tls/gpu1.pem --key tls/gpu1.key
    """
    # Not at the top: it takes more than a second, which every other command would wait for too.
    from control_plane.adapters.nvml import NvmlHost  # noqa: PLC0415
    from control_plane.adapters.simulated_host import SimulatedHost  # noqa: PLC0415
    from control_plane.answering import until_signalled  # noqa: PLC0415
    from control_plane.embedded import Ownership  # noqa: PLC0415
    from control_plane.node import LocalNode, NodePlan  # noqa: PLC0415
    from control_plane.node.agent import running_agent  # noqa: PLC0415
    from control_plane.node.versions import NodeVersions  # noqa: PLC0415

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    called = name or socket.gethostname()
    if not _NAME.fullmatch(called):
        raise typer.BadParameter(f"--name takes letters, digits, '.', '_' and '-', and not {called!r}")
    if not repository.is_dir():
        raise typer.BadParameter(f"--model-repository: {repository} is no folder")
    counts = _counts(simulate) if simulate is not None else None
    runtime.mkdir(parents=True, exist_ok=True)
    machine = SimulatedHost(counts, runtime / "gpus.json") if counts is not None else NvmlHost()
    versions = NodeVersions(repository, runtime / "incoming") if copies else None
    plan = NodePlan(
        called, repository, runtime / "slices", Ownership.ADOPTABLE, zone, counts is not None, copies, serve_on
    )

    async def let_go() -> None:
        async with LocalNode(machine, plan) as node:
            for server in await node.release():
                output.show(f"stopped {server}")

    async def run() -> None:
        async with (
            LocalNode(machine, plan) as node,
            running_agent(node, (host, port), TlsFiles(authority, certificate, key), versions) as running,
        ):
            output.show(f"agent {called}: {running.url}")
            output.show(f"for the control plane: tritonfleet serve --agent {called}={running.url}")
            await running.task

    if release:
        asyncio.run(let_go())
        return
    asyncio.run(until_signalled(run))
    output.err.print("stopped; its tritonservers run on")


def certificates(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; an authority that is there already is used.")],
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME[=HOST,...]", help="Whom to make a certificate for, and where each answers."),
    ],
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long they are valid.")] = 365,
    as_json: output.AsJson = False,
) -> None:
    """Make an authority and certificates for the control plane and its agents, for mutual TLS between them.

    Give each machine its own NAME.pem and NAME.key, and authority.pem; keep authority.key to yourself.

    Example: tritonfleet certificates tls control gpu1=gpu1.example,10.0.0.5
    """
    from control_plane.adapters.certificates import issue  # noqa: PLC0415 - an extra

    asked: dict[str, tuple[str, ...]] = {}
    for word in names:
        who, _, hosts = word.partition("=")
        if not _NAME.fullmatch(who) or who == "authority":
            raise typer.BadParameter(f"a certificate is made for a name such as gpu1, and not for {who!r}")
        asked[who] = tuple(it for it in hosts.split(",") if it) or ("localhost", "127.0.0.1", "::1")
    made = [str(path) for path in issue(folder, asked, days)]
    if as_json:
        output.print_json(made)
    for path in made if not as_json else ():
        output.show(path)


def _counts(text: str) -> dict[str, int]:
    try:
        return gpu_counts(text)
    except ValueError as exc:
        raise typer.BadParameter(f"--simulate: {exc}") from exc
