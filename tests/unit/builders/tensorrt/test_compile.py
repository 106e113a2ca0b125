"""Real engines of TensorRT-RTX, compiled here without a GPU, and what the real compiler refuses."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from builders.errors import MissingExtraError
from builders.targets import Target
from builders.tensorrt import child
from builders.tensorrt.compile import compile_engine
from builders.tensorrt.engine import build_engine
from builders.tensorrt.errors import EngineError
from builders.tensorrt.request import Built, EngineRequest, Refused, parse_answer
from builders.tensorrt.toolkit import load_toolkit
from tests.unit.builders.tensorrt.tiny_onnx import RANGE, tiny_model

needs_rtx = pytest.mark.skipif(
    find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt_rtx_bindings is not installed"
)


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(tiny_model(TensorProto.FLOAT), path)
    return path


def asked(path: Path, device: str = "sm_89") -> EngineRequest:
    return EngineRequest(path, Target("tensorrt_rtx", device, "fp32"), (RANGE,), time_limit_s=120)


def refused(request: EngineRequest, folder: Path) -> Built:
    """Ask the real compiler inside this process: what it refuses, it refuses before it compiles."""
    return build_engine(request, load_toolkit("tensorrt_rtx"), folder)


@needs_rtx
@pytest.mark.parametrize(
    ("device", "element_type"), [("sm_89", TensorProto.FLOAT), ("sm_75", TensorProto.FLOAT16)], ids=["fp32", "fp16"]
)
def test_an_engine_is_compiled_without_a_gpu(device: str, element_type: int, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_model(element_type), path)
    told: list[str] = []
    result = compile_engine(asked(path, device), tmp_path / "tiny.engine", told.append)
    assert result.engine == tmp_path / "tiny.engine"
    assert result.engine.stat().st_size > 1000
    assert result.toolchain["tensorrt_rtx"].startswith("1.")
    assert (result.timing_cache, result.inspector) == ("none", None)
    assert 0 < result.seconds < 120
    assert result.peak_bytes > 10 << 20
    assert told == [f"compile tensorrt_rtx-{device}-fp32"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tiny.engine", "tiny.engine.log", "tiny.onnx"]


@needs_rtx
def test_an_operator_that_the_compiler_has_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    model = tiny_model(TensorProto.FLOAT, operator="NonExistent")
    onnx.save(model, path)
    with pytest.raises(
        EngineError, match=r"^tensorrt_rtx-sm_89-fp32: TensorRT-RTX 1\.\S+ cannot take node 'activation' "
    ) as it:
        compile_engine(asked(path), tmp_path / "tiny.engine", lambda _: None)
    assert "(NonExistent) of tiny.onnx: " in str(it.value)
    assert not (tmp_path / "tiny.engine").exists()


@needs_rtx
def test_an_engine_that_finds_no_room_is_an_answer_too(fp32: Path, tmp_path: Path) -> None:
    request_file = tmp_path / "request.json"
    request_file.write_bytes(asked(fp32).to_json())
    (tmp_path / "engine").symlink_to("/dev/full")
    child.main(request_file, tmp_path)
    answer = parse_answer((tmp_path / "answer.json").read_bytes())
    assert isinstance(answer, Refused)
    assert answer.retryable
    assert "the engine could not be written: [Errno 28] No space left on device" in answer.problem


@needs_rtx
def test_what_an_architecture_cannot_do_is_told_in_a_sentence(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot compile tiny\.onnx for sm_75: .*FP32 GEMM is not supported"):
        refused(asked(fp32, "sm_75"), tmp_path)


@needs_rtx
@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"not a model" * 9, r"cannot read bad\.onnx: MODEL_DESERIALIZE_FAILED"), (b"", r"bad\.onnx holds no network")],
    ids=["garbage", "empty"],
)
def test_a_file_that_is_no_model(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=problem):
        refused(asked(path), tmp_path)


@needs_rtx
@pytest.mark.parametrize(
    ("location", "problem"),
    [("../secret.bin", r"Relative paths to parent \(\.\./\) are not allowed"), ("absent.bin", "Failed to open file: ")],
)
def test_weights_that_are_elsewhere_or_nowhere(location: str, problem: str, tmp_path: Path) -> None:
    model = tiny_model(TensorProto.FLOAT)
    weight = model.graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(weight.raw_data)
    set_external_data(weight, location, offset=0, length=len(weight.raw_data))
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    path = tmp_path / "inner" / "tiny.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=rf"cannot read tiny\.onnx: {problem}"):
        refused(asked(path), tmp_path)


@needs_rtx
def test_an_input_without_a_range_is_named_before_anything_is_compiled(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="input 'x' has the dynamic shape"):
        refused(replace(asked(fp32), inputs=()), tmp_path)


@needs_rtx
def test_what_only_tensorrt_has_is_refused_and_so_is_an_unknown_architecture(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="TensorRT-RTX has no version-compatible"):
        refused(replace(asked(fp32), version_compatible=True), tmp_path)
    with pytest.raises(EngineError, match=r"TensorRT-RTX .* does not compile for sm_90, only SM120"):
        refused(asked(fp32, "sm_90"), tmp_path)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_a_module_that_is_not_installed_is_asked_for_by_its_extra(fp32: Path, tmp_path: Path) -> None:
    request = replace(asked(fp32), target=Target("tensorrt", "sm_90", "fp16"))
    with pytest.raises(MissingExtraError, match=r"tensorrt is not installed; .* 'tritonfleet\[tensorrt\]'"):
        compile_engine(request, tmp_path / "tiny.engine", lambda _: None)
