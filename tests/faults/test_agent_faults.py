"""The agent killed -9 in the middle of its work, and what it does with those who show no certificate of ours."""

import asyncio
import ssl
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.agent_node import AgentNode
from control_plane.adapters.certificates import issue
from control_plane.adapters.simulated_host import SimulatedHost
from control_plane.errors import ServerUnreachableError
from control_plane.node import LocalNode, NodePlan
from control_plane.node.agent import running_agent
from control_plane.tls import TlsFiles, client_context
from tests.faults.agent_kills import live

SOME = ("after-nvmlDeviceCreateGpuInstanceWithPlacement", "while-starting", "after-nvmlComputeInstanceDestroy")
"""All of them take minutes: `python -m tests.faults.agent_kills`, of which these are a part."""


@pytest.mark.parametrize("point", SOME)
def test_an_agent_that_is_killed_converges_when_it_is_back(tmp_path: Path, point: str) -> None:
    assert asyncio.run(live(tmp_path, point)).died


def files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / "authority.pem", folder / f"{name}.pem", folder / f"{name}.key")


def test_nobody_talks_to_an_agent_without_a_certificate_of_its_authority(tmp_path: Path) -> None:
    list(issue(tmp_path / "ours", {"control": ("localhost",), "gpu1": ("127.0.0.1",)}, 1))
    list(issue(tmp_path / "theirs", {"control": ("localhost",), "gpu1": ("127.0.0.1",)}, 1))
    plan = NodePlan("gpu1", tmp_path, tmp_path / "slices", simulated=True)

    async def scenario() -> None:
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        async with (
            LocalNode(SimulatedHost({"h100-80gb": 1}), plan) as local,
            running_agent(local, ("127.0.0.1", 0), files(ours, "gpu1")) as agent,
        ):
            node = AgentNode("gpu1", agent.url, client_context(files(ours, "control")))
            assert [gpu.product.compute_capability for gpu in (await node.look()).gpus] == ["9.0"]
            await node.close()
            stranger = AgentNode("gpu1", agent.url, client_context(files(theirs, "control")))
            with pytest.raises(ServerUnreachableError, match="cannot be reached"):
                await stranger.look()
            await stranger.close()
            bare = ssl.create_default_context(cafile=str(ours / "authority.pem"))
            async with httpx.AsyncClient(verify=bare) as nobody:
                with pytest.raises(httpx.TransportError):
                    await nobody.get(f"{agent.url}/v1/node")

    asyncio.run(scenario())
