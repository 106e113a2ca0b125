"""An agent over made-up GPUs as a process of its own, which kills itself at a point: for `agent_kills`.

Arguments: a folder with `repository` and `tls`, the port, and the point; none of the points lives on.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control_plane.adapters.simulated_host import SimulatedHost
from control_plane.answering import until_signalled
from control_plane.embedded import EmbeddedServer, Ownership
from control_plane.node import LocalNode, NodePlan
from control_plane.node.agent import running_agent
from control_plane.state import ServerId
from control_plane.tls import TlsFiles

DRIVER = (
    "nvmlDeviceSetMigMode",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceDestroy",
)
POINTS = (
    *(f"{when}-{call}" for call in DRIVER for when in ("before", "after")),
    *("while-starting", "before-kept", "after-kept", "before-stop", "after-stop"),
)
_STARTING_S = 0.15


def die() -> None:
    """End as by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingNode(LocalNode):
    """A node that dies around the start or the end of a server."""

    point = ""

    def _keep(self, server: EmbeddedServer) -> None:
        if self.point == "before-kept":
            die()
        super()._keep(server)
        if self.point == "after-kept":
            die()

    async def _stop(self, server: ServerId) -> None:
        there = server in self._servers
        if there and self.point == "before-stop":
            die()
        await super()._stop(server)
        if there and self.point == "after-stop":
            die()


def dying(call: Callable[..., int], *, before: bool, after: bool) -> Callable[..., int]:
    """Return a call of the driver that ends the process before or after it is done."""

    def made(*given: Any) -> int:
        if before:
            die()
        code = call(*given)
        if after:
            die()
        return code

    return made


async def main(folder: Path, port: int, point: str) -> None:
    """Answer until a signal comes, or the point."""
    host = SimulatedHost({"h100-80gb": 2}, folder / "gpus.json")
    for name in DRIVER:
        call = dying(getattr(host.library, name), before=point == f"before-{name}", after=point == f"after-{name}")
        setattr(host.library, name, call)
    if point == "while-starting":
        loop, made = asyncio.get_running_loop(), host.library.nvmlGpuInstanceCreateComputeInstance

        def then_start(*given: Any) -> int:
            loop.call_soon_threadsafe(loop.call_later, _STARTING_S, die)
            return made(*given)

        setattr(host.library, "nvmlGpuInstanceCreateComputeInstance", then_start)  # noqa: B010 - for mypy
    plan = NodePlan("gpu1", folder / "repository", folder / "slices", Ownership.ADOPTABLE, simulated=True)
    files = TlsFiles(folder / "tls" / "authority.pem", folder / "tls" / "gpu1.pem", folder / "tls" / "gpu1.key")
    node = DyingNode(host, plan)
    node.point = point
    async with node, running_agent(node, ("127.0.0.1", port), files) as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        await running.task


if __name__ == "__main__":
    asyncio.run(until_signalled(lambda: main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
