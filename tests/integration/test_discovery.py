"""Servers that come and go with the file that names them, and one that a DNS name stands for: real tritonservers."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.bootstrap import running_control_plane
from control_plane.embedded import EmbeddedServer
from control_plane.settings import load_settings
from tests.serving import embedded_server
from tests.small_models import answer, multiplier

WITHIN_S = 40.0


def named(server: EmbeddedServer) -> dict[str, Any]:
    return {"id": server.server.id, "endpoints": asdict(server.server.endpoints), "admin_key": server.server.admin_key}


def behind_localhost(server: EmbeddedServer) -> dict[str, Any]:
    """Return the entry of a server by its ports at whatever `localhost` resolves to."""
    where = server.server.endpoints
    ports = {f"{it}_port": int(getattr(where, it).rpartition(":")[2]) for it in ("http", "grpc", "metrics")}
    return {"id": "local", "discover": {"dns": "localhost", **ports}, "admin_key": server.server.admin_key}


@pytest.mark.timeout(180)
def test_servers_that_are_written_into_the_file_serve_and_those_that_are_taken_out_are_let_go(tmp_path: Path) -> None:
    root, file = tmp_path / "repository", tmp_path / "servers.json"
    multiplier(root, "double", 2.0)

    async def scenario(first: EmbeddedServer, second: EmbeddedServer) -> None:
        given = {"port": 0, "servers": 0, "servers_file": file, "discovery_interval_s": 0.2, "model_repository": root}
        settings = load_settings({**given, "state_path": tmp_path / "state.db"})
        async with running_control_plane(settings) as running, httpx.AsyncClient(base_url=running.url) as client:

            async def until(reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
                async with asyncio.timeout(WITHIN_S):
                    while True:
                        body: dict[str, Any] = (await client.get("/v1/servers")).json()
                        if reached(body):
                            return body
                        await asyncio.sleep(0.1)

            def serving(body: dict[str, Any]) -> set[str]:
                return {it["id"] for it in body["servers"] if any(row["state"] == "READY" for row in it["models"])}

            new = {"name": "double", "model": "double"}
            assert (await client.post("/v1/deployments", params={"wait": 60}, json=new, timeout=90)).is_success
            await until(lambda it: serving(it) == {"own-0"})
            file.write_text(json.dumps([named(first), behind_localhost(second)]))
            both = await until(lambda it: serving(it) == {"own-0", "local-127-0-0-1"})
            sources = {it["id"]: it["source"] for it in both["servers"]}
            assert (sources["own-0"], sources["local-127-0-0-1"]) == ("file", "discovered")
            assert await asyncio.to_thread(answer, second.server, "double") == 2.0
            file.write_text("[{")
            broken = await until(lambda it: it["problems"] != [])
            assert serving(broken) == {"own-0", "local-127-0-0-1"}
            file.write_text(json.dumps([named(second)]))
            await until(lambda it: {"own-1", "local-127-0-0-1"} >= serving(it) >= {"own-1"} and it["problems"] == [])
            assert await asyncio.to_thread(answer, first.server, "double") == 2.0  # it goes on serving, unattended
            refused = await client.delete("/v1/servers/own-1")
            assert refused.status_code == 409
            assert "named by the file of servers" in refused.json()["causes"][0]

    with ExitStack() as stack:
        first, second = (stack.enter_context(embedded_server(root, name=f"own-{number}")) for number in range(2))
        file.write_text(json.dumps([named(first)]))
        asyncio.run(scenario(first, second))
