"""EngineRequest: what one compiler process is asked for; EngineResult: what it made. Both pass as JSON files.

`compile` writes the request and reads the answer; `child` does the opposite. One request is one target: a build for
several architectures is several requests, run one after the other or on several machines.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from builders.forms import InputRange
from builders.targets import Target

HardwareCompatible = Literal["none", "ampere_plus", "same_compute_capability"]

ANSWER_FILENAME = "answer.json"
ENGINE_FILENAME = "engine"
INSPECTOR_FILENAME = "inspector.json"
"""Names in the folder that a child works in."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One engine. `onnx` and `timing_cache` are absolute paths.

    `inputs` holds a range for each input with a dynamic dimension. `workspace_mib` None leaves the compiler's own
    limit. `timing_cache` is a folder, shared by builds on one machine (TensorRT alone). `memory_limit_bytes` is host
    memory; `time_limit_s` counts from the start of the process.
    """

    onnx: Path
    target: Target
    inputs: tuple[InputRange, ...] = ()
    workspace_mib: int | None = None
    version_compatible: bool = False
    hardware_compatible: HardwareCompatible = "none"
    timing_cache: Path | None = None
    memory_limit_bytes: int = 16 << 30
    time_limit_s: float = 3600.0

    def to_json(self) -> bytes:
        """Return the request's text."""
        return _REQUEST.dump_json(self, indent=2)


@dataclass(frozen=True, slots=True)
class EngineResult:
    """A compiled engine. `toolchain` has the compiler's version by its runtime.

    `timing_cache` is "none" (not asked for, or a compiler without one), "new", "used", or "ignored: <why>".
    `seconds` is the compiler's own time, `peak_bytes` the most host memory seen.
    """

    engine: Path
    inspector: Path | None
    log: Path
    seconds: float
    peak_bytes: int
    toolchain: dict[str, str]
    timing_cache: str = "none"


@dataclass(frozen=True, slots=True)
class Built:
    """A child's answer: the engine is in its folder, and with `inspected` the inspector's output too."""

    kind: Literal["built"]
    seconds: float
    toolchain: dict[str, str]
    timing_cache: str
    inspected: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A child's answer: why there is no engine, one sentence. `missing` names a module that is not installed.

    `retryable`: what stood in the way was this machine (a full disk, no GPU to be used), not the request.
    """

    kind: Literal["refused"]
    problem: str
    missing: str = ""
    retryable: bool = False


Answer = Built | Refused

_REQUEST = TypeAdapter(EngineRequest)
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


def parse_request(text: bytes) -> EngineRequest:
    """Return the request in `text`. Raises ValueError."""
    return _REQUEST.validate_json(text)


def answer_json(answer: Answer) -> bytes:
    """Return the text of a child's answer."""
    return _ANSWER.dump_json(answer, indent=2)


def parse_answer(text: bytes) -> Answer | None:
    """Return the answer in `text`, or None where it is none."""
    try:
        return _ANSWER.validate_json(text)
    except ValueError:
        return None
