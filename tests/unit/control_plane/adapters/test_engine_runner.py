"""How an engine is run to prove it: on the GPU that it is for, and what it refuses told from what a GPU lacks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.errors import BuildError, MachineError, TargetError
from builders.targets import Gpu, Host, Target
from builders.tensorrt.cuda import NoGpuError
from control_plane.adapters.engine_runner import EngineRunner, engine_runner_of, run_target
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError
from tests.unit.control_plane.embedded.backends.rtx_stand_ins import (
    LARGE,
    SMALL,
    WIDTH,
    FakeContext,
    FakeEngine,
    FakeMemory,
    FakeRtx,
)

TARGET = Target("tensorrt_rtx", "sm_89", "fp32")
X = {"x": np.ones((2, WIDTH), np.float32)}


class Module(FakeRtx):
    """The module, with its logger."""

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None:
            assert severity == self.WARNING


class Rig:
    """A machine with one GPU of `room` bytes; it notes which runtime and which GPU are asked for."""

    def __init__(self, folder: Path, room: int = 1 << 20) -> None:
        self.path = folder / f"{TARGET}.engine"
        self.path.write_bytes(b"engine" * 100)
        self.memory = FakeMemory(room)
        self.context = FakeContext(self.memory)
        self.engine = FakeEngine(self.context, (SMALL, LARGE))
        self.trouble: Exception | None = None
        self.asked: list[str] = []
        self.invalid: int | None = None

    def runner(self) -> EngineRunner:
        def module(runtime: str) -> Any:
            self.asked.append(runtime)
            return Module(self.engine, self.invalid)

        def gpu(capability: str) -> FakeMemory:
            self.asked.append(capability)
            if self.trouble is not None:
                raise self.trouble
            return self.memory

        return EngineRunner(module, gpu)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_an_engine_runs_on_a_gpu_of_its_own_architecture(rig: Rig) -> None:
    np.testing.assert_array_equal(rig.runner().open(TARGET, rig.path)(X)["y"], 2 * X["x"])
    assert rig.asked == ["tensorrt_rtx", "8.9"]
    rig.asked.clear()
    rig.runner().open(Target("tensorrt", "sm_90", "fp16"), rig.path)
    assert rig.asked == ["tensorrt", "9.0"]


def test_a_file_tells_its_target_by_its_name(rig: Rig) -> None:
    np.testing.assert_array_equal(rig.runner().open_file(rig.path)(X)["y"], 2 * X["x"])
    assert rig.asked == ["tensorrt_rtx", "8.9"]
    with pytest.raises(TargetError, match=r"engine\.plan is not named after a target"):
        rig.runner().open_file(rig.path.with_name("engine.plan"))


@pytest.mark.parametrize("cause", [NoGpuError("cuInit gave CUDA error 999"), ModelSetupError("GPU 0 cannot be used")])
def test_a_gpu_that_cannot_be_used_is_no_fault_of_the_engine(cause: Exception, rig: Rig) -> None:
    rig.trouble = cause
    with pytest.raises(MachineError, match=f"^{TARGET}.engine cannot be run here: {cause}"):
        rig.runner().open(TARGET, rig.path)


def test_a_gpu_without_memory_is_no_fault_of_the_engine(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="does not run: CUDA error in cuMemAlloc_v2: out of memory"):
        Rig(tmp_path, room=8).runner().open(TARGET, tmp_path / f"{TARGET}.engine")(X)


def test_an_engine_that_opens_or_runs_elsewhere_is_no_refusal(rig: Rig) -> None:
    run = rig.runner().open(TARGET, rig.path)
    rig.context.fails = True
    with pytest.raises(MachineError, match="does not run: the engine did not run"):
        run(X)
    rig.invalid = 1
    with pytest.raises(MachineError, match=r"cannot be opened here: .* another version of TensorRT-RTX"):
        rig.runner().open(TARGET, rig.path)


def test_what_the_engine_itself_refuses_is_told_as_such(rig: Rig) -> None:
    run = rig.runner().open(TARGET, rig.path)
    with pytest.raises(TargetError, match="does not run"):
        run({"x": np.ones((17, WIDTH), np.float32)})
    rig.engine.shape_tensor = "x"
    with pytest.raises(TargetError, match="gives a shape, not data"):
        rig.runner().open(TARGET, rig.path)


def test_a_runtime_that_is_not_here_is_told(rig: Rig) -> None:
    def absent(_runtime: object) -> Any:
        raise ModuleNotFoundError("No module named 'tensorrt'")

    with pytest.raises(MachineError, match=r"^tensorrt_rtx is not installed"):
        EngineRunner(absent, rig.runner().gpus).open(TARGET, rig.path)


def test_where_there_is_no_gpu_nothing_runs_engines(rig: Rig) -> None:
    assert engine_runner_of(Host()) is None
    assert engine_runner_of(Host(gpus=(Gpu("L4", "8.9", 24 << 30),))) is not None
    with pytest.raises(BuildError):  # garbage, whatever this machine has
        run_target(TARGET, rig.path)(X)
