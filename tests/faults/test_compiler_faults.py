"""A compiler that crashes, hangs, eats memory or lies fails its own target with its log; no process is left behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from builders.tensorrt.bounded_log import HEAD_BYTES, TAIL_BYTES
from builders.tensorrt.errors import EngineError, EngineLimitError
from builders.tensorrt.limited import Limits, run_limited
from tests.embedded_triton import seconds_until
from tests.faults.compiler_stand_in import SPAWNED
from tests.faults.faulty_compile import compile_with

ROOT = Path(__file__).parents[2]


def spawned(folder: Path) -> list[psutil.Process]:
    """Return the compiler's process, its guard and its child, once they are there."""
    note = folder / SPAWNED
    seconds_until(lambda: note.is_file() and len(note.read_text().split()) == 3, 20)
    return [psutil.Process(int(pid)) for pid in note.read_text().split()]


def gone(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        ("crash", EngineLimitError, r"the compiler crashed \(SIGSEGV\).*\[E\] about to touch what is not there$"),
        ("exit-3", EngineError, r"ended with exit code 3; .*no kernel image$"),
        ("killed", EngineLimitError, r"killed from outside \(signal 9\), most likely .* memory ran out"),
        ("full", EngineLimitError, "the engine could not be written: no space"),
        ("garbage", EngineError, "ended without an answer that can be read"),
        ("nothing", EngineError, "ended without an answer that can be read; .*: nothing$"),
        ("no-engine", EngineError, "answered that it built an engine and left none"),
    ],
)
def test_each_end_of_the_compiler_is_one_sentence(
    fault: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says) as caught:
        compile_with(fault, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "out.engine.log") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["out.engine.log"]


def test_a_hang_ends_at_the_time_limit_with_all_that_it_started(tmp_path: Path) -> None:
    with pytest.raises(EngineLimitError, match=r"stopped after its 1\.5 s; .*timing tactics$"):
        compile_with("hang", tmp_path, time_limit_s=1.5)
    pids = [int(pid) for pid in (tmp_path / SPAWNED).read_text().split()]
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    seconds_until(lambda: gone(alive), 5)


def test_a_compiler_that_takes_all_memory_is_stopped_near_its_limit(tmp_path: Path) -> None:
    with pytest.raises(EngineLimitError, match="stopped at its memory limit of 256 MiB"):
        compile_with("allocate", tmp_path, memory_mib=256)


def test_a_log_without_end_is_kept_at_its_beginning_and_its_end(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"exit code 1; .*\[E\] the end of it$"):
        compile_with("chat", tmp_path)
    log = tmp_path / "out.engine.log"
    assert HEAD_BYTES + TAIL_BYTES <= log.stat().st_size <= HEAD_BYTES + TAIL_BYTES + 2 * 65536
    assert b"bytes of log left out here" in log.read_bytes()


@dataclass(frozen=True, slots=True)
class Hanging:
    """A builder process whose compiler hangs; the compiler's guard, and what the compiler itself started."""

    builder: subprocess.Popen[bytes]
    compiler: psutil.Process
    guard: psutil.Process
    started: psutil.Process

    @property
    def all(self) -> list[psutil.Process]:
        return [self.compiler, self.guard, self.started]


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    code = (
        "from pathlib import Path; from tests.faults.faulty_compile import compile_with; "
        f"compile_with('hang', Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as builder:
        processes = spawned(tmp_path)
        try:
            yield Hanging(builder, *processes)
        finally:
            builder.kill()
            for one in processes:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def test_a_builder_killed_leaves_no_compiler_behind(hanging: Hanging) -> None:
    assert not gone(hanging.all)
    hanging.builder.kill()
    seconds_until(lambda: gone(hanging.all), 5)


def test_a_guard_killed_takes_its_compiler_along(hanging: Hanging) -> None:
    hanging.guard.kill()
    _, error = hanging.builder.communicate(timeout=20)
    seconds_until(lambda: gone(hanging.all), 5)
    assert b"EngineLimitError" in error


def test_a_builder_and_a_guard_killed_at_once_leave_no_compiler(hanging: Hanging) -> None:
    hanging.guard.suspend()  # it shall not see the builder's end
    hanging.builder.kill()
    hanging.builder.wait(20)
    hanging.guard.kill()
    # What the compiler itself started has nobody left to end it: TensorRT starts nothing.
    seconds_until(lambda: gone([hanging.compiler, hanging.guard]), 5)


def test_a_log_that_cannot_be_written_ends_the_compile_with_all_that_it_started(tmp_path: Path) -> None:
    request_file = tmp_path / "request.json"
    request_file.write_text('{"onnx": "/hang.onnx"}')
    (tmp_path / "folder").mkdir()
    arguments = [str(request_file), str(tmp_path / "folder")]
    with pytest.raises(OSError, match="No space left on device"):
        run_limited("tests.faults.compiler_stand_in", arguments, Limits(1 << 40, 20), Path("/dev/full"))
    pids = [int(pid) for pid in (tmp_path / SPAWNED).read_text().split()]
    seconds_until(lambda: gone([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]), 5)
