"""What the control plane relies on of an embedded tritonserver, against the real one."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from control_plane.embedded import EmbeddedFleet, EmbeddedServer, ServerSpec, ServerState
from control_plane.embedded.command import port_of
from control_plane.state import Server, ServerId
from tests.embedded_triton import alive_of, call, infer, load, record_of, write_model, zombies_of_this_process


def spec(repository: Path, name: str = "a") -> ServerSpec:
    return ServerSpec(ServerId(name), repository)


def test_starts_serves_and_leaves_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "repository")
    states: list[ServerState] = []

    async def scenario() -> list[str]:
        async with EmbeddedFleet([spec(tmp_path / "repository")], tmp_path / "run") as fleet:
            server = fleet.servers()[0]
            states.append(server.state)
            await server.wait_ready(deadline_s=1)
            assert await asyncio.to_thread(load, server.server, "echo") == (200, "")
            status, body = await asyncio.to_thread(infer, server.server, "echo", 7.0)
            assert (status, '"data":[7.0]' in body) == (200, True)
            assert call(server.server.endpoints.metrics, "GET", "/metrics")[0] == 200
            record = record_of(server)
            assert server.record_path.stat().st_mode & 0o777 == 0o600
            assert any("Started HTTPService" in line for line in server.log_tail(20))
        states.append(server.state)
        return alive_of(record)

    assert asyncio.run(scenario()) == []
    assert states == [ServerState.READY, ServerState.STOPPED]
    assert zombies_of_this_process() == []
    assert sorted(path.name for path in (tmp_path / "run" / "a").iterdir()) == ["supervisor.lock", "tritonserver.log"]


def test_a_temporary_runtime_folder_goes_with_the_fleet(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()

    async def scenario() -> Path:
        async with EmbeddedFleet([spec(tmp_path / "repository")]) as fleet:
            return fleet.servers()[0].record_path.parent.parent

    assert not asyncio.run(scenario()).exists()


def test_the_repository_api_wants_the_key(tmp_path: Path) -> None:
    write_model(tmp_path / "repository")

    def scenario(server: Server) -> None:
        index = ("POST", "/v2/repository/index")
        assert call(server.endpoints.http, *index)[0] == 403
        assert call(server.endpoints.http, *index, headers={"triton-admin-key": "wrong"})[0] == 403
        assert call(server.endpoints.http, *index, headers={"triton-admin-key": server.admin_key or ""})[0] == 200
        for path in ("/v2/systemsharedmemory/status", "/v2/models/stats", "/v2/trace/setting", "/v2/logging"):
            assert call(server.endpoints.http, "GET", path)[0] == 403, path
        for path in ("/v2/health/live", "/v2/health/ready", "/v2"):
            assert call(server.endpoints.http, "GET", path)[0] == 200, path
        client = triton_grpc.InferenceServerClient(server.endpoints.grpc)
        try:
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.get_model_repository_index(client_timeout=10)
            key = {"triton-grpc-protocol-admin-key": server.admin_key}
            assert len(client.get_model_repository_index(headers=key, client_timeout=10).models) == 1
            assert client.is_server_live(client_timeout=10)
        finally:
            client.close()

    asyncio.run(with_server(tmp_path, scenario))


def test_only_loopback_reaches_it(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()

    def scenario(server: Server) -> None:
        # The whole of 127/8 is this machine: a server that listened on every address would answer there.
        for endpoint in (server.endpoints.http, server.endpoints.grpc, server.endpoints.metrics):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port_of(endpoint)), timeout=5)

    asyncio.run(with_server(tmp_path, scenario))


def test_two_servers_at_once(tmp_path: Path) -> None:
    write_model(tmp_path / "repository")

    async def scenario() -> None:
        specs = [spec(tmp_path / "repository", "a"), spec(tmp_path / "repository", "b")]
        async with EmbeddedFleet(specs) as fleet:
            one, two = (server.server for server in fleet.servers())
            endpoints = {
                getattr(server.endpoints, name) for server in (one, two) for name in ("http", "grpc", "metrics")
            }
            assert len(endpoints) == 6
            assert one.admin_key != two.admin_key
            assert (await asyncio.to_thread(load, one, "echo"))[0] == 200
            assert (await asyncio.to_thread(infer, one, "echo"))[0] == 200
            assert (await asyncio.to_thread(infer, two, "echo"))[0] == 404  # each has its own models

    asyncio.run(scenario())


def test_the_cause_of_a_failed_load_is_in_the_log(tmp_path: Path) -> None:
    batching = "dynamic_batching { preferred_batch_size: [64] }\n"
    write_model(tmp_path / "repository", "broken", more_config=batching)

    async def scenario(server: EmbeddedServer) -> None:
        mark = server.log_mark()
        status, body = await asyncio.to_thread(load, server.server, "broken")
        assert (status, "failed to poll from model repository" in body) == (500, True)
        log = await server.log_since(mark)
        assert any("dynamic batching preferred size must be <= max batch size" in line for line in log), log
        assert not any("Started HTTPService" in line for line in log)

    async def fleet() -> None:
        async with EmbeddedFleet([spec(tmp_path / "repository")]) as servers:
            await scenario(servers.servers()[0])

    asyncio.run(fleet())


def test_a_broken_model_takes_no_readiness_away(tmp_path: Path) -> None:
    write_model(tmp_path / "repository")
    (tmp_path / "repository" / "echo" / "1" / "model.py").write_text("raise RuntimeError('no')\n")

    def scenario(server: Server) -> None:
        assert load(server, "echo")[0] == 400
        assert call(server.endpoints.http, "GET", "/v2/health/live")[0] == 200
        assert call(server.endpoints.http, "GET", "/v2/health/ready")[0] == 200

    asyncio.run(with_server(tmp_path, scenario))


async def with_server(folder: Path, scenario: Callable[[Server], None]) -> None:
    """Run a blocking scenario beside the supervision."""
    async with EmbeddedFleet([spec(folder / "repository")]) as fleet:
        await asyncio.to_thread(scenario, fleet.servers()[0].server)
