"""One engine from one ONNX file, with either TensorRT module. Runs inside the compiler's process (`child`).

Networks are strongly typed: the precision is that of the ONNX graph (casts, QDQ). What is known to end in a bare
"None" or in the compiler's own words is checked first; the compiler's own errors become one sentence.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from builders.machine import is_machine_trouble
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.profiles import profile_problems
from builders.tensorrt.request import ENGINE_FILENAME, INSPECTOR_FILENAME, Built, EngineRequest
from builders.tensorrt.toolkit import Toolkit

MIB: Final = 1 << 20

# As TensorRT writes: who, "Error Code 4", what kind, and in parentheses the text and where in its source that is.
_SOURCE = re.compile(r"^\w+\.cpp:\d+: |^\(\w+\): ")
_ERROR = re.compile(r"(?:I\w+::\w+:|\[\S+::\d+\]) Error Code \d+: ([^(]+?) \((.*?)\.?(?: In \S+ at \S+:\d+.*)?\)$")

Severity = Literal["internal", "error", "warning", "info", "verbose"]
_TAGS: Final[dict[Severity, str]] = {"internal": "F", "error": "E", "warning": "W", "info": "I", "verbose": "V"}


@dataclass(slots=True)
class Messages:
    """What the compiler says: all of it printed for the log (of the verbose, what tells tactics), errors kept."""

    errors: list[str] = field(default_factory=list)

    def take(self, severity: Severity, text: str) -> None:
        """Take one message."""
        if severity == "verbose" and "actic" not in text:
            return
        print(f"[{_TAGS[severity]}] {text}", flush=True)  # noqa: T201 - the process's output is its log
        if severity in {"internal", "error"}:
            self.errors.append(text)

    def cause(self) -> str:
        """Return the first error on one line: the rest follows from it."""
        return _clean(self.errors[0]) if self.errors else "it gave no reason"


def build_engine(request: EngineRequest, toolkit: Toolkit, folder: Path) -> Built:
    """Write the engine (and the inspector's output, where there is one) into `folder`.

    Raises EngineError, OSError, EngineLimitError where this machine's memory or GPU is the cause.
    """
    messages = Messages()
    logger = _logger(toolkit.trt, messages)
    begin = time.monotonic()
    toolkit.prepare(request)
    builder = _builder(toolkit, logger, messages)
    network = builder.create_network(_network_flags(toolkit.trt))
    _parse(toolkit, network, logger, request.onnx, messages)
    config = builder.create_builder_config()
    cache_state = toolkit.configure(config, request)
    if request.workspace_mib is not None:
        config.set_memory_pool_limit(toolkit.trt.MemoryPoolType.WORKSPACE, request.workspace_mib * MIB)
    _add_profile(builder, config, network, request, messages)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _no_engine(toolkit, request, messages)
    seconds = time.monotonic() - begin
    with (folder / ENGINE_FILENAME).open("wb") as stream:
        stream.write(memoryview(serialized))  # without a second copy in memory
    toolkit.finish(config, request)
    inspected = toolkit.inspect(serialized, logger)
    if inspected is not None:
        (folder / INSPECTOR_FILENAME).write_text(inspected, encoding="utf-8")
    return Built(
        "built", seconds, {request.target.runtime: toolkit.version}, cache_state, inspected=inspected is not None
    )


def _logger(trt: Any, messages: Messages) -> Any:  # noqa: ANN401 - a module without types
    severities: dict[Any, Severity] = {
        trt.ILogger.INTERNAL_ERROR: "internal",
        trt.ILogger.ERROR: "error",
        trt.ILogger.WARNING: "warning",
        trt.ILogger.INFO: "info",
        trt.ILogger.VERBOSE: "verbose",
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is of a module without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants the base's own call

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401 - an enumeration's member
            messages.take(severities[severity], text)

    return Logger()


def _builder(toolkit: Toolkit, logger: Any, messages: Messages) -> Any:  # noqa: ANN401 - a module without types
    try:
        return toolkit.trt.Builder(logger)
    except TypeError as exc:  # pybind11's, of a constructor that gave nothing: only CUDA is opened yet
        raise EngineLimitError(f"{toolkit} cannot start here: {messages.cause()}") from exc


def _network_flags(trt: Any) -> int:  # noqa: ANN401 - a module without types
    """Return the flag for a strongly typed network; where it is gone (TensorRT 11), every network is one."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(toolkit: Toolkit, network: Any, logger: Any, onnx: Path, messages: Messages) -> None:  # noqa: ANN401
    parser = toolkit.trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise EngineError(_parser_problem(toolkit, onnx, errors, messages))
    if network.num_outputs == 0:  # an empty file parses without an error
        raise EngineError(f"{onnx.name} holds no network with an output: it is empty or not a model")


def _parser_problem(toolkit: Toolkit, onnx: Path, errors: Sequence[Any], messages: Messages) -> str:
    error = next((error for error in errors if error.node() >= 0), None)
    if error is None:
        return f"{toolkit} cannot read {onnx.name}: {messages.cause()}"
    description = _clean(error.desc())
    why = error.code().name if description in {"", "false"} else f"{error.code().name}, {description}"
    node = f"node '{error.node_name()}'" if error.node_name() else f"node number {error.node()}"
    return f"{toolkit} cannot take {node} ({error.node_operator()}) of {onnx.name}: {why}"


def _add_profile(builder: Any, config: Any, network: Any, request: EngineRequest, messages: Messages) -> None:  # noqa: ANN401
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
    problems = profile_problems(shapes, request.inputs)
    problems += [
        f"input '{tensor.name}' gives a shape, not data: an engine with such an input cannot be served"
        for tensor in tensors
        if tensor.is_shape_tensor
    ]
    if problems:
        raise EngineError(f"the ranges do not fit {request.onnx.name}: {'; '.join(problems)}")
    if not request.inputs:
        return
    profile = builder.create_optimization_profile()
    for entry in request.inputs:
        profile.set_shape(entry.name, entry.min, entry.opt, entry.max)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"the ranges were refused for {request.onnx.name}: {messages.cause()}")


def _no_engine(toolkit: Toolkit, request: EngineRequest, messages: Messages) -> EngineError | EngineLimitError:
    cause = messages.cause()
    text = f"{toolkit} cannot compile {request.onnx.name} for {request.target.device}: {cause}"
    if "OutOfMemory" in cause and request.workspace_mib is not None:
        text += f"; the workspace limit is {request.workspace_mib} MiB"
    return EngineLimitError(text) if any(map(is_machine_trouble, messages.errors)) else EngineError(text)


def _clean(text: str) -> str:
    """Return a message on one line, without the compiler's function names and source positions."""
    line = _SOURCE.sub("", " ".join(text.split()))
    match = _ERROR.match(line)
    return f"{match[1]}: {match[2]}" if match else line
