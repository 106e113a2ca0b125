"""Runs a TensorRT or TensorRT-RTX engine on this machine's GPU, to prove it: with the code that serves it.

The builders may not know the embedded backends, so the command line hands this to them. What the engine itself refuses
is a TargetError, which a build records; a GPU that is missing, busy or full is a MachineError, which it does not.
Never run on hardware yet; `tests/gpu` does so wherever there is a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import MachineError, TargetError
from builders.parity import Run, onnx_runner
from builders.reference import Tensors
from builders.selection import parse_target
from builders.targets import Host, Runtime, Target
from builders.tensorrt.cuda import NoGpuError, find_device
from builders.tensorrt.toolkit import import_runtime
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.cuda import Cuda
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError, RunError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.execution import Engine, Memory

# Of what can be wrong with an engine that opens nowhere or never runs, the words of `execution` for what lies in the
# engine alone. All else (another TensorRT or GPU than it is for, no memory) may be well on another machine or later.
_OF_THE_ENGINE = ("gives a shape, not data", "depends on the data")


def open_gpu(compute_capability: str) -> Memory:
    """Return the first GPU of that compute capability. Raises NoGpuError, ModelSetupError."""
    return Cuda(find_device(compute_capability).ordinal)


@dataclass(frozen=True, slots=True)
class EngineRunner:
    """Opens engines with `modules` (the TensorRT module of a runtime) on `gpus` (the GPU of a compute capability)."""

    modules: Callable[[Runtime], Any] = import_runtime
    gpus: Callable[[str], Memory] = open_gpu

    def open(self, target: Target, path: Path) -> Run:
        """Return what runs the engine of `target` at `path`. Raises TargetError, MachineError."""
        try:
            module = self.modules(target.runtime)
        except ImportError as exc:
            raise MachineError(f"{target.runtime} is not installed; {path.name} cannot be run without it") from exc
        try:
            memory = self.gpus(target.compute_capability or "")
        except (NoGpuError, ModelSetupError) as exc:
            raise MachineError(f"{path.name} cannot be run here: {exc}") from exc
        try:
            engine = Engine(module, module.Logger(module.Logger.WARNING), path, memory)
        except ModelSetupError as exc:
            raise _failure(f"{path.name} cannot be opened here: {exc}") from exc
        outputs = frozenset(engine.signature.outputs)

        def run(inputs: Tensors) -> dict[str, Any]:
            try:
                return engine.run({name: inputs[name] for name in engine.signature.inputs}, outputs)
            except RunError as exc:
                told = f"{path.name} does not run: {exc}"
                raise (TargetError(told) if exc.invalid_argument else _failure(told)) from exc

        return run

    def open_file(self, path: Path) -> Run:
        """Return what runs the engine at `path`, a file named after its target."""
        target = parse_target(path.stem)
        if target is None:
            raise TargetError(f"{path.name} is not named after a target, so there is no telling which GPU it is for")
        return self.open(target, path)


def run_target(target: Target, path: Path) -> Run:
    """Return what runs the artifact of `target` at `path` here. Raises TargetError, MachineError, MissingExtraError."""
    if target.runtime == "onnxruntime":
        return onnx_runner(path, cuda=target.device == "cuda")
    return EngineRunner().open(target, path)


def engine_runner_of(host: Host) -> Callable[[Path], Run] | None:
    """Return what `builders.pipeline.Builder` takes as its engine runner: None on a machine without a GPU."""
    return EngineRunner().open_file if host.gpus else None


def _failure(told: str) -> TargetError | MachineError:
    return TargetError(told) if any(words in told for words in _OF_THE_ENGINE) else MachineError(told)
