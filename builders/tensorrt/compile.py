"""compile_engine: one engine, compiled in a process of its own. A crash or a hang of the compiler fails that target.

The pipeline calls it for each target of TensorRT and TensorRT-RTX, one after the other. Everything that can happen to
the process becomes one sentence with its last relevant log line; the whole log stays beside the engine.
"""

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from builders.errors import BuildError, MissingExtraError
from builders.machine import is_machine_trouble
from builders.tensorrt.bounded_log import last_lines
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.limited import ChildEnd, Limits, run_limited
from builders.tensorrt.request import (
    ANSWER_FILENAME,
    ENGINE_FILENAME,
    INSPECTOR_FILENAME,
    Built,
    EngineRequest,
    EngineResult,
    Refused,
    parse_answer,
)

CHILD = "builders.tensorrt.child"

Report = Callable[[str], None]

_MAX_LINE = 300
_RELEVANT = ("[F]", "[E]")


def compile_engine(request: EngineRequest, out: Path, report: Report, child: str = CHILD) -> EngineResult:
    """Compile `request` into the file `out`; the log goes to `<out>.log`, the inspector's output to `<out>.json`.

    `report` is told what is being done. A builder that is killed leaves a folder `.engine-*` beside `out`, and no
    process.

    Raises:
        MissingExtraError: the compiler's module is not installed.
        EngineError: the compiler refused the model, or answered with what is no answer.
        EngineLimitError: it was stopped at its memory or time limit, crashed, or lacked memory, disk or a GPU.
        OSError: the files cannot be written.

    """
    log = out.with_name(f"{out.name}.log")
    report(f"compile {request.target}")
    with tempfile.TemporaryDirectory(prefix=".engine-", dir=out.parent) as name:
        folder = Path(name)
        request_file = folder / "request.json"
        request_file.write_bytes(request.to_json())
        limits = Limits(request.memory_limit_bytes, request.time_limit_s)
        end = run_limited(child, [str(request_file), str(folder)], limits, log)
        if (problem := _ended_badly(request, end, log)) is not None:
            raise problem
        built = _answer(request, folder, log)
        (folder / ENGINE_FILENAME).replace(out)
        inspector = out.with_name(f"{out.name}.json") if built.inspected else None
        if inspector is not None:
            (folder / INSPECTOR_FILENAME).replace(inspector)
    return EngineResult(out, inspector, log, built.seconds, end.peak_bytes, dict(built.toolchain), built.timing_cache)


def _ended_badly(request: EngineRequest, end: ChildEnd, log: Path) -> BuildError | None:
    match end.stopped:
        case "time":
            return EngineLimitError(_sentence(request, f"was stopped after its {request.time_limit_s:g} s", log))
        case "memory":
            limit = f"its memory limit of {request.memory_limit_bytes >> 20} MiB"
            return EngineLimitError(_sentence(request, f"was stopped at {limit}", log))
    if end.status == -signal.SIGKILL:
        reason = "was killed from outside (signal 9), most likely by the kernel because memory ran out"
        return EngineLimitError(_sentence(request, reason, log))
    if end.status < 0:
        return EngineLimitError(_sentence(request, f"crashed ({signal.Signals(-end.status).name})", log))
    if end.status > 0:
        error = EngineLimitError if is_machine_trouble(_last_relevant(log)) else EngineError
        return error(_sentence(request, f"ended with exit code {end.status}", log))
    return None


def _answer(request: EngineRequest, folder: Path, log: Path) -> Built:
    path = folder / ANSWER_FILENAME
    answer = parse_answer(path.read_bytes()) if path.is_file() else None
    match answer:
        case None:
            raise EngineError(_sentence(request, "ended without an answer that can be read", log))
        case Refused(missing=missing) if missing:
            raise MissingExtraError(missing, request.target.runtime) from ImportError(answer.problem)
        case Refused():
            error = EngineLimitError if answer.retryable else EngineError
            raise error(f"{request.target}: {answer.problem} (log: {log})")
        case Built():
            engine = folder / ENGINE_FILENAME
            if not engine.is_file() or not engine.stat().st_size:
                raise EngineError(_sentence(request, "answered that it built an engine and left none", log))
            return answer


def _sentence(request: EngineRequest, ended: str, log: Path) -> str:
    return f"{request.target}: the compiler {ended}; last in its log ({log}): {_last_relevant(log)}"


def _last_relevant(log: Path) -> str:
    lines = last_lines(log)
    chosen = next((line for line in reversed(lines) if line.startswith(_RELEVANT)), lines[-1] if lines else "nothing")
    return chosen[:_MAX_LINE]
