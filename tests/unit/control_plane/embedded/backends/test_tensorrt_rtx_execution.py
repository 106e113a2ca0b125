"""The code that runs an engine, over stand-ins for the GPU and for TensorRT (tests/gpu has the real ones)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.batching import Request
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError, RunError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.execution import WHY_INVALID, Engine
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.runner import BatchRunner
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.signature import CONFIG_TYPE_BY_ENGINE, Array, TensorInfo
from tests.unit.control_plane.embedded.backends.rtx_stand_ins import (
    LARGE,
    SMALL,
    WIDTH,
    FakeContext,
    FakeEngine,
    FakeMemory,
    FakeRtx,
    Range,
)

BOTH = frozenset({"y", "n"})


class Rig:
    """An engine file, opened."""

    def __init__(self, folder: Path, profiles: Sequence[Range] = (SMALL, LARGE), room: int = 1 << 20) -> None:
        self.path = folder / "tiny.engine"
        self.path.write_bytes(b"engine" * 100)
        self.memory = FakeMemory(room)
        self.context = FakeContext(self.memory)
        self.fake = FakeEngine(self.context, profiles)

    def open(self, invalid: int | None = None) -> Engine:
        return Engine(FakeRtx(self.fake, invalid), None, self.path, self.memory)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def rows(count: int) -> Array:
    return np.arange(count * WIDTH, dtype=np.float32).reshape(count, WIDTH)


def test_what_the_engine_says_of_itself(rig: Rig) -> None:
    signature = rig.open().signature
    assert signature.inputs == {"x": TensorInfo("x", "TYPE_FP32", "FLOAT", (-1, WIDTH))}
    assert signature.outputs["n"] == TensorInfo("n", "TYPE_INT32", "INT32", (-1, 1))
    assert [profile["x"].max for profile in signature.profiles] == [SMALL[2], LARGE[2]]


def test_runs_of_all_sizes_by_the_tightest_profile_and_in_buffers_that_grow(rig: Rig) -> None:
    engine = rig.open()
    for count in (2, 16, 1, 5):
        answer = engine.run({"x": rows(count)}, BOTH)
        np.testing.assert_array_equal(answer["y"], 2 * rows(count))
        assert answer["n"].tolist() == [[count]] * count
    assert rig.context.profiles_used == [0, 1, 0, 1]
    assert sorted(len(block) for block in rig.memory.blocks.values()) == [16 * 4, 16 * WIDTH * 4, 16 * WIDTH * 4]


def test_only_wanted_outputs_are_fetched_and_strided_input_is_taken(rig: Rig) -> None:
    strided = np.asfortranarray(rows(4))
    answer = rig.open().run({"x": strided}, frozenset({"y"}))
    assert set(answer) == {"y"}
    np.testing.assert_array_equal(answer["y"], 2 * strided)


def test_a_shape_outside_every_profile_is_the_callers_fault(rig: Rig) -> None:
    with pytest.raises(
        RunError, match=r"input 'x' has shape \[17, 3\], the engine takes \[1, 3\] to \[4, 3\], "
    ) as caught:
        rig.open().run({"x": rows(17)}, BOTH)
    assert caught.value.invalid_argument


def test_failures_of_the_gpu_are_the_servers(rig: Rig, tmp_path: Path) -> None:
    rig.context.fails = True
    with pytest.raises(RunError, match="the engine did not run") as caught:
        rig.open().run({"x": rows(1)}, BOTH)
    assert not caught.value.invalid_argument
    with pytest.raises(RunError, match=r"CUDA error in cuMemAlloc_v2: out of memory \(2\)"):
        Rig(tmp_path, room=64).open().run({"x": rows(16)}, BOTH)


@pytest.mark.parametrize(
    ("diagnostics", "reason"),
    [
        (1, "it was compiled by another version of TensorRT-RTX"),
        (3, "it was compiled by another version of TensorRT-RTX, and it is for another GPU architecture"),
        (32, "it is damaged, or no engine"),
        (0, "TensorRT-RTX gives no reason"),
    ],
)
def test_an_engine_that_is_not_for_here_is_refused_with_the_reason(rig: Rig, diagnostics: int, reason: str) -> None:
    with pytest.raises(ModelSetupError) as caught:
        rig.open(invalid=diagnostics)
    assert str(caught.value) == (
        f"engine 'tiny.engine' cannot run here: {reason} (this is TensorRT-RTX 1.7.1.116 on a GPU of compute "
        "capability 8.9)"
    )


def test_what_does_not_open(rig: Rig) -> None:
    with pytest.raises(ModelSetupError, match=r"'tiny\.engine' cannot be opened by tensorrt_rtx_bindings 1\.7\.1\.116"):
        Engine(FakeRtx(None), None, rig.path, rig.memory)
    with pytest.raises(ModelSetupError, match=r"absent\.engine' cannot be read: No such file"):
        Engine(FakeRtx(rig.fake), None, rig.path.with_name("absent.engine"), rig.memory)
    rig.fake.shape_tensor = "x"
    with pytest.raises(ModelSetupError, match="tensor 'x' gives a shape, not data"):
        rig.open()


def test_a_batch_of_requests_is_one_run_and_a_bad_request_fails_alone(rig: Rig) -> None:
    runner = BatchRunner(rig.open(), batched=True)
    good = [Request({"x": rows(count)}, BOTH) for count in (1, 2)]
    first, second = runner.run(good)
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["n"].tolist(), second["n"].tolist()) == ([[3]], [[3], [3]])
    np.testing.assert_array_equal(second["y"], 2 * rows(2))
    answers = runner.run([good[0], Request({"x": rows(17)}, BOTH)])
    assert isinstance(answers[0], dict)
    assert isinstance(answers[1], RunError)


@pytest.mark.parametrize(("fake", "real"), [(FakeEngine, "ICudaEngine"), (FakeContext, "IExecutionContext")])
def test_the_stand_ins_have_no_name_that_the_real_ones_have_not(fake: type, real: str) -> None:
    module = pytest.importorskip("tensorrt_rtx_bindings")
    names = {name for name in vars(fake) if not name.startswith("_")} - {"tensors", "shape_tensor"}
    assert len(names) >= 5
    assert {name for name in names if not hasattr(getattr(module, real), name)} == set()


def test_the_reasons_are_those_that_the_module_knows() -> None:
    module = pytest.importorskip("tensorrt_rtx_bindings")
    assert module.EngineInvalidityDiagnostics.__members__.keys() == WHY_INVALID.keys()
    assert CONFIG_TYPE_BY_ENGINE.keys() <= module.DataType.__members__.keys()
