"""The Triton side of the backend: a model instance as Triton's Python stub drives it.

Triton calls `auto_complete_config` in a process of its own, then `initialize` and `execute` in one process per model
instance. This module reads tensors from Triton's requests and writes its responses; `runner` does what is between.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import triton_python_backend_utils as pb_utils

from .batching import Request, batch_plan
from .completion import completion_of, is_complete
from .datatypes import BF16, STRING, Array, strings_for_onnxruntime
from .dlpack import bfloat16_from_bits, bits_from_bfloat16
from .errors import ModelSetupError, RunError
from .model_config import Json, served_model
from .providers import providers_of
from .runner import Answer, BatchRunner
from .settings import session_settings
from .validation import check_model

if TYPE_CHECKING:
    from .session import OnnxSession


class _Tensor(Protocol):
    def name(self) -> str: ...
    def as_numpy(self) -> Any: ...  # noqa: ANN401 - the stub's own type
    def to_dlpack(self) -> Any: ...  # noqa: ANN401 - a PyCapsule


class _Request(Protocol):
    def inputs(self) -> Sequence[_Tensor]: ...
    def requested_output_names(self) -> set[str]: ...


class TritonPythonModel:
    """One model instance, as Triton's Python backend wants it."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:  # noqa: ANN401 - the stub's own type
        """Fill in what the configuration leaves out; one with inputs and outputs is left as it is.

        Raises:
            TritonModelException: the ONNX file cannot be opened, or it cannot batch as configured.

        """
        config = auto_complete_model_config.as_dict()
        if is_complete(config):
            return auto_complete_model_config
        try:
            session = _session(config, Path(pb_utils.get_model_dir()), _auto_complete_kind(config), 0)
            completion = completion_of(config, session.signature)
        except ModelSetupError as exc:
            raise pb_utils.TritonModelException(str(exc)) from exc
        # Straight into the configuration: add_input() has no way to give the `reshape` that a scalar item needs.
        config["max_batch_size"] = completion.max_batch_size
        if completion.inputs is not None:
            config["input"] = completion.inputs
        if completion.outputs is not None:
            config["output"] = completion.outputs
        if completion.dynamic_batching:
            auto_complete_model_config.set_dynamic_batching()
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model and check the configuration against it.

        Raises:
            TritonModelException: configuration, parameters or ONNX file are at fault; the load fails with its text.

        """
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            session = _session(config, folder, args["model_instance_kind"], int(args["model_instance_device_id"]))
            model = served_model(config)
            check_model(model, session.signature)
        except ModelSetupError as exc:
            raise pb_utils.TritonModelException(str(exc)) from exc
        for remark in session_settings(config).remarks:
            pb_utils.Logger.log_warn(f"model '{model.name}': {remark}")
        self._runner = BatchRunner(batch_plan(model, session.signature), session)
        tensors = session.signature.inputs | session.signature.overridable
        self._readers: dict[str, Callable[[_Tensor], Array]] = {
            name: _READERS[tensor.data_type] for name, tensor in tensors.items() if tensor.data_type in _READERS
        }
        self._bfloat16_outputs = frozenset(output.name for output in model.outputs if output.data_type == BF16)

    def execute(self, requests: Sequence[_Request]) -> list[Any]:
        """Answer every request of one Triton batch, in order."""
        read: list[Request | RunError] = [self._read(request) for request in requests]
        answers = iter(self._runner.run([request for request in read if isinstance(request, Request)]))
        return [self._response(request if isinstance(request, RunError) else next(answers)) for request in read]

    def _read(self, request: _Request) -> Request | RunError:
        readers = self._readers
        try:
            if readers:
                inputs = {tensor.name(): readers.get(tensor.name(), _as_numpy)(tensor) for tensor in request.inputs()}
            else:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        except RunError as exc:
            return exc
        except pb_utils.TritonModelException as exc:
            return RunError(str(exc), invalid_argument=True)
        return Request(inputs, frozenset(request.requested_output_names()))

    def _response(self, answer: Answer) -> Any:  # noqa: ANN401 - the stub's own type
        if isinstance(answer, RunError):
            code = pb_utils.TritonError.INVALID_ARG if answer.invalid_argument else pb_utils.TritonError.INTERNAL
            return pb_utils.InferenceResponse([], pb_utils.TritonError(str(answer), code))
        if self._bfloat16_outputs:
            return pb_utils.InferenceResponse([self._tensor(name, array) for name, array in answer.items()])
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in answer.items()])

    def _tensor(self, name: str, array: Array) -> Any:  # noqa: ANN401 - the stub's own type
        if name in self._bfloat16_outputs:
            return pb_utils.Tensor.from_dlpack(name, bfloat16_from_bits(array))
        return pb_utils.Tensor(name, array)


def _session(config: Json, folder: Path, kind: str, device_id: int) -> "OnnxSession":
    # Importing onnxruntime takes longer than all else: a complete configuration needs it in `initialize` only.
    from .session import OnnxSession, model_file  # noqa: PLC0415

    path = model_file(folder, config.get("default_model_filename", ""))
    return OnnxSession(path, session_settings(config), providers_of(config, kind, device_id))


def _auto_complete_kind(config: Json) -> str:
    kinds = {group.get("kind") for group in config.get("instance_group", ())}
    return "GPU" if "KIND_GPU" in kinds else "CPU"


def _as_numpy(tensor: _Tensor) -> Array:
    array: Array = tensor.as_numpy()
    return array


def _strings(tensor: _Tensor) -> Array:
    return strings_for_onnxruntime(tensor.as_numpy())


def _bits(tensor: _Tensor) -> Array:
    return bits_from_bfloat16(tensor.to_dlpack())


_READERS: Final[Mapping[str, Callable[[_Tensor], Array]]] = {STRING: _strings, BF16: _bits}
