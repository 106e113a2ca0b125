"""Engines compiled for the GPU that is here, with each TensorRT that is installed, run and held against onnxruntime.

Runs by itself where a GPU and a module are. Not one of these tests has run on hardware yet.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto

from builders.manifest import read_manifest
from builders.reference import Case, load_reference, save_reference
from builders.targets import RTX_COMPUTE_CAPABILITIES, Precision, Runtime, Target
from builders.tensorrt.compile import compile_engine
from builders.tensorrt.request import EngineRequest, EngineResult
from builders.tensorrt.toolkit import import_runtime
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.cuda import Cuda
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.execution import Engine
from tests.command_line import run_here
from tests.serving import DEADLINE_S, embedded_server
from tests.tiny_packages import GRAPH, write_graph
from tests.unit.builders.tensorrt.tiny_onnx import RANGE, WIDTH, tiny_model

pytestmark = pytest.mark.gpu

RUNTIMES: tuple[Runtime, ...] = ("tensorrt", "tensorrt_rtx")
TOLERANCE: Mapping[Precision, float] = {"fp32": 2e-3, "fp16": 2e-2}
"""Largest absolute error of a normalised output; fp32 allows for TF32, which TensorRT uses unless told otherwise."""
ELEMENT_TYPE: Mapping[Precision, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}


def module_of(runtime: Runtime) -> Any:
    try:
        return import_runtime(runtime)
    except ImportError as exc:
        pytest.skip(f"{runtime} is not installed: {exc}")


@pytest.fixture(scope="module")
def gpu() -> Cuda:
    try:
        return Cuda(0)
    except ModelSetupError as exc:
        pytest.skip(str(exc))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, gpu: Cuda) -> Runtime:
    chosen: Runtime = request.param
    module_of(chosen)
    if chosen == "tensorrt_rtx" and gpu.compute_capability not in RTX_COMPUTE_CAPABILITIES:
        pytest.skip(f"TensorRT-RTX does not compile for compute capability {gpu.compute_capability}")
    return chosen


def request_of(runtime: Runtime, capability: str, precision: Precision, folder: Path) -> EngineRequest:
    """Write the model and its reference set, and ask for its engine."""
    path = folder / "tiny.onnx"
    onnx.save(tiny_model(ELEMENT_TYPE[precision]), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    dtype = np.float32 if precision == "fp32" else np.float16
    cases = []
    for batch in (1, 4, 32):
        inputs = {"x": np.random.default_rng(batch).standard_normal((batch, WIDTH)).astype(dtype)}
        (expected,) = session.run(["y"], inputs)
        cases.append(Case(f"batch-{batch}", "random", batch, inputs, {"y": expected}))
    save_reference(folder / "tiny.npz", cases)
    target = Target(runtime, f"sm_{capability.replace('.', '')}", precision)
    return EngineRequest(path, target, (RANGE,), timing_cache=folder / "caches", time_limit_s=300)


def compiled(request: EngineRequest) -> EngineResult:
    return compile_engine(request, request.onnx.with_name("tiny.engine"), lambda _: None)


def opened(runtime: Runtime, engine: Path, gpu: Cuda) -> Engine:
    module = module_of(runtime)
    return Engine(module, module.Logger(module.Logger.WARNING), engine, gpu)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_an_engine_gives_the_sources_answers(runtime: Runtime, precision: Precision, gpu: Cuda, tmp_path: Path) -> None:
    result = compiled(request_of(runtime, gpu.compute_capability, precision, tmp_path))
    engine = opened(runtime, result.engine, gpu)
    for case in load_reference(tmp_path / "tiny.npz"):
        answer = engine.run(case.inputs, frozenset({"y"}))
        np.testing.assert_allclose(answer["y"], case.outputs["y"], atol=TOLERANCE[precision], rtol=0)


def test_what_only_tensorrt_keeps(gpu: Cuda, tmp_path: Path) -> None:
    module_of("tensorrt")
    request = request_of("tensorrt", gpu.compute_capability, "fp32", tmp_path)
    first, second = compiled(request), compiled(request)
    assert (first.timing_cache, second.timing_cache) == ("new", "used")
    assert first.inspector is not None
    assert json.loads(first.inspector.read_text())["Layers"]


def test_an_engine_of_another_architecture_is_refused(gpu: Cuda, tmp_path: Path) -> None:
    module_of("tensorrt_rtx")
    other = "12.0" if gpu.compute_capability != "12.0" else "8.9"
    result = compiled(request_of("tensorrt_rtx", other, "fp16", tmp_path))
    with pytest.raises(ModelSetupError, match="for another GPU architecture"):
        opened("tensorrt_rtx", result.engine, gpu)


def test_a_real_tritonserver_serves_an_engine(gpu: Cuda, tmp_path: Path) -> None:
    module_of("tensorrt_rtx")
    if gpu.compute_capability not in RTX_COMPUTE_CAPABILITIES:
        pytest.skip(f"no TensorRT-RTX for compute capability {gpu.compute_capability} here")
    result = compiled(request_of("tensorrt_rtx", gpu.compute_capability, "fp32", tmp_path))
    version = tmp_path / "repository" / "tiny" / "1"
    version.mkdir(parents=True)
    result.engine.rename(version / "tiny.engine")
    (version.parent / "config.pbtxt").write_text(
        'backend: "tensorrt_rtx" default_model_filename: "tiny.engine" max_batch_size: 32\n'
        f'input [{{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}]\n'
        f'output [{{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }}]\n'
        "dynamic_batching { } instance_group [{ kind: KIND_GPU count: 1 }]\n"
    )
    case = load_reference(tmp_path / "tiny.npz")[1]
    tensor = triton.InferInput("x", list(case.inputs["x"].shape), "FP32")
    tensor.set_data_from_numpy(case.inputs["x"])
    with (
        embedded_server(version.parents[1]) as server,
        triton.InferenceServerClient(server.server.endpoints.grpc) as client,
    ):
        headers = {"triton-grpc-protocol-admin-key": server.server.admin_key or ""}
        client.load_model("tiny", headers=headers, client_timeout=DEADLINE_S)
        answer = client.infer("tiny", [tensor], client_timeout=DEADLINE_S).as_numpy("y")
    np.testing.assert_allclose(answer, case.outputs["y"], atol=TOLERANCE["fp32"], rtol=0)


def test_a_build_on_this_machine_proves_what_it_makes_and_verify_agrees(
    runtime: Runtime, gpu: Cuda, tmp_path: Path
) -> None:
    device = f"sm_{gpu.compute_capability.replace('.', '')}"
    target = TARGET.format(runtime=runtime, device=device, precision="fp32", tolerance="max_abs_error = 2e-3")
    write_with_ranges(tmp_path, target)
    (name,) = built_and_proven(tmp_path)
    assert name == f"{runtime}-{device}-fp32"


def test_onnxruntime_on_cuda_is_proven_and_measured_there(gpu: Cuda, tmp_path: Path) -> None:
    assert gpu.compute_capability
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA: pip install 'tritonfleet[gpu]'")
    target = TARGET.format(runtime="onnxruntime", device="cuda", precision="fp16", tolerance="min_cosine = 0.999")
    write_with_ranges(tmp_path, target)
    (name,) = built_and_proven(tmp_path)
    assert name == "onnxruntime-cuda-fp16"


TARGET = """\
[[targets]]
runtime = "{runtime}"
device = "{device}"
precision = "{precision}"
tolerance = {{ {tolerance} }}
"""
RANGES = '[[inputs]]\nname = "x"\nmin = [1, 8]\nopt = [4, 8]\nmax = [8, 8]\n'


def write_with_ranges(repository: Path, target: str) -> None:
    spec = write_graph(repository, target) / "model.toml"
    spec.write_text(spec.read_text().replace("[[targets]]", f"{RANGES}[[targets]]", 1))


def built_and_proven(repository: Path) -> list[str]:
    """Build the package and prove its version once more; return the names of its targets, all of them proven."""
    assert run_here("build", "-r", str(repository), "--json").code == 0
    manifest = read_manifest(repository / GRAPH / "1")
    assert manifest is not None
    assert [target.unproven for target in manifest.targets.values()] == [""] * len(manifest.targets)
    verified = run_here("verify", GRAPH, "-r", str(repository), "--json")
    assert verified.code == 0, verified.err
    return sorted(manifest.targets)
