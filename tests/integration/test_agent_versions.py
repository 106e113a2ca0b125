"""An agent with a folder of its own: versions are sent to it, checked, served from there, and not sent twice."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.agent_placer import AgentPlacer, RoutedPlacer
from control_plane.adapters.certificates import issue
from control_plane.adapters.server_repository import ServerRepository
from control_plane.adapters.simulated_host import SimulatedHost
from control_plane.adapters.slice_fleet import agent_location
from control_plane.bootstrap import running_control_plane
from control_plane.errors import DamagedVersionError, LocationError
from control_plane.node import LocalNode, NodePlan
from control_plane.node.agent import running_agent
from control_plane.node.versions import NodeVersions, pin_of
from control_plane.settings import load_settings
from control_plane.state import ModelName
from control_plane.tls import TlsFiles, client_context
from tests.small_models import answer, ensemble, multiplier

MODEL = ModelName("double")


def files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / "tls" / "authority.pem", folder / "tls" / f"{name}.pem", folder / "tls" / f"{name}.key")


@asynccontextmanager
async def an_agent(folder: Path) -> AsyncIterator[str]:
    """Run an agent whose folder is empty, beside the repository of the control plane."""
    multiplier(folder / "repository", "double", 2.0)
    multiplier(folder / "repository", "triple", 3.0)
    ensemble(folder / "repository", "sixfold", "double", "triple")
    for name in ("double", "triple", "sixfold"):
        (folder / "repository" / name / "1" / "__pycache__").touch()
    list(issue(folder / "tls", {"control": ("localhost",), "gpu1": ("127.0.0.1",)}, 1))
    own = folder / "agent" / "models"
    own.mkdir(parents=True)
    plan = NodePlan("gpu1", own, folder / "agent" / "slices", simulated=True, takes_versions=True)
    versions = NodeVersions(own, folder / "agent" / "incoming")
    async with (
        LocalNode(SimulatedHost({"h100-80gb": 1}), plan) as node,
        running_agent(node, ("127.0.0.1", 0), files(folder, "gpu1"), versions) as agent,
    ):
        yield agent.url


def test_what_is_deployed_is_copied_to_the_agents_folder_and_served_from_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with an_agent(tmp_path) as url:
            settings = load_settings(
                {
                    "port": 0,
                    "model_repository": tmp_path / "repository",
                    "state_path": tmp_path / "state.db",
                    "agents": f"gpu1={url}",
                    "agent_authority": tmp_path / "tls" / "authority.pem",
                    "agent_certificate": tmp_path / "tls" / "control.pem",
                    "agent_key": tmp_path / "tls" / "control.key",
                    "reconcile_interval_s": 1.0,
                }
            )
            async with (
                running_control_plane(settings) as running,
                httpx.AsyncClient(base_url=running.url, timeout=90) as client,
            ):
                made = await client.post("/v1/deployments", params={"wait": 60}, json={"name": "d", "model": "sixfold"})
                assert made.json()["status"]["state"] == "serving", made.text
                (server,) = running.control.reconciler.view.by_id.values()
                assert server.server.repository == agent_location("gpu1")
                assert await asyncio.to_thread(answer, server.server, "sixfold") == 6.0
            own = tmp_path / "agent" / "models"
            assert sorted(it.name for it in own.iterdir() if not it.name.startswith(".")) == [
                "double",
                "sixfold",
                "triple",
            ]
            assert not list((tmp_path / "agent" / "incoming").iterdir())

    asyncio.run(scenario())


def test_a_version_is_sent_once_listed_and_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with an_agent(tmp_path) as url:
            there = Path(agent_location("gpu1"))
            agent = AgentPlacer("gpu1", url, client_context(files(tmp_path, "control")))
            placer = RoutedPlacer(ServerRepository(), {agent_location("gpu1"): agent})

            def work() -> None:
                source = tmp_path / "repository"
                assert placer.place(source, there, MODEL, 1).bytes > 0
                assert placer.place(source, there, MODEL, 1).bytes == 0
                (row,) = placer.installed(there)
                assert (row.pin.model, row.pin.version, row.ours) == ("double", 1, True)
                placer.note_needed(there, [row.pin])
                assert placer.remove(there, MODEL, 1)
                assert placer.installed(there) == ()
                here = tmp_path / "here"
                here.mkdir()
                assert placer.place(source, here, MODEL, 1).bytes > 0
                with pytest.raises(DamagedVersionError):
                    placer.place(source, there, MODEL, 9)

            with closing(agent):
                await asyncio.to_thread(work)

    asyncio.run(scenario())


@pytest.mark.parametrize("model", ["..", ".hidden", "a/b", ""])
def test_what_does_not_name_a_model_or_did_not_arrive_whole_changes_nothing(tmp_path: Path, model: str) -> None:
    versions = NodeVersions(tmp_path / "models", tmp_path / "incoming")
    (tmp_path / "models").mkdir()
    with pytest.raises(LocationError):
        versions.receive(pin_of(model, 1), io.BytesIO())
    with pytest.raises(DamagedVersionError, match="did not arrive whole"):
        versions.receive(pin_of("m", 1), io.BytesIO(b"no tar file"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"))
    packed.seek(0)
    with pytest.raises(DamagedVersionError):
        versions.receive(pin_of("m", 1), packed)
    assert [it.name for it in tmp_path.iterdir() if it.name not in {"models", "incoming"}] == []
    assert list((tmp_path / "models").iterdir()) == []
