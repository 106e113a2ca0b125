"""GPUs that are cut for deployments: a real control plane over made-up GPUs, with a real tritonserver on each slice."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from control_plane.bootstrap import running_control_plane
from control_plane.settings import load_settings
from tests.faults.fleet_clients import Clients
from tests.small_models import multiplier

FACTORS = {"a": 2.0, "b": 3.0, "c": 5.0, "wide": 7.0, "half": 1.0, "rest": 1.0, "whole": 11.0}
MOVED = ("a", "b", "c")


async def deploy(client: httpx.AsyncClient, model: str, profile: str) -> None:
    body = {"name": model, "model": model, "replicas": {"min": 1}, "requirements": {"mig_profile": profile}}
    answer = await client.post("/v1/deployments", params={"wait": 60}, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"]["state"] == "serving", answer.text


async def servers(client: httpx.AsyncClient) -> dict[str, str]:
    """Return which model each server has ready."""
    rows: list[dict[str, Any]] = (await client.get("/v1/servers")).json()["servers"]
    return {it["id"]: ",".join(sorted(row["name"] for row in it["models"] if row["state"] == "READY")) for it in rows}


async def until_gone(client: httpx.AsyncClient, *models: str) -> None:
    for model in models:
        assert (await client.delete(f"/v1/deployments/{model}")).is_success
    for _ in range(300):
        if not set((await servers(client)).values()) & {*models, ""}:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"after a minute there is still one of {models}")


def test_a_geometry_changes_under_load_and_three_models_move_without_a_failed_request(tmp_path: Path) -> None:
    """One GPU holds a 4g, the other three 1g where they block that one's move: for a 7g the three must move."""
    for name, factor in FACTORS.items():
        multiplier(tmp_path / "repository", name, factor)
    settings = load_settings(
        {
            "port": 0,
            "model_repository": tmp_path / "repository",
            "state_path": tmp_path / "state.db",
            "simulate": "h100-80gb:2",
            "reconcile_interval_s": 1.0,
        }
    )

    async def scenario() -> None:
        async with (
            running_control_plane(settings) as running,
            httpx.AsyncClient(base_url=running.url, timeout=90) as client,
        ):
            await deploy(client, "wide", "4g.40gb")
            await deploy(client, "half", "3g.40gb")
            await deploy(client, "rest", "3g.40gb")
            for model in MOVED:
                await deploy(client, model, "1g.10gb")
            await until_gone(client, "half", "rest")
            before = {model: server for server, model in (await servers(client)).items()}
            assert len({before[it].split("-")[1] for it in MOVED}) == 1
            clients = Clients(running.url, {it: {FACTORS[it]} for it in (*MOVED, "wide")}, 20.0, 1)
            async with clients.running():
                tally = clients.begin_phase()
                await deploy(client, "whole", "7g.80gb")
                await clients.answered()
            after = {model: server for server, model in (await servers(client)).items()}
            assert tally.requests > 100
            assert (tally.failed_first, tally.wrong) == (0, 0), tally.examples
            assert sorted(it for it in before if after[it] != before[it]) == list(MOVED)
            assert after["whole"].endswith("-7g.80gb-0")

    asyncio.run(scenario())
    assert not any((tmp_path / "slices").iterdir()), "a server's folder is left"
