"""What a control plane must survive or tell: killed servers, a killed control plane, taken ports, broken models."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from control_plane.bootstrap import RunningControlPlane, running_control_plane, serve
from control_plane.errors import ControlPlaneError, PortTakenError, StateFileLockedError
from control_plane.settings import Settings, load_settings
from control_plane.state import Endpoints, Server, ServerId
from tests.small_models import answer, ensemble, multiplier

ROOT = Path(__file__).parents[2]
HEAL_S = 15.0

Scenario = Callable[[RunningControlPlane, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    multiplier(root, "double", 2.0)
    multiplier(root, "triple", 3.0)
    ensemble(root, "sixfold", "double", "triple")
    return root


@pytest.fixture
def settings(tmp_path: Path, repository: Path) -> Settings:
    return load_settings(
        {"port": 0, "model_repository": repository, "state_path": tmp_path / "state.db", "load_deadline_s": 30}
    )


def run(settings: Settings, scenario: Scenario) -> None:
    async def body() -> None:
        async with running_control_plane(settings) as running, httpx.AsyncClient(base_url=running.url) as client:
            client.timeout = httpx.Timeout(90)
            await scenario(running, client)

    asyncio.run(body())


async def deploy(client: httpx.AsyncClient, name: str, model: str) -> dict[str, Any]:
    response = await client.post("/v1/deployments", params={"wait": 60}, json={"name": name, "model": model})
    body: dict[str, Any] = response.json()
    assert response.status_code == 201, body
    return body


def server_of(body: dict[str, Any]) -> Server:
    where = body["endpoints"]
    return Server(ServerId(body["id"]), Endpoints(where["http"], where["grpc"], where["metrics"]))


def seconds_until_it_answers(server: Server, model: str, expected: float) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < HEAL_S:
        try:
            assert answer(server, model) == expected
        except InferenceServerException:
            time.sleep(0.1)
        else:
            break
    return time.monotonic() - begun


def tritonservers(parent: int) -> list[psutil.Process]:
    return [it for it in psutil.Process(parent).children(recursive=True) if it.name() == "tritonserver"]


def test_a_killed_tritonserver_is_back_with_its_models_and_right_answers(settings: Settings) -> None:
    async def scenario(_: RunningControlPlane, client: httpx.AsyncClient) -> None:
        assert (await deploy(client, "d", "sixfold"))["status"]["state"] == "serving"
        server = server_of((await client.get("/v1/servers")).json()["servers"][0])
        assert await asyncio.to_thread(answer, server, "sixfold") == 6.0
        (process,) = tritonservers(os.getpid())
        process.kill()
        await asyncio.to_thread(process.wait, 5)
        assert await asyncio.to_thread(seconds_until_it_answers, server, "sixfold", 6.0) < HEAL_S

    run(settings, scenario)


def test_a_config_that_is_broken_after_the_build_breaks_nothing_that_is_deployed(
    settings: Settings, repository: Path
) -> None:
    for name in ("double", "triple", "sixfold"):
        shutil.copy(repository / name / "config.pbtxt", repository / name / "1" / "config.pbtxt")

    async def scenario(running: RunningControlPlane, client: httpx.AsyncClient) -> None:
        assert (await deploy(client, "d", "sixfold"))["status"]["state"] == "serving"
        server = server_of((await client.get("/v1/servers")).json()["servers"][0])
        for name in ("double", "sixfold"):
            (repository / name / "config.pbtxt").write_text(f'name: "{name}\n')
        (process,) = tritonservers(os.getpid())
        process.kill()
        await asyncio.to_thread(process.wait, 5)
        assert await asyncio.to_thread(seconds_until_it_answers, server, "sixfold", 6.0) < HEAL_S
        await running.control.reconciler.pass_ended()
        while (body := (await client.get("/v1/deployments/d")).json())["status"]["state"] != "serving":
            await running.control.reconciler.pass_ended()
        assert body["status"]["reasons"] == []

    run(settings, scenario)


def test_a_deployment_reaches_every_server_and_names_the_one_that_is_away(settings: Settings) -> None:
    async def scenario(running: RunningControlPlane, client: httpx.AsyncClient) -> None:
        body = await deploy(client, "d", "double")
        assert [it["state"] for it in body["status"]["servers"]] == ["serving", "serving"]
        await running.fleet.servers()[1].stop()
        await running.control.reconciler.pass_ended()
        while (body := (await client.get("/v1/deployments/d")).json())["status"]["state"] == "serving":
            await running.control.reconciler.pass_ended()
        assert body["status"]["state"] == "degraded"
        assert body["status"]["servers"][1]["reason"].startswith("unreachable: Stopped.")

    run(settings.model_copy(update={"servers": 2, "reconcile_interval_s": 1.0, "server_memory_bytes": 2**30}), scenario)


def test_a_model_whose_file_is_damaged_is_told_in_the_deployment(settings: Settings, repository: Path) -> None:
    multiplier(repository, "damaged", 1.0, more="]] this is no Python")

    async def scenario(running: RunningControlPlane, client: httpx.AsyncClient) -> None:
        status = (await deploy(client, "d", "damaged"))["status"]
        assert status["state"] == "failed"
        assert "SyntaxError" in status["servers"][0]["reason"]
        multiplier(repository, "damaged", 5.0)
        while (body := (await client.get("/v1/deployments/d")).json())["status"]["state"] != "serving":
            await running.control.reconciler.pass_ended()
        assert body["status"]["servers"][0]["reason"] == ""

    run(settings, scenario)


def test_a_reason_that_triton_writes_to_its_log_alone_is_told_in_the_deployment(
    settings: Settings, repository: Path
) -> None:
    multiplier(repository, "odd", 1.0)
    with (repository / "odd" / "config.pbtxt").open("a") as config:
        config.write("instance_group [ { kind: KIND_GPU gpus: [ 97 ] } ]\n")

    async def scenario(_: RunningControlPlane, client: httpx.AsyncClient) -> None:
        status = (await deploy(client, "d", "odd"))["status"]
        assert status["state"] == "failed"
        assert "instance group odd_0 of model odd" in status["servers"][0]["reason"]

    run(settings, scenario)


def test_what_cannot_work_is_refused_before_anything_is_touched(settings: Settings, repository: Path) -> None:
    multiplier(repository, "invalid", 1.0)
    with (repository / "invalid" / "config.pbtxt").open("a") as config:
        config.write("dynamic_batching { preferred_batch_size: [ 32 ] }\n")
    multiplier(repository, "torn", 1.0)
    (repository / "torn" / "config.pbtxt").write_text('name: "torn"\nmax_batch_size: many\n')
    ensemble(repository, "incomplete", "double", "missing")

    async def refusal(client: httpx.AsyncClient, model: str) -> str:
        response = await client.post("/v1/deployments", json={"name": "d", "model": model})
        assert response.status_code == 422
        return str(response.json()["detail"])

    async def scenario(_: RunningControlPlane, client: httpx.AsyncClient) -> None:
        assert await refusal(client, "missing") == "Model 'missing' is not in the model repository."
        assert "'missing', a member of ensemble 'incomplete'," in await refusal(client, "incomplete")
        assert "preferred_batch_size 32 is above max_batch_size 8" in await refusal(client, "invalid")
        assert "config.pbtxt:2" in await refusal(client, "torn")
        assert (await client.get("/v1/servers")).json()["servers"][0]["models"] == []

    run(settings, scenario)


def test_a_second_control_plane_on_one_state_file_starts_nothing_and_says_who_has_it(settings: Settings) -> None:
    async def scenario(_: RunningControlPlane, client: httpx.AsyncClient) -> None:
        before = len(tritonservers(os.getpid()))
        with pytest.raises(StateFileLockedError, match=rf"state\.db is in use .* \(pid {os.getpid()}\)"):
            async with running_control_plane(settings):
                pass
        assert len(tritonservers(os.getpid())) == before
        assert (await client.get("/v1/health/live")).status_code == 200

    run(settings, scenario)


def test_a_taken_port_is_named_and_nothing_is_started(settings: Settings) -> None:
    async def scenario(port: int) -> None:
        with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{port} .*TRITONFLEET_PORT"):
            async with running_control_plane(settings.model_copy(update={"port": port})):
                pass

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        asyncio.run(scenario(other.getsockname()[1]))
    assert not settings.state_path.exists()
    assert tritonservers(os.getpid()) == []


@pytest.mark.parametrize("part", ["loop", "api"])
def test_a_control_plane_that_lost_a_part_ends_and_says_which(settings: Settings, part: str) -> None:
    def started(running: RunningControlPlane) -> None:
        (running.api if part == "api" else running.control.loop).cancel()

    name = {"loop": "reconciler", "api": "API server"}[part]
    with pytest.raises(ControlPlaneError, match=f"The {name} ended unexpectedly"):
        asyncio.run(serve(settings, started))
    assert tritonservers(os.getpid()) == []


@contextmanager
def process(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a control plane as a process of its own; yields it and its URL."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TRITONFLEET_PORT": "0",
        "TRITONFLEET_MODEL_REPOSITORY": str(settings.model_repository),
        "TRITONFLEET_STATE_PATH": str(settings.state_path),
        "TRITONFLEET_SERVERS": str(settings.servers),
        "TRITONFLEET_RECONCILE_INTERVAL_S": str(settings.reconcile_interval_s),
    }
    if settings.servers_file is not None:
        environment["TRITONFLEET_SERVERS_FILE"] = str(settings.servers_file)
    command = [sys.executable, "-m", "tests.faults.control_plane_main"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def test_a_killed_control_plane_comes_back_with_the_same_deployments(settings: Settings) -> None:
    with process(settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
        created = client.post("/v1/deployments?wait=60", json={"name": "d", "model": "sixfold"}).json()
        assert created["status"]["state"] == "serving"
        running.send_signal(signal.SIGKILL)
    with process(settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
        begun = time.monotonic()
        while (body := client.get("/v1/deployments/d").json())["status"]["state"] != "serving":
            assert time.monotonic() - begun < HEAL_S, body
            time.sleep(0.1)
        assert {key: body[key] for key in ("pins", "revision", "created_at")} == {
            key: created[key] for key in ("pins", "revision", "created_at")
        }
        server = server_of(client.get("/v1/servers").json()["servers"][0])
        assert answer(server, "sixfold", 2.0) == 12.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order(settings: Settings, number: signal.Signals) -> None:
    with process(settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
        client.post("/v1/deployments?wait=60", json={"name": "d", "model": "double"})
        children = psutil.Process(running.pid).children(recursive=True)
        assert children
        running.send_signal(number)
        running.send_signal(number)
        assert running.wait(30) == 0
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []


LEAK = """
import subprocess
hold = "import time; held = bytearray(200 * 2**20); held[::4096] = bytes(len(held[::4096])); time.sleep(1000)"
subprocess.Popen(["python3", "-c", hold], start_new_session=True)
"""


def test_a_server_whose_memory_does_not_come_back_after_an_unload_is_drained_and_started_again(
    settings: Settings, repository: Path
) -> None:
    """Each of the two instances leaves a process behind that holds 200 MiB. A judgement takes ten seconds and more."""
    multiplier(repository, "leaky", 2.0, more=LEAK)

    async def scenario(running: RunningControlPlane, client: httpx.AsyncClient) -> None:
        async def until(reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            async with asyncio.timeout(90):
                while True:
                    body: dict[str, Any] = (await client.get("/v1/servers/triton-0")).json()
                    if reached(body):
                        return body
                    await asyncio.sleep(0.2)

        kept = await client.post("/v1/deployments", params={"wait": 60}, json={"name": "kept", "model": "double"})
        assert kept.json()["status"]["state"] == "serving"
        empty = (await until(lambda it: it["memory_used_bytes"] is not None))["memory_used_bytes"]
        await asyncio.sleep(16)
        there = {"min": 1}
        body = {"name": "leaky", "model": "leaky", "replicas": there}
        leaky = await client.post("/v1/deployments", params={"wait": 60}, json=body)
        assert [it["server"] for it in leaky.json()["status"]["servers"]] == ["triton-0"]
        await until(lambda it: it["memory_used_bytes"] > empty + 400 * 2**20)
        await asyncio.sleep(16)
        assert (await client.delete("/v1/deployments/leaky", params={"wait": 60})).status_code == 204
        missing = await until(lambda it: it["memory_missing_bytes"] > 0)
        assert 350 * 2**20 < missing["memory_missing_bytes"] < 500 * 2**20
        well = await until(lambda it: it["condition"] == "healthy" and it["memory_missing_bytes"] == 0)
        assert running.fleet[ServerId("triton-0")].restarts == 1
        again = await until(lambda it: [row["name"] for row in it["models"]] == ["double"])
        assert again["memory_used_bytes"] < empty + 200 * 2**20, well
        operations = (await client.get("/v1/operations", params={"limit": 50})).json()["operations"]
        restarts = [step for it in operations for step in it["steps"] if step["action"] == "restart"]
        assert [(it["server"], it["state"]) for it in restarts] == [("triton-0", "done")]
        assert "MiB of memory did not come back" in restarts[0]["reason"]

    run(settings.model_copy(update={"servers": 2, "reconcile_interval_s": 1.0, "server_memory_bytes": 2**30}), scenario)
