"""The Triton side of the backend: a model instance as Triton's Python stub drives it.

This module reads tensors from Triton's requests and writes its responses; `runner` does what is between. The GPU is
taken before anything else is tried: on a machine without one the load fails with that reason.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import triton_python_backend_utils as pb_utils

from .batching import Request
from .cuda import Cuda
from .errors import ModelSetupError, RunError
from .execution import Engine
from .model_config import Json, ServedModel, engine_filename, is_complete, served_model
from .runner import Answer, BatchRunner
from .validation import check_model

_MODULES: Final = ("tensorrt_rtx_bindings", "tensorrt_rtx")


class _Tensor(Protocol):
    def name(self) -> str: ...
    def as_numpy(self) -> Any: ...  # noqa: ANN401 - the stub's own type


class _Request(Protocol):
    def inputs(self) -> Sequence[_Tensor]: ...
    def requested_output_names(self) -> set[str]: ...


class TritonPythonModel:
    """One model instance, as Triton's Python backend wants it."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:  # noqa: ANN401 - the stub's own type
        """Leave a complete configuration as it is; there is no completing one: an engine opens on its GPU only.

        Raises:
            TritonModelException: inputs or outputs are not configured.

        """
        if not is_complete(auto_complete_model_config.as_dict()):
            raise pb_utils.TritonModelException("an engine of TensorRT-RTX needs `input` and `output` in config.pbtxt")
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the engine and check the configuration against it.

        Raises:
            TritonModelException: machine, configuration or engine are at fault; the load fails with its text.

        """
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            model = served_model(config)
            engine = _opened(config, folder, args["model_instance_kind"], int(args["model_instance_device_id"]))
            check_model(model, engine.signature)
        except ModelSetupError as exc:
            raise pb_utils.TritonModelException(str(exc)) from exc
        self._runner = BatchRunner(engine, batched=model.batched)
        self._model: ServedModel = model

    def execute(self, requests: Sequence[_Request]) -> list[Any]:
        """Answer every request of one Triton batch, in order."""
        read: list[Request | RunError] = [_read(request) for request in requests]
        answers = iter(self._runner.run([request for request in read if isinstance(request, Request)]))
        return [_response(request if isinstance(request, RunError) else next(answers)) for request in read]


def _opened(config: Json, folder: Path, kind: str, device_id: int) -> Engine:
    cuda = Cuda(device_id if kind == "GPU" else 0)
    if kind == "CPU":
        raise ModelSetupError("an engine of TensorRT-RTX runs on a GPU: set kind: KIND_GPU in instance_group")
    trt = _module()
    return Engine(trt, _logger(trt), folder / engine_filename(config, cuda.compute_capability), cuda)


def _module() -> Any:  # noqa: ANN401 - a module without types
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except ImportError as exc:
            raise ModelSetupError(f"TensorRT-RTX cannot be loaded: {exc}") from exc
    raise ModelSetupError(
        "TensorRT-RTX is not installed where Triton's Python looks: pip install 'tritonfleet[tensorrt_rtx]'"
    )


def _logger(trt: Any) -> Any:  # noqa: ANN401 - a module without types
    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is of a module without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants the base's own call

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401 - an enumeration's member
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                pb_utils.Logger.log_error(f"TensorRT-RTX: {text}")
            elif severity == trt.ILogger.WARNING:
                pb_utils.Logger.log_warn(f"TensorRT-RTX: {text}")

    return Logger()


def _read(request: _Request) -> Request | RunError:
    try:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    except pb_utils.TritonModelException as exc:
        return RunError(str(exc), invalid_argument=True)
    return Request(inputs, frozenset(request.requested_output_names()))


def _response(answer: Answer) -> Any:  # noqa: ANN401 - the stub's own type
    if isinstance(answer, RunError):
        code = pb_utils.TritonError.INVALID_ARG if answer.invalid_argument else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse([], pb_utils.TritonError(str(answer), code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in answer.items()])
