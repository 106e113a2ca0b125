"""`python -m tests.bench.reload_under_load`: ten reloads of the encoder while clients go on asking.

The same load runs twice against one server, first undisturbed, then while the encoder is loaded again and again with a
changed config. Prints failures, latencies, and how far the slowest request is above the undisturbed norm.
"""

import argparse
import asyncio
import os
import sys
import time
from dataclasses import asdict

import tritonclient.grpc.aio
from rich.console import Console
from rich.table import Table

from builders.pbtxt import to_json
from control_plane.embedded import EmbeddedFleet, ServerSpec
from control_plane.state import ServerId
from tests.bench.common_ground import (
    ENCODER,
    MEMBERS,
    MODEL,
    REPOSITORY,
    admin,
    build_packages,
    corpus,
    newest,
    run_module,
)
from tests.bench.load_generator import LoadPlan, LoadReport

RELOADS = 10
CONCURRENCY = 2
ALLOWED_MS = 250.0


async def measure(seconds: float) -> tuple[LoadReport, LoadReport, list[float]]:
    """Return the undisturbed report, the one under reloads, and how long each reload took in seconds."""
    cpus = frozenset(os.sched_getaffinity(0))
    async with EmbeddedFleet([ServerSpec(ServerId("bench"), REPOSITORY)]) as fleet:
        server = fleet.servers()[0].server
        plan = asdict(LoadPlan(server.endpoints.grpc, MODEL, corpus(), CONCURRENCY, seconds))
        async with tritonclient.grpc.aio.InferenceServerClient(server.endpoints.grpc) as client:
            for model in MEMBERS:
                await client.load_model(model, headers=admin(server), config=config(model), client_timeout=120)
            norm = LoadReport(**await asyncio.to_thread(run_module, "load_generator", plan, cpus))
            plan["seconds"] = seconds = RELOADS * 6.0
            load = asyncio.create_task(asyncio.to_thread(run_module, "load_generator", plan, cpus))
            started = time.monotonic()
            took = []
            for number in range(RELOADS):
                await asyncio.sleep(max(0.0, started + 5 + number * (seconds - 8) / RELOADS - time.monotonic()))
                begun = time.monotonic()
                changed = config(ENCODER, number + 1)
                await client.load_model(ENCODER, headers=admin(server), config=changed, client_timeout=120)
                took.append(time.monotonic() - begun)
            if load.done():
                raise RuntimeError("the load ended before the last reload did; nothing was measured")
            return norm, LoadReport(**await load), took


def config(model: str, number: int = 0) -> str:
    """Return a model's config for the load call; another `number` makes it another config."""
    package = REPOSITORY / model
    nonce = f'parameters {{ key: "reload" value: {{ string_value: "{number}" }} }}\n' if number else ""
    text = (package / "config.pbtxt").read_text() + nonce
    return to_json(text, path=str(package), versions=[int(newest(package).name)])


def main() -> None:
    """Run the bench, print its table, and exit with 1 where a request failed or was too slow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the undisturbed run")
    arguments = parser.parse_args()
    build_packages()
    norm, loaded, took = asyncio.run(measure(arguments.seconds))
    table = Table(box=None)
    for heading in ("", "requests", "failed", "p50 ms", "p99 ms", "slowest ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, report in (("undisturbed", norm), (f"{RELOADS} reloads", loaded)):
        figures = (f"{value:.1f}" for value in (report.p50_ms, report.p99_ms, report.max_ms))
        table.add_row(name, str(report.completed), str(len(report.failures)), *figures)
    console = Console(width=110, highlight=False)
    console.print(table)
    beyond = loaded.max_ms - norm.max_ms
    console.print(f"slowest request beyond the slowest undisturbed one: {beyond:.0f} ms (allowed: {ALLOWED_MS:.0f} ms)")
    console.print(f"a reload took {min(took):.1f} to {max(took):.1f} s")
    if norm.failures or loaded.failures or beyond > ALLOWED_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
