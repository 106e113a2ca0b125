"""The only module that touches onnxruntime: opens a model with its settings, runs it, and translates its errors.

`runner` calls `OnnxSession.run` once per batch. Plain `InferenceSession.run` takes NumPy arrays without a copy and
gives its outputs without one; on the CPU I/O binding saves nothing over it. bfloat16, which that call cannot carry,
goes through `OrtValue`.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from .datatypes import BF16, Array
from .errors import ModelSetupError, RunError
from .providers import CPU, Provider
from .settings import SessionSettings
from .signature import ModelSignature, signature_of

_BFLOAT16_ELEMENT: Final = 16
"""TensorProto.BFLOAT16 (onnx.proto), which onnxruntime's API takes as a number."""

_BAD_INPUT: Final = (ort_errors.InvalidArgument, ValueError, TypeError)
_OWN_ERRORS: Final[tuple[type[Exception], ...]] = tuple(
    error for error in vars(ort_errors).values() if isinstance(error, type) and issubclass(error, Exception)
)
"""All that onnxruntime raises for itself: they have no base class in common, and each release adds some."""

_FAILURES: Final[tuple[type[Exception], ...]] = (*_OWN_ERRORS, RuntimeError, MemoryError)


def model_file(folder: Path, filename: str) -> Path:
    """Return the ONNX file `filename` of a version `folder`; a directory stands for the `model.onnx` inside.

    Raises:
        ModelSetupError: there is no such file.

    """
    path = folder / (filename or "model.onnx")
    if path.is_dir():
        path /= "model.onnx"
    if not path.is_file():
        raise ModelSetupError(f"unable to find '{path}'")
    return path


class OnnxSession:
    """An opened model."""

    def __init__(self, path: Path, settings: SessionSettings, providers: Sequence[Provider]) -> None:
        """Open `path`.

        Raises:
            ModelSetupError: a required provider is missing or does not start, or onnxruntime refuses the model.

        """
        self._session = _opened(path, settings, providers)
        self.signature: ModelSignature = signature_of(self._session)
        self._run_options = _run_options(settings)
        tensors = self.signature.inputs | self.signature.overridable
        self._bfloat16 = frozenset(name for name, tensor in tensors.items() if tensor.data_type == BF16)
        outputs = self.signature.outputs.values()
        self._by_ort_value = bool(self._bfloat16) or any(tensor.data_type == BF16 for tensor in outputs)

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs `names`, in that order. bfloat16 tensors are arrays of their bits (`uint16`).

        Raises:
            RunError: onnxruntime refused the input or failed.

        """
        try:
            if self._by_ort_value:
                return self._run_ort_values(names, feed)
            outputs: list[Array] = self._session.run(names, feed, self._run_options)
        except _BAD_INPUT as exc:
            raise RunError(f"onnx runtime error: {exc}", invalid_argument=True) from exc
        except _FAILURES as exc:
            raise RunError(f"onnx runtime error: {exc}", invalid_argument=False) from exc
        return outputs

    def _run_ort_values(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16_ELEMENT)
            if name in self._bfloat16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in feed.items()
        }
        results = self._session.run_with_ort_values(names, values, self._run_options)
        return [
            _bits_of(result) if self.signature.outputs[name].data_type == BF16 else result.numpy()
            for name, result in zip(names, results, strict=True)
        ]


def _opened(path: Path, settings: SessionSettings, providers: Sequence[Provider]) -> Any:  # noqa: ANN401 - no stubs
    available = set(ort.get_available_providers())
    missing = [provider.name for provider in providers if provider.required and provider.name not in available]
    if missing:
        raise ModelSetupError(f"onnxruntime has no {missing[0]} here (it has {sorted(available)}); see README, extras")
    chosen = [provider for provider in providers if provider.name in available]
    try:
        session = ort.InferenceSession(
            str(path),
            _options(settings),
            providers=[(provider.name, provider.options) for provider in chosen],
            # Without this onnxruntime goes on with the CPU, unasked, when a GPU fails at start or later.
            enable_fallback=0,
        )
    except (*_BAD_INPUT, *_FAILURES) as exc:
        raise ModelSetupError(f"onnxruntime cannot load '{path}': {exc}") from exc
    started = set(session.get_providers())
    lost = [provider.name for provider in chosen if provider.required and provider.name not in started | {CPU}]
    if lost:
        raise ModelSetupError(f"{lost[0]} did not start; onnxruntime's reason is in the server's log")
    return session


def _options(settings: SessionSettings) -> Any:  # noqa: ANN401 - onnxruntime has no stubs
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, settings.graph_optimization)
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if settings.parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.memory_arena is not None:
        options.enable_cpu_mem_arena = settings.memory_arena
    if settings.memory_pattern is not None:
        options.enable_mem_pattern = settings.memory_pattern
    for key, value in settings.session_entries:
        options.add_session_config_entry(key, value)
    for library in settings.op_libraries:
        try:
            options.register_custom_ops_library(library)
        except (*_BAD_INPUT, *_FAILURES) as exc:
            raise ModelSetupError(f"cannot register the custom operators of '{library}': {exc}") from exc
    return options


def _run_options(settings: SessionSettings) -> Any:  # noqa: ANN401 - onnxruntime has no stubs
    if not settings.run_entries:
        return None
    options = ort.RunOptions()
    for key, value in settings.run_entries:
        options.add_run_config_entry(key, value)
    return options


def _bits_of(value: Any) -> Array:  # noqa: ANN401 - onnxruntime has no stubs
    shape = tuple(value.shape())
    bits = np.empty(shape, np.uint16)
    if bits.size:
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits
