"""`python -m tests.bench.deploy_overhead`: from the REST call to serving, against Triton's own load call, in turns.

One control plane over one embedded tritonserver, and small Python models that are all alike. Each round deploys one
through REST (`?wait=`, so the answer comes once it is observed to serve) and loads another by Triton's own gRPC call
on the same server; the order alternates. What is between the two is pinning, placing, the journal on disk, and looking
at the server before and after. What Triton loaded by itself is unloaded between the rounds, before the control plane
does that, and both begin with nothing under way.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from tritonclient.grpc.aio import InferenceServerClient

from control_plane.bootstrap import running_control_plane
from control_plane.settings import Settings
from tests.small_models import multiplier

ADMIN = "triton-grpc-protocol-admin-key"


async def measure(rounds: int, root: Path) -> tuple[list[float], list[float]]:
    """Return the seconds of each deploy, and of each of Triton's own loads."""
    repository = root / "repository"
    for number in range(rounds):
        multiplier(repository, f"deployed{number}", 2.0)
        multiplier(repository, f"loaded{number}", 2.0)
    settings = Settings(port=0, model_repository=repository, state_path=root / "state.db")
    deploys: list[float] = []
    loads: list[float] = []
    async with (
        running_control_plane(settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=60, trust_env=False) as rest,
    ):
        server = running.fleet.servers()[0].server
        async with InferenceServerClient(server.endpoints.grpc) as triton:

            async def deploy(number: int) -> None:
                begun = time.perf_counter()
                model = f"deployed{number}"
                answer = await rest.post("/v1/deployments?wait=60", json={"name": model, "model": model})
                deploys.append(time.perf_counter() - begun)
                assert answer.json()["status"]["state"] == "serving", answer.text

            async def load(number: int) -> None:
                begun = time.perf_counter()
                await triton.load_model(f"loaded{number}", headers={ADMIN: server.admin_key or ""}, client_timeout=60.0)
                loads.append(time.perf_counter() - begun)
                await triton.unload_model(f"loaded{number}", headers={ADMIN: server.admin_key or ""})

            async def at_rest() -> None:
                for _ in range(2):
                    running.control.reconciler.wake()
                    await running.control.reconciler.pass_ended()
                await running.control.reconciler.executions_ended()

            for number in range(rounds):
                for step in (deploy, load) if number % 2 else (load, deploy):
                    await at_rest()
                    await step(number)
    return deploys[1:], loads[1:]  # the first of each warms up


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="deploy_overhead_") as folder:
        deploys, loads = asyncio.run(measure(options.rounds, Path(folder)))
    table = Table("", "median ms", "fastest ms", "slowest ms")
    for name, seconds in (("REST call to serving", deploys), ("Triton's own load call", loads)):
        figures = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(name, *(f"{figure * 1000:.0f}" for figure in figures))
    Console().print(table)
    added = statistics.median(deploys) - statistics.median(loads)
    sys.stdout.write(f"added: {added * 1000:.0f} ms (aim: under 50 ms), {len(deploys)} rounds\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
