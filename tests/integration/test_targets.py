"""A version with several targets on a real tritonserver without a GPU: what fits is served, and nothing else loaded."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper

from builders.digests import tree_digests
from builders.manifest import FileEntry, Manifest, ManifestTarget
from builders.supply_chain.keys import Signer, generate_key, read_signer
from builders.supply_chain.signing import sign_version
from control_plane.bootstrap import running_control_plane
from control_plane.settings import Settings

FP32, INT8, ENGINE = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "tensorrt_rtx-sm_89-fp32"
FACTORS = {FP32: 2.0, INT8: 3.0}
CONFIG = """\
name: "{name}"
backend: "{backend}"
default_model_filename: "{filename}"
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""
BACKENDS = {FP32: "onnxruntime", INT8: "onnxruntime", ENGINE: "tensorrt_rtx"}


def times(factor: float) -> bytes:
    """Return an ONNX model that multiplies one number: each target by another factor, so an answer tells it."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "factor"], ["Y"])],
        "times",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([factor], np.float32), "factor")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def publish(repository: Path, name: str, signer: Signer | None, *targets: str) -> Path:
    """Write version 1 of a package with these targets; its engine is garbage that nobody ever ran."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    made: dict[str, ManifestTarget] = {}
    for index, target in enumerate(targets):
        filename = f"{target}.engine" if target == ENGINE else f"{target}.onnx"
        config = "config.pbtxt" if index == 0 else f"config.{target}.pbtxt"
        text = CONFIG.format(name=name, backend=BACKENDS[target], filename=filename)
        (version / config).write_text(text)
        (version / filename).write_bytes(b"no engine" if target == ENGINE else times(FACTORS[target]))
        unproven = "needs a GPU of sm_89" if target == ENGINE else ""
        made[target] = ManifestTarget(filename, config, {BACKENDS[target]: "1.7.1"}, unproven=unproven)
    (repository / name / "config.pbtxt").write_bytes((version / "config.pbtxt").read_bytes())
    files = {path: FileEntry(digest, (version / path).stat().st_size) for path, digest in tree_digests(version).items()}
    manifest = Manifest(name, 1, "key", "MIT", f"tritonfleet build {name}", files=files, targets=made)
    (version / "manifest.json").write_text(manifest.to_json())
    if signer is not None:
        sign_version(version, signer)
    return version


def answer(endpoint: str, model: str) -> float:
    tensor = triton.InferInput("X", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    with triton.InferenceServerClient(endpoint) as client:
        return float(client.infer(model, [tensor], client_timeout=10.0).as_numpy("Y")[0])


async def deploy(rest: httpx.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Create or change a deployment and wait for it; returns its status."""
    response = await rest.post(f"{path}?wait=60", json=dict(body))
    assert response.status_code in (200, 201), response.text
    status: dict[str, Any] = response.json()["status"]
    return status


def test_a_server_gets_what_fits_it_and_what_is_wished_and_nothing_unproven_or_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    repository = tmp_path / "repository"
    keys = generate_key(tmp_path / "keys")
    signer = read_signer(keys.private)
    publish(repository, "several", signer, FP32, INT8, ENGINE)
    publish(repository, "engine", signer, ENGINE)
    publish(repository, "unsigned", None, FP32)
    altered = publish(repository, "altered", signer, FP32)
    (altered / f"{FP32}.onnx").write_bytes(times(7.0))
    settings = Settings(
        port=0,
        model_repository=repository,
        state_path=tmp_path / "state.db",
        signature_policy="require",
        public_key=keys.public,
    )

    async def scenario() -> None:
        async with (
            running_control_plane(settings) as running,
            httpx.AsyncClient(base_url=running.url, timeout=100, trust_env=False) as rest,
        ):
            grpc = running.fleet.servers()[0].server.endpoints.grpc
            for path, body, target in (
                ("/v1/deployments", {"name": "d", "model": "several"}, FP32),
                ("/v1/deployments/d/redeploy", {"precisions": ["fp16", "int8"], "allow_unproven": True}, INT8),
                ("/v1/deployments/d/redeploy", {"precisions": []}, FP32),
            ):
                status = await deploy(rest, path, body)
                assert status["state"] == "serving", status
                assert status["servers"][0]["models"][0]["target"] == target
                assert await asyncio.to_thread(answer, grpc, "several") == FACTORS[target]

            for body in ({"name": "e", "model": "engine"}, {"name": "f", "model": "engine", "allow_unproven": True}):
                status = await deploy(rest, "/v1/deployments", body)
                assert status["state"] == "failed", status
                told = f"no target of the version fits the server: {ENGINE} is for a GPU of sm_89, and the"
                assert told in status["servers"][0]["reason"]
                assert status["servers"][0]["models"][0]["state"] is None, "it was never asked to load it"

            for name, why in (("unsigned", "is not signed"), ("altered", f"altered: {FP32}.onnx")):
                refused = await rest.post("/v1/deployments", json={"name": name, "model": name})
                assert refused.status_code == 422
                assert why in refused.json()["causes"][0]

    asyncio.run(scenario())
