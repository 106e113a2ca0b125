"""An opened engine: reads what it says of itself, and runs it over NumPy arrays with CUDA's memory.

The TensorRT module and `cuda.Cuda` are handed in: tests hand in stand-ins, `tests/gpu` the real ones, of TensorRT as of
TensorRT-RTX (the calls are the same). Never run on a GPU yet. One thread at a time, as Triton's Python stub does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from .cuda import CudaError, run_error
from .errors import ModelSetupError, RunError
from .profiles import choose_profile
from .signature import (
    CONFIG_TYPE_BY_ENGINE,
    DTYPE,
    Array,
    EngineSignature,
    Profile,
    Shape,
    ShapeRange,
    TensorInfo,
)

WHY_INVALID: Final[Mapping[str, str]] = {
    "VERSION_MISMATCH": "it was compiled by another version of TensorRT-RTX",
    "UNSUPPORTED_CC": "it is for another GPU architecture",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "it is damaged, or no engine",
    "CUDA_ERROR": "CUDA failed",
}
"""Members of TensorRT-RTX's EngineInvalidityDiagnostics, a bit mask."""


class Memory(Protocol):
    """The part of `cuda.Cuda` that a run needs."""

    stream: int
    compute_capability: str

    def make_current(self) -> None:
        """Make the GPU the calling thread's."""

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes. Raises CudaError."""

    def free(self, address: int) -> None:
        """Give them back."""

    def upload(self, address: int, array: Array) -> None:
        """Copy an array to the GPU."""

    def download(self, array: Array, address: int) -> None:
        """Copy from the GPU."""

    def synchronize(self) -> None:
        """Wait for both."""


class Engine:
    """One engine with one execution context. Device buffers grow to the largest batch seen and are kept."""

    def __init__(self, trt: Any, logger: Any, path: Path, memory: Memory) -> None:  # noqa: ANN401 - untyped module
        """Open the engine at `path` on the GPU of `memory`.

        Raises:
            ModelSetupError: it is not for this GPU or this TensorRT, damaged, or has tensors that cannot be served.

        """
        self._memory = memory
        # Kept: an engine must not outlive its runtime, nor a context its engine.
        self._runtime = trt.Runtime(logger)
        content = _read(path)
        _check_validity(trt, self._runtime, content, path, memory)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise ModelSetupError(
                f"engine '{path.name}' cannot be opened by {trt.__name__} {trt.__version__} on this GPU (compute "
                f"capability {memory.compute_capability}); the reason is in the server's log"
            )
        self.signature = _signature(trt, self._engine)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ModelSetupError(
                f"engine '{path.name}' cannot be made ready to run: too little GPU memory, most likely"
            )
        self._buffers: dict[str, tuple[int, int]] = {}

    def run(self, feed: Mapping[str, Array], wanted: frozenset[str]) -> dict[str, Array]:
        """Compute the outputs `wanted`.

        Raises:
            RunError: no profile takes the shapes, or the GPU failed.

        """
        profile = choose_profile(self.signature.profiles, {name: array.shape for name, array in feed.items()})
        try:
            self._memory.make_current()
            self._select(profile)
            # Held until the stream has read them.
            inputs = {name: self._contiguous(name, array) for name, array in feed.items()}
            for name, array in feed.items():
                self._bind_input(name, array.shape, inputs[name])
            arrays = {name: self._bind_output(tensor) for name, tensor in self.signature.outputs.items()}
            if not self._context.execute_async_v3(self._memory.stream):
                raise RunError("the engine did not run; the reason is in the server's log", invalid_argument=False)
            for name in wanted:
                self._memory.download(arrays[name], self._buffers[name][0])
            self._memory.synchronize()
        except CudaError as exc:
            raise run_error(exc) from exc
        return {name: arrays[name] for name in arrays if name in wanted}

    def _select(self, profile: int) -> None:
        if self._context.active_optimization_profile == profile:
            return
        if not self._context.set_optimization_profile_async(profile, self._memory.stream):
            raise RunError(f"the engine refused its optimization profile {profile}", invalid_argument=False)
        self._memory.synchronize()

    def _contiguous(self, name: str, array: Array) -> Array:
        return np.ascontiguousarray(array, DTYPE[self.signature.inputs[name].data_type])

    def _bind_input(self, name: str, shape: Shape, array: Array) -> None:
        if not self._context.set_input_shape(name, shape):
            raise RunError(f"the engine refused shape {list(shape)} of input '{name}'", invalid_argument=True)
        address = self._buffer(name, array.nbytes)
        self._memory.upload(address, array)
        self._context.set_tensor_address(name, address)

    def _bind_output(self, tensor: TensorInfo) -> Array:
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        if any(dim < 0 for dim in shape):
            raise RunError(
                f"the shape of output '{tensor.name}' depends on the data ({list(shape)}), which is not supported",
                invalid_argument=False,
            )
        array = np.empty(shape, DTYPE[tensor.data_type])
        self._context.set_tensor_address(tensor.name, self._buffer(tensor.name, array.nbytes))
        return array

    def _buffer(self, name: str, size: int) -> int:
        """Return the address of at least `size` bytes (one at least: an address must not be null)."""
        address, room = self._buffers.get(name, (0, 0))
        if room >= max(size, 1):
            return address
        if room:
            del self._buffers[name]
            self._memory.free(address)
        address = self._memory.allocate(max(size, 1))
        self._buffers[name] = (address, max(size, 1))
        return address


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ModelSetupError(f"engine '{path}' cannot be read: {exc.strerror}") from exc


def _check_validity(trt: Any, runtime: Any, content: bytes, path: Path, memory: Memory) -> None:  # noqa: ANN401
    """Ask TensorRT-RTX whether the engine is for this GPU and version. TensorRT itself has no such question."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(content[: runtime.engine_header_size])
    if validity != trt.EngineValidity.INVALID:
        return
    members = trt.EngineInvalidityDiagnostics.__members__
    reasons = [why for name, why in WHY_INVALID.items() if name in members and int(diagnostics) & int(members[name])]
    raise ModelSetupError(
        f"engine '{path.name}' cannot run here: {', and '.join(reasons) or 'TensorRT-RTX gives no reason'} (this is "
        f"TensorRT-RTX {trt.__version__} on a GPU of compute capability {memory.compute_capability})"
    )


def _signature(trt: Any, engine: Any) -> EngineSignature:  # noqa: ANN401 - a module without types
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    shape_tensors = [name for name in names if engine.is_shape_inference_io(name)]
    if shape_tensors:
        raise ModelSetupError(f"tensor '{shape_tensors[0]}' gives a shape, not data: such an engine cannot be served")
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return EngineSignature(
        inputs={name: _tensor(engine, name) for name in inputs},
        outputs={name: _tensor(engine, name) for name in names if name not in inputs},
        profiles=tuple(_profile(engine, inputs, index) for index in range(engine.num_optimization_profiles)),
    )


def _tensor(engine: Any, name: str) -> TensorInfo:  # noqa: ANN401 - a module without types
    engine_type = engine.get_tensor_dtype(name).name
    data_type = CONFIG_TYPE_BY_ENGINE.get(engine_type, "TYPE_INVALID")
    return TensorInfo(name, data_type, engine_type, tuple(engine.get_tensor_shape(name)))


def _profile(engine: Any, inputs: list[str], index: int) -> Profile:  # noqa: ANN401 - a module without types
    return {name: ShapeRange(*map(tuple, engine.get_tensor_profile_shape(name, index))) for name in inputs}
