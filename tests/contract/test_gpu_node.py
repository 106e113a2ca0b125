"""What every `GpuNode` must do: the one on this machine, and the same behind an agent over mutual TLS.

Made-up GPUs, the real NVML adapter, and a real tritonserver on each slice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.agent_node import AgentNode
from control_plane.adapters.certificates import issue
from control_plane.adapters.simulated_host import SimulatedHost
from control_plane.embedded import Ownership
from control_plane.mig import Placement
from control_plane.mig.host import NoInstanceError, PlacementTakenError
from control_plane.node import LocalNode, NodePlan
from control_plane.node.agent import running_agent
from control_plane.nodes import GpuNode, NodeSlice
from control_plane.slicing import GpuId, Seat
from control_plane.state import Server, ServerId
from control_plane.tls import TlsFiles, client_context
from tests.small_models import multiplier

KINDS = ("local", "agent")


@dataclass(frozen=True)
class Place:
    """A node of two H100s, and where it keeps what runs."""

    node: GpuNode
    gpus: tuple[GpuId, ...]

    def slice(self, name: str, profile: str, start: int, gpu: int = 0) -> NodeSlice:
        return NodeSlice(ServerId(name), Seat(self.gpus[gpu], Placement(start, profile)))

    async def geometry(self, gpu: int = 0) -> tuple[Placement, ...]:
        return (await self.node.look()).gpus[gpu].geometry


@asynccontextmanager
async def opened(kind: str, folder: Path, ownership: Ownership = Ownership.BOUND) -> AsyncIterator[Place]:
    if not (folder / "repository").exists():
        multiplier(folder / "repository", "double", 2.0)
        list(issue(folder / "tls", {"control": ("localhost",), "gpu1": ("127.0.0.1",)}, 1))
    plan = NodePlan(
        "gpu1", folder / "repository", folder / "slices", ownership, "zone-a", simulated=True, address="127.0.0.2"
    )

    def files(name: str) -> TlsFiles:
        return TlsFiles(
            folder / "tls" / "authority.pem", folder / "tls" / f"{name}.pem", folder / "tls" / f"{name}.key"
        )

    async with LocalNode(SimulatedHost({"h100-80gb": 2}, folder / "gpus.json"), plan) as local:
        gpus = tuple(GpuId(gpu.uuid) for gpu in (await local.look()).gpus)
        if kind == "local":
            yield Place(local, gpus)
            return
        async with running_agent(local, ("127.0.0.1", 0), files("gpu1")) as agent:
            node = AgentNode("gpu1", agent.url, client_context(files("control")))
            yield Place(node, gpus)
            await node.close()


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Place], Awaitable[None]]], None]:
    def body(scenario: Callable[[Place], Awaitable[None]]) -> None:
        async def inside() -> None:
            async with opened(request.param, tmp_path) as place:
                await scenario(place)

        asyncio.run(inside())

    return body


async def lives(server: Server) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://{server.endpoints.http}/v2/health/live")).is_success
        except httpx.TransportError:
            return False


async def version(server: Server) -> str:
    async with httpx.AsyncClient() as client:
        return str((await client.get(f"http://{server.endpoints.http}/v2")).json()["version"])


Run = Callable[[Callable[[Place], Awaitable[None]]], None]


def test_it_tells_its_gpus_and_what_a_server_on_a_slice_would_be(run: Run) -> None:
    async def scenario(place: Place) -> None:
        view = await place.node.look()
        assert [(gpu.mig, gpu.geometry, gpu.product.compute_capability) for gpu in view.gpus] == [
            (False, (), "9.0")
        ] * 2
        assert (view.zone, view.simulated, dict(view.servers)) == ("zone-a", True, {})
        assert "python" in view.pattern.backends
        assert view.pattern.compute_capabilities == ()

    run(scenario)


def test_a_slice_is_cut_with_a_server_on_it_once_and_given_back_whole(run: Run) -> None:
    async def scenario(place: Place) -> None:
        wanted, view = place.slice("s", "3g", 4), await place.node.look()
        server = await place.node.create(wanted)
        assert await lives(server)
        assert server.endpoints.http.startswith("127.0.0.2:"), "not where others listen"
        assert await version(server) == view.triton_version
        assert await place.node.create(wanted) == server, "it is there already"
        view = await place.node.look()
        assert view.gpus[0].geometry == (Placement(4, "3g"),)
        assert view.servers == {"s": server}
        (instance,) = view.gpus[0].instances
        assert instance.uuid.startswith("MIG-")
        assert instance.processes, "the tritonserver uses it"
        assert await place.node.restart(wanted.server, "for a test")
        assert await lives(server)
        await place.node.destroy(wanted)
        assert not await lives(server)
        assert await place.geometry() == ()
        await place.node.destroy(wanted)  # there is nothing left, and that is what was asked

    run(scenario)


def test_what_cannot_be_is_told_by_its_cause(run: Run) -> None:
    async def scenario(place: Place) -> None:
        await place.node.create(place.slice("s", "1g", 0))
        with pytest.raises(PlacementTakenError):
            await place.node.create(place.slice("t", "4g", 0))
        with pytest.raises(NoInstanceError, match="no GPU"):
            await place.node.create(NodeSlice(ServerId("u"), Seat(GpuId("GPU-none"), Placement(0, "1g"))))
        assert await place.geometry() == (Placement(0, "1g"),)
        assert not await place.node.restart(ServerId("t"), "it is not there")

    run(scenario)


def test_a_next_node_adopts_the_servers_of_slices_that_are_there_and_ends_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened("local", tmp_path, Ownership.ADOPTABLE) as place:
            kept = await place.node.create(place.slice("kept", "1g", 0))
            lost = await place.node.create(place.slice("lost", "1g", 1))
        assert await lives(kept)
        assert await lives(lost)
        host = SimulatedHost({"h100-80gb": 2}, tmp_path / "gpus.json")
        host.gpus()
        host.library.gpus[0].instances = {
            number: it for number, it in host.library.gpus[0].instances.items() if it.placement.start == 0
        }
        host.keep()  # as if somebody had destroyed it by hand
        async with opened("local", tmp_path, Ownership.ADOPTABLE) as place:
            assert dict((await place.node.look()).servers) == {"kept": kept}
            assert await lives(kept)
            assert not await lives(lost)
            await place.node.destroy(place.slice("kept", "1g", 0))
        assert not await lives(kept)

    asyncio.run(scenario())
