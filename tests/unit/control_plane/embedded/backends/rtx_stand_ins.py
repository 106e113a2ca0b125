"""Stand-ins for a GPU and for TensorRT: memory is a dictionary of bytes; the engine computes y = 2 * x, n = rows."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.cuda import CudaError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.signature import Array

WIDTH = 3
Range = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
SMALL: Range = ((1, WIDTH), (2, WIDTH), (4, WIDTH))
LARGE: Range = ((1, WIDTH), (8, WIDTH), (16, WIDTH))


class FakeMemory:
    """A GPU with room for `room` bytes."""

    stream = 7
    compute_capability = "8.9"

    def __init__(self, room: int = 1 << 20) -> None:
        self.room = room
        self.blocks: dict[int, bytearray] = {}
        self.next = 0x1000
        self.synchronized = 0

    def make_current(self) -> None:
        pass

    def allocate(self, size: int) -> int:
        if size > self.room:
            raise CudaError("cuMemAlloc_v2: out of memory (2)")
        self.room -= size
        self.next += 0x100000
        self.blocks[self.next] = bytearray(size)
        return self.next

    def free(self, address: int) -> None:
        self.room += len(self.blocks.pop(address))

    def upload(self, address: int, array: Array) -> None:
        assert array.flags.c_contiguous
        self.blocks[address][: array.nbytes] = array.tobytes()

    def download(self, array: Array, address: int) -> None:
        array[...] = np.frombuffer(self.blocks[address][: array.nbytes], array.dtype).reshape(array.shape)

    def synchronize(self) -> None:
        self.synchronized += 1


class FakeContext:
    """An execution context that works on `memory`. `fails` makes runs fail; `refuses` a shape."""

    def __init__(self, memory: FakeMemory) -> None:
        self.memory = memory
        self.active_optimization_profile = 0
        self.profiles_used: list[int] = []
        self.fails = False
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == self.memory.stream
        self.active_optimization_profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        self.shape = shape
        return True

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        return self.shape if name == "y" else (self.shape[0], 1)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.memory.stream
        if self.fails:
            return False
        self.profiles_used.append(self.active_optimization_profile)
        x = np.empty(self.shape, np.float32)
        self.memory.download(x, self.addresses["x"])
        self.memory.upload(self.addresses["y"], 2 * x)
        self.memory.upload(self.addresses["n"], np.full((len(x), 1), len(x), np.int32))
        return True


class FakeEngine:
    """x FP32 [-1, WIDTH] to y FP32 [-1, WIDTH] and n INT32 [-1, 1]."""

    num_io_tensors = 3
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {  # noqa: RUF012 - a table
        "x": ("FLOAT", (-1, WIDTH)),
        "y": ("FLOAT", (-1, WIDTH)),
        "n": ("INT32", (-1, 1)),
    }
    shape_tensor = ""

    def __init__(self, context: FakeContext, profiles: Sequence[Range]) -> None:
        self.context = context
        self.profiles = profiles
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def is_shape_inference_io(self, name: str) -> bool:
        return name == self.shape_tensor

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "x" else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][1]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert name == "x"
        return list(self.profiles[index])

    def create_execution_context(self) -> FakeContext:
        return self.context


class FakeRtx:
    """The module. `engine` None: nothing opens; `invalid` is the bit mask of what makes it so."""

    __name__ = "tensorrt_rtx_bindings"
    __version__ = "1.7.1.116"
    TensorIOMode = SimpleNamespace(INPUT="input")
    EngineValidity = SimpleNamespace(INVALID=2)
    EngineInvalidityDiagnostics = SimpleNamespace(
        __members__={"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32}
    )

    def __init__(self, engine: FakeEngine | None, invalid: int | None = None) -> None:
        self.engine, self.invalid = engine, invalid

    def Runtime(self, _logger: object) -> Any:  # noqa: N802 - TensorRT's name
        def get_engine_validity(header: bytes) -> tuple[int, int]:
            assert len(header) <= 64
            return (0, 0) if self.invalid is None else (2, self.invalid)

        return SimpleNamespace(
            engine_header_size=64,
            get_engine_validity=get_engine_validity,
            deserialize_cuda_engine=lambda _content: self.engine,
        )
