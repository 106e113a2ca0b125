"""A model's ONNX Runtime parameters, read from its configuration into one frozen value; `session` applies them.

Parameter names, values and defaults are those of Triton's C++ backend: triton-inference-server/onnxruntime_backend,
README.md ("Model Config Options") and the ModelState constructor of src/onnxruntime.cc. Execution providers have their
own options: see `providers`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from .errors import ModelSetupError
from .model_config import Json

T = TypeVar("T")
D = TypeVar("D")

_SHRINKAGE: Final = "memory.enable_memory_arena_shrinkage"
_DEVICE_ALLOCATOR: Final = "session.use_device_allocator_for_initializers"
_SHRINKAGE_VALUE: Final = re.compile(r"(cpu|gpu):\d+(;(cpu|gpu):\d+)*")


class GraphOptimization(StrEnum):
    """ONNX Runtime's graph optimization levels, by the name of its enum constant."""

    DISABLED = "ORT_DISABLE_ALL"
    BASIC = "ORT_ENABLE_BASIC"
    EXTENDED = "ORT_ENABLE_EXTENDED"
    ALL = "ORT_ENABLE_ALL"


_BY_GRAPH_LEVEL: Final = {
    -1: GraphOptimization.BASIC,
    1: GraphOptimization.EXTENDED,
    2: GraphOptimization.DISABLED,
}
"""`optimization.graph.level`; every other value, 0 and absence included, means ALL."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How to open and run a session. None leaves onnxruntime's own default; 0 threads lets it choose."""

    graph_optimization: GraphOptimization
    parallel: bool
    intra_op_threads: int
    inter_op_threads: int
    memory_arena: bool | None
    memory_pattern: bool | None
    session_entries: tuple[tuple[str, str], ...]
    run_entries: tuple[tuple[str, str], ...]
    op_libraries: tuple[str, ...]
    remarks: tuple[str, ...]
    """What the configuration asks for and has no effect, one sentence each, for the log."""


def session_settings(config: Json) -> SessionSettings:
    """Read the settings of `config`.

    Raises:
        ModelSetupError: a value cannot be read; the text names parameter and value.

    """
    parameters = Parameters(config)
    if (mode := parameters.read("execution_mode", as_int, 0)) not in {0, 1}:
        raise ModelSetupError(f"parameter 'execution_mode' must be 0 (sequential) or 1 (parallel), got '{mode}'")
    device_allocator = parameters.text(_DEVICE_ALLOCATOR)
    shrinkage = parameters.read(_SHRINKAGE, _arena_list, None)
    graph = (config.get("optimization") or {}).get("graph") or {}
    return SessionSettings(
        graph_optimization=_BY_GRAPH_LEVEL.get(int(graph.get("level", 0)), GraphOptimization.ALL),
        parallel=mode == 1,
        intra_op_threads=max(0, parameters.read("intra_op_thread_count", as_int, 0)),
        inter_op_threads=max(0, parameters.read("inter_op_thread_count", as_int, 0)),
        memory_arena=parameters.read("enable_mem_arena", as_bool, None),
        memory_pattern=parameters.read("enable_mem_pattern", as_bool, None),
        session_entries=() if device_allocator is None else ((_DEVICE_ALLOCATOR, device_allocator),),
        run_entries=() if shrinkage is None else ((_SHRINKAGE, shrinkage),),
        op_libraries=tuple((config.get("model_operations") or {}).get("op_library_filename", ())),
        remarks=tuple(_remarks(config, parameters)),
    )


def _remarks(config: Json, parameters: "Parameters") -> list[str]:
    remarks = [
        f"parameter '{name}' has no effect: of session.*, this backend reads {_DEVICE_ALLOCATOR} only"
        for name in sorted(config.get("parameters") or {})
        if name.startswith("session.") and name != _DEVICE_ALLOCATOR
    ]
    if parameters.read("share_session_between_instances", as_bool, None):
        remarks.append("share_session_between_instances has no effect: each instance is a process of its own here")
    if config.get("cc_model_filenames"):
        remarks.append("cc_model_filenames has no effect: this backend always loads default_model_filename")
    return remarks


class Parameters:
    """The `parameters` map of a configuration: each value is `{"string_value": text}`."""

    def __init__(self, config: Json) -> None:
        self._values: Json = config.get("parameters") or {}

    def text(self, name: str) -> str | None:
        """Return the value of `name` as it stands, None where it is absent."""
        value = self._values.get(name)
        return None if value is None else str(value.get("string_value", ""))

    def read(self, name: str, parse: Callable[[str], T], default: D) -> T | D:
        """Return `parse` of the value of `name`, or `default` where it is absent.

        Raises:
            ModelSetupError: `parse` refuses the value.

        """
        text = self.text(name)
        return default if text is None else parsed(f"parameter '{name}'", text, parse)


def parsed(label: str, text: str, parse: Callable[[str], T]) -> T:
    """Return `parse(text)`; its ValueError becomes a ModelSetupError that names `label` and the value."""
    try:
        return parse(text)
    except ValueError as exc:
        raise ModelSetupError(f"{label}: cannot read '{text}': {exc}") from exc


def as_int(text: str) -> int:
    """Read a decimal integer of 32 bits. The C++ backend would take `4abc` for 4; here it is an error."""
    value = int(text)
    if not -(2**31) <= value < 2**31:
        raise ValueError("out of the range of a 32-bit integer")
    return value


def as_unsigned(text: str) -> int:
    """Read a decimal integer of 64 bits, not negative."""
    value = int(text)
    if not 0 <= value < 2**64:
        raise ValueError("out of the range of an unsigned 64-bit integer")
    return value


def as_bool(text: str) -> bool:
    """Read `true`, `1`, `false` or `0`, in any case."""
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
        case _:
            raise ValueError("expected true, false, 1 or 0")


def _arena_list(text: str) -> str:
    if not _SHRINKAGE_VALUE.fullmatch(text):
        raise ValueError("expected device:id pairs such as cpu:0;gpu:0")
    return text
