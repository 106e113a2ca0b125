"""Runs a TensorRT or TensorRT-RTX engine on this machine's GPU, to prove it: with the code that serves it.

The builders may not know the embedded backends, so the command line hands this to them. Never run on hardware yet;
`tests/gpu` does so wherever there is a GPU.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.errors import TargetError
from builders.parity import Run, onnx_runner
from builders.reference import Tensors
from builders.targets import Host, Runtime, Target

_MODULES: dict[Runtime, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx_bindings"}


def run_target(target: Target, path: Path) -> Run:
    """Return what runs the artifact of `target` at `path` here. Raises TargetError, MissingExtraError."""
    if target.runtime == "onnxruntime":
        return onnx_runner(path, cuda=target.device == "cuda")
    return _engine_runner(target.runtime, path)


def engine_runner_of(host: Host) -> Callable[[Path], Run] | None:
    """Return what `builders.pipeline.Builder` takes as its engine runner: None on a machine without a GPU."""
    return _run_any_engine if host.gpus else None


def _run_any_engine(path: Path) -> Run:
    runtime: Runtime = "tensorrt_rtx" if path.name.startswith("tensorrt_rtx-") else "tensorrt"
    return _engine_runner(runtime, path)


def _engine_runner(runtime: Runtime, path: Path) -> Run:
    from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.cuda import Cuda  # noqa: PLC0415 - needs a driver
    from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import (  # noqa: PLC0415
        ModelSetupError,
        RunError,
    )
    from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.execution import Engine  # noqa: PLC0415

    try:
        module: Any = importlib.import_module(_MODULES[runtime])
    except ImportError as exc:
        raise TargetError(f"{runtime} is not installed; {path.name} cannot be run without it") from exc
    try:
        engine = Engine(module, module.Logger(module.Logger.WARNING), path, Cuda(0))
    except ModelSetupError as exc:
        raise TargetError(f"{path.name} cannot be opened here: {exc}") from exc
    outputs = frozenset(engine.signature.outputs)

    def run(inputs: Tensors) -> dict[str, Any]:
        try:
            return engine.run({name: inputs[name] for name in engine.signature.inputs}, outputs)
        except RunError as exc:
            raise TargetError(f"{path.name} does not run: {exc}") from exc

    return run
