"""The agent killed -9 at each step of cutting a slice and of giving it back, and started again: it converges.

    python -m tests.faults.agent_kills        every point, a table

For each point: a model is deployed on a slice and undeployed again; the agent dies at the point, with its tritonserver
living on, and a next one takes over. Afterwards the model has served, and nothing is left: no slice, no tritonserver,
no folder.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from control_plane.adapters.certificates import issue
from control_plane.bootstrap import running_control_plane
from control_plane.settings import Settings
from tests.faults.agent_main import POINTS
from tests.small_models import multiplier

_DEADLINE_S = 90.0


@dataclass(frozen=True, slots=True)
class Life:
    """What became of one kill: seconds until it served, and until nothing was left. `died` tells that it was killed."""

    point: str
    died: bool
    served_s: float
    cleared_s: float


class Agent:
    """An agent process that can be started again over the same GPUs."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, point: str) -> None:
        """Start it; it dies at the point."""
        command = [sys.executable, "-m", "tests.faults.agent_main", str(self._folder), str(self._port), point]
        with (self._folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def is_dead(self) -> bool:
        """Whether it was killed."""
        return self._process is not None and self._process.poll() == -signal.SIGKILL

    def stop(self) -> None:
        """End it; its tritonservers live on."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)


def instances(folder: Path) -> int:
    """Count the GPU instances that are cut."""
    path = folder / "gpus.json"
    return sum(len(it["instances"]) for it in json.loads(path.read_text()).values()) if path.exists() else 0


def tritonservers(folder: Path) -> list[psutil.Process]:
    """Return the tritonservers that serve from a folder."""
    wanted = f"--model-repository={folder / 'repository'}"
    return [it for it in psutil.process_iter(["cmdline"]) if wanted in (it.info["cmdline"] or ())]


async def live(folder: Path, point: str) -> Life:
    """Deploy and undeploy a model while the agent dies at the point and a next one takes over."""
    multiplier(folder / "repository", "double", 2.0)
    list(issue(folder / "tls", {"control": ("localhost",), "gpu1": ("127.0.0.1",)}, 1))
    with socket.socket() as probe:  # the agent has the same port in each of its lives
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    settings = Settings(
        port=0,
        model_repository=folder / "repository",
        state_path=folder / "state.db",
        reconcile_interval_s=0.5,
        agents=f"gpu1=https://127.0.0.1:{port}",
        agent_authority=folder / "tls" / "authority.pem",
        agent_certificate=folder / "tls" / "control.pem",
        agent_key=folder / "tls" / "control.key",
    )
    agent = Agent(folder, port)
    agent.start(point)
    died = False

    async def until(reached: Callable[[], Awaitable[bool]]) -> float:
        nonlocal died
        begun = time.monotonic()
        while not await reached():
            if agent.is_dead and not died:
                died = True
                agent.start("none")
            if time.monotonic() - begun > _DEADLINE_S:
                raise AssertionError(f"killed at {point}, and after {_DEADLINE_S:g} s it is not as it should be")
            await asyncio.sleep(0.1)
        return time.monotonic() - begun

    try:
        async with running_control_plane(settings) as running, httpx.AsyncClient(base_url=running.url) as client:

            async def deployment() -> dict[str, Any]:
                found: dict[str, Any] = (await client.get("/v1/deployments/d")).json()
                return found

            async def serves() -> bool:
                return bool((await deployment())["status"]["state"] == "serving")

            async def cleared() -> bool:
                listed = (await client.get("/v1/servers")).json()["servers"]
                return not listed and not instances(folder) and not tritonservers(folder)

            async def accepted() -> bool:
                made = await client.post("/v1/deployments", json={"name": "d", "model": "double"})
                assert made.is_success or "gpu1" in made.text, made.text
                return made.is_success

            await until(accepted)  # from when the agent was seen
            served_s = await until(serves)
            assert (instances(folder), len(tritonservers(folder))) == (1, 1)
            assert (await client.delete("/v1/deployments/d")).is_success
            cleared_s = await until(cleared)
    finally:
        agent.stop()
        for process in tritonservers(folder):
            process.kill()
    assert not any((folder / "slices").iterdir()), "a server's folder is left"
    return Life(point, died, served_s, cleared_s)


def main() -> int:
    """Go through every point and print a table; 1 where one did not converge, or its kill never came."""
    worst = 0
    sys.stdout.write(f"{'killed at':48}{'served s':>10}{'cleared s':>11}\n")
    for point in POINTS:
        with TemporaryDirectory() as folder:
            try:
                life = asyncio.run(live(Path(folder), point))
            except AssertionError as error:
                sys.stdout.write(f"{point:48}{error}\n")
                worst = 1
                continue
        worst |= not life.died
        missed = "" if life.died else "  (the kill never came)"
        sys.stdout.write(f"{point:48}{life.served_s:10.1f}{life.cleared_s:11.1f}{missed}\n")
        sys.stdout.flush()
    return worst


if __name__ == "__main__":
    sys.exit(main())
