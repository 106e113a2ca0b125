"""Runs a module in a process of its own with a memory and a time limit; afterwards nothing of it is left.

`compile` says which module and what its end means. The process is in a session of its own under `guard`; its output
goes to a bounded log. Memory is watched, not limited by the kernel: RLIMIT_AS counts address space, of which CUDA
reserves as much as all GPUs and the host have, so a limit that stops a runaway compiler would stop every GPU build
too, and RLIMIT_RSS has no effect. What counts is private and shared memory of the process and its descendants
(RssAnon, RssShmem, VmSwap), not mapped files. A process that allocates faster than it is looked at overshoots by what
it takes in one interval; where the machine runs out first, the kernel takes this process before others.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from builders.tensorrt.bounded_log import BoundedLog

_LOOK_S = 0.05
_READ_BYTES = 65536
_COUNTED = ("RssAnon:", "RssShmem:", "VmSwap:")


@dataclass(frozen=True, slots=True)
class Limits:
    """Host memory in bytes, and seconds from the start of the process."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended. `status` is its exit code, or minus the signal that killed it.

    `stopped` says which limit it was killed at; "" where it ended by itself.
    """

    status: int
    stopped: Literal["", "time", "memory"]
    peak_bytes: int


def run_limited(module: str, arguments: Sequence[str], limits: Limits, log: Path) -> ChildEnd:
    """Run `python -m module arguments` until it ends or passes a limit, its output in the file `log`.

    An exception in here (KeyboardInterrupt included) kills the process too. Raises OSError where the log cannot be
    written.
    """
    with BoundedLog(log) as bounded:
        return _run_guarded([module, *arguments], limits, bounded)


def _run_guarded(arguments: Sequence[str], limits: Limits, log: BoundedLog) -> ChildEnd:
    guard = subprocess.Popen(
        [sys.executable, "-P", "-m", "builders.tensorrt.guard", str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        start_new_session=True,
    )
    with guard:
        assert guard.stdout is not None  # noqa: S101 - asked for above
        os.set_blocking(guard.stdout.fileno(), False)
        try:
            stopped, peak = _watch(guard.pid, guard.stdout, limits, log)
        finally:
            # Not reaped yet, the guard still holds its number: the group is certainly its own.
            with suppress(ProcessLookupError):
                os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
        while _copy(guard.stdout, log):
            pass
    return ChildEnd(guard.returncode, stopped, peak)


def _watch(pid: int, output: IO[bytes], limits: Limits, log: BoundedLog) -> tuple[Literal["", "time", "memory"], int]:
    """Copy output until the process ends by itself or passes a limit. Returns which, and the most memory seen."""
    begin = time.monotonic()
    look_at, peak = begin, 0
    stopped: Literal["", "time", "memory"] = ""
    ended_fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended_fd, select.POLLIN)
        poll.register(output, select.POLLIN)
        while not stopped:
            ready = {descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)}
            if output.fileno() in ready and not _copy(output, log):
                poll.unregister(output)
            if ended_fd in ready:
                break
            now = time.monotonic()
            if now - begin >= limits.seconds:
                stopped = "time"
            elif now >= look_at:
                look_at = now + _LOOK_S
                peak = max(peak, memory_of(pid))
                stopped = "memory" if peak > limits.memory_bytes else ""
    finally:
        os.close(ended_fd)
    return stopped, peak


def _copy(output: IO[bytes], log: BoundedLog) -> bool:
    """Copy what is there now. False where there is nothing (yet, or any more)."""
    with suppress(BlockingIOError):
        data = os.read(output.fileno(), _READ_BYTES)
        log.write(data)
        return bool(data)
    return False


def memory_of(pid: int) -> int:
    """Return the bytes of memory of a process and its descendants; those that end meanwhile count 0."""
    return sum(_own_memory(one) for one in _family(pid))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text(encoding="ascii").split():
                yield from _family(int(child))


def _own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(_COUNTED))


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the child imports what this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
