"""The real ensemble when its server is killed, and when its artifact is damaged on disk."""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from control_plane.bootstrap import running_control_plane
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.record import read_record
from control_plane.settings import Settings
from tests.deployed import MODEL, deployed, text_input

HEAL_S = 15.0
DEADLINE_S = 120.0


def tritonserver_pid(server: EmbeddedServer) -> int:
    record = read_record(server.record_path)
    assert record is not None
    return record.server_pid


def test_a_killed_server_is_back_with_right_answers(built_repository: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployed(built_repository, tmp_path) as running:
            supervised = running.fleet.servers()[0]
            address = supervised.server.endpoints.grpc
            async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
                tensor = text_input(tritonclient.grpc, ["The cat sat on the mat."])
                before = (await client.infer(MODEL, [tensor])).as_numpy("embedding")
                pid = tritonserver_pid(supervised)
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
                while True:
                    try:
                        after = (await client.infer(MODEL, [tensor], client_timeout=5)).as_numpy("embedding")
                    except InferenceServerException:
                        assert time.monotonic() - killed < DEADLINE_S, "it did not come back"
                        await asyncio.sleep(0.1)
                    else:
                        break
            healed_s = time.monotonic() - killed
            np.testing.assert_allclose(after, before, atol=1e-6)
            assert tritonserver_pid(supervised) != pid
            assert supervised.server.endpoints.grpc == address
            assert healed_s < HEAL_S

    asyncio.run(scenario())


def test_a_damaged_artifact_is_told_and_nothing_serves(built_repository: Path, tmp_path: Path) -> None:
    repository = tmp_path / "model_repository"
    shutil.copytree(built_repository, repository)
    artifact = repository / "sentence_encoder" / "1" / "onnxruntime-cpu-fp32.onnx"
    artifact.chmod(0o644)
    artifact.write_bytes(artifact.read_bytes()[:1_000_000])

    async def scenario() -> None:
        settings = Settings(port=0, model_repository=repository, state_path=tmp_path / "state.db")
        async with (
            running_control_plane(settings) as running,
            httpx.AsyncClient(base_url=running.url, timeout=DEADLINE_S, trust_env=False) as rest,
        ):
            answer = await rest.post("/v1/deployments?wait=90", json={"name": "e", "model": MODEL})
            status = answer.json()["status"]
            assert status["state"] == "failed", answer.text
            (server,) = status["servers"]
            assert "sentence_encoder" in server["reason"], answer.text
            assert "Protobuf parsing failed" in server["reason"], answer.text
            supervised = running.fleet.servers()[0]
            assert psutil.pid_exists(tritonserver_pid(supervised))
            async with tritonclient.grpc.aio.InferenceServerClient(supervised.server.endpoints.grpc) as client:
                assert not await client.is_model_ready(MODEL)

    asyncio.run(scenario())
