"""What a build asks of TensorRT, told by a fake of its module: with the real one it needs a GPU (see tests/gpu)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.forms import InputRange
from builders.targets import Target
from builders.tensorrt.cuda import CudaDevice, NoGpuError
from builders.tensorrt.engine import build_engine
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.request import Built, EngineRequest
from builders.tensorrt.timing_cache import CacheKey, save_cache
from builders.tensorrt.toolkit import TensorRt
from tests.unit.builders.tensorrt.fake_tensorrt import Config, FakeTensorRt, Network, Profile, Tensor

X = Tensor("x", (-1, 8))
RANGE = InputRange("x", (1, 8), (4, 8), (16, 8))


def gpu(capability: str) -> CudaDevice:
    return CudaDevice(0, "H100 PCIe", capability)


def no_gpu(_: str) -> CudaDevice:
    raise NoGpuError("there is no NVIDIA driver here")


@pytest.fixture
def request_of(tmp_path: Path) -> EngineRequest:
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(b"any")
    return EngineRequest(onnx, Target("tensorrt", "sm_90", "fp16"), (RANGE,), timing_cache=tmp_path / "caches")


def build(trt: FakeTensorRt, request: EngineRequest) -> Built:
    return build_engine(request, TensorRt(trt, gpu), request.onnx.parent)


def test_a_strongly_typed_network_with_its_profile_and_inspector(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X])
    built = build(trt, replace(request_of, workspace_mib=256))
    assert trt.networks[0].flags == 0b10
    (config,) = trt.configs
    assert config.profiles == [{"x": (RANGE.min, RANGE.opt, RANGE.max)}]
    assert (config.pools, config.flags) == ({"workspace": 256 << 20}, [])
    assert (config.hardware_compatibility_level, config.profiling_verbosity) == (0, "detailed")
    folder = request_of.onnx.parent
    assert (folder / "engine").read_bytes() == b"plan"
    assert (folder / "inspector.json").read_text() == '{"format": "json"}'
    assert (built.toolchain, built.inspected) == ({"tensorrt": "10.13.3.9"}, True)


def test_where_the_flag_is_gone_no_flag_is_set(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X], modern=True)
    build(trt, request_of)
    assert trt.networks[0].flags == 0


def test_compatibility_is_asked_for_by_name(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X])
    build(trt, replace(request_of, version_compatible=True, hardware_compatible="ampere_plus"))
    assert (trt.configs[0].flags, trt.configs[0].hardware_compatibility_level) == (["version compatible"], 1)
    with pytest.raises(EngineError, match=r"TensorRT 10\.13\.3\.9 has no .* same_compute_capability, only ampere_plus"):
        build(trt, replace(request_of, hardware_compatible="same_compute_capability"))


def test_the_timing_cache_of_one_build_serves_the_next(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X])
    assert [build(trt, request_of).timing_cache for _ in range(2)] == ["new", "used"]
    assert trt.configs[1].cache is not None
    assert trt.configs[1].cache.data == b"measured measured "
    assert build(trt, replace(request_of, timing_cache=None)).timing_cache == "none"
    assert trt.configs[2].cache is None


@pytest.mark.parametrize("data", [b"damaged", b"header of another GPU"])
def test_a_cache_that_tensorrt_does_not_take_is_replaced(
    data: bytes, request_of: EngineRequest, tmp_path: Path
) -> None:
    trt = FakeTensorRt([X])
    build(trt, request_of)
    (path,) = (tmp_path / "caches").iterdir()
    save_cache(path.parent, CacheKey("10.13.3.9", "sm_90", "H100 PCIe"), data)
    assert build(trt, request_of).timing_cache == f"ignored: TensorRT 10.13.3.9 refused {path.name}"
    assert build(trt, request_of).timing_cache == "used"
    assert trt.configs[-1].cache is not None
    assert trt.configs[-1].cache.data == b"measured measured "


def test_tactics_and_errors_go_to_the_log_and_the_first_error_is_the_cause(
    request_of: EngineRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (Could not find any implementation for node Gelu. In optimize at /_src/optimizer.cpp:12)"  # noqa: E501 - as TensorRT writes it
    with pytest.raises(EngineError) as caught:
        build(FakeTensorRt([X], fails=error), request_of)
    assert str(caught.value) == (
        "TensorRT 10.13.3.9 cannot compile model.onnx for sm_90: "
        "Internal Error: Could not find any implementation for node Gelu"
    )
    log = capsys.readouterr().out.splitlines()
    assert log == ["[V] Tactic: 0x1 Time: 0.02", f"[E] {error}", "[E] and so nothing works"]


def test_a_gpu_without_memory_is_no_refusal_of_the_model(request_of: EngineRequest) -> None:
    error = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(EngineLimitError, match=r"cannot compile model\.onnx for sm_90: Cuda Runtime: out of memory"):
        build(FakeTensorRt([X], fails=error), request_of)


def test_a_compiler_that_cannot_open_cuda_is_no_refusal_of_the_model(request_of: EngineRequest) -> None:
    class WithoutCuda(FakeTensorRt):
        def Builder(self, logger: Any) -> Any:  # noqa: N802 - TensorRT's name
            logger.log(self.ILogger.ERROR, "CUDA initialization failure with error: 35.")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    told = r"TensorRT 10\.13\.3\.9 cannot start here: CUDA initialization failure"
    with pytest.raises(EngineLimitError, match=told):
        build(WithoutCuda([X]), request_of)


def test_an_input_that_is_a_shape_is_refused(request_of: EngineRequest) -> None:
    with pytest.raises(EngineError, match="input 'size' gives a shape, not data"):
        build(FakeTensorRt([X, Tensor("size", (2,), is_shape_tensor=True)]), request_of)


def test_without_the_gpu_nothing_is_built(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X])
    told = "compiles on the GPU that the engine is for: there is no NVIDIA driver here"
    with pytest.raises(EngineLimitError, match=told):
        build_engine(request_of, TensorRt(trt, no_gpu), request_of.onnx.parent)
    assert trt.networks == []


def test_the_gpu_is_chosen_before_a_builder_is_made_on_it(request_of: EngineRequest) -> None:
    trt = FakeTensorRt([X])

    def choose(capability: str) -> CudaDevice:
        assert (capability, trt.networks) == ("9.0", [])
        return gpu(capability)

    build_engine(request_of, TensorRt(trt, choose), request_of.onnx.parent)
    assert len(trt.networks) == 1


@pytest.mark.parametrize(
    ("fake", "real"), [(Config, "IBuilderConfig"), (Profile, "IOptimizationProfile"), (Network, "INetworkDefinition")]
)
def test_the_fake_has_no_name_that_the_real_one_has_not(fake: type, real: str) -> None:
    module = pytest.importorskip("tensorrt_rtx_bindings")
    notes = {"pools", "profiles", "cache", "shapes", "tensors"}
    names = {name for name in (*vars(fake), *fake.__annotations__) if not name.startswith("_")} - notes
    assert {name for name in names if not hasattr(getattr(module, real), name)} == set()


def test_the_real_configuration_takes_the_calls_that_only_tensorrt_gets(request_of: EngineRequest) -> None:
    # TensorRT-RTX has the same interface: some of it has no effect there, but a misspelt call would fail.
    module = pytest.importorskip("tensorrt_rtx_bindings")
    toolkit = TensorRt(module, gpu)
    logger = module.Logger(module.Logger.INTERNAL_ERROR)
    builder = module.Builder(logger)  # it and the logger have to outlive the configuration
    config = builder.create_builder_config()
    request = replace(request_of, version_compatible=True, hardware_compatible="same_compute_capability")
    toolkit.prepare(request)
    told = "Timing cache operations are no-ops in TensorRT-RTX"
    with pytest.warns(DeprecationWarning, match=told):
        assert toolkit.configure(config, request) == "new"
    with pytest.warns(DeprecationWarning, match=told):
        toolkit.finish(config, request)
    assert config.get_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    assert request.timing_cache is not None
    assert len(list(request.timing_cache.iterdir())) == 1
