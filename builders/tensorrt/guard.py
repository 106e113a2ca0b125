"""The parent of one compiler process: whoever dies, no compiler is left behind.

`limited` starts it as `python -m builders.tensorrt.guard <builder's pid> <module> <arguments>`, in a session of its
own. It forks the child that runs the module, and then only waits: on the child, whose end it passes on, and on the
builder. When the builder is gone (killed -9 included) it kills its whole process group, itself with it. When the guard
itself is killed, the kernel kills the child (PR_SET_PDEATHSIG). A process that starts a session of its own escapes.

Two processes, because a thread inside the compiler's process could not wait: a compiler may hold the interpreter lock.
"""

import ctypes
import os
import resource
import runpy
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Run a module in a child until it or the builder ends."""
    builder, module = int(arguments[0]), arguments[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash shall not write gigabytes
    try:
        builder_fd = os.pidfd_open(builder)
    except ProcessLookupError:
        return
    if os.getppid() != builder:  # the builder died, and its number is another's
        return
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(builder_fd)
        _run(module, arguments[1:], guard)
        return
    child_fd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(builder_fd, select.POLLIN)
    poll.register(child_fd, select.POLLIN)
    if builder_fd in {descriptor for descriptor, _ in poll.poll()}:
        os.killpg(0, signal.SIGKILL)
    _end_as(os.waitpid(child, 0)[1])


def _run(module: str, arguments: list[str], guard: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:
        os._exit(1)
    with suppress(OSError):  # where memory runs out, the kernel shall take this process first, not the builder
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    sys.argv = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_as(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])
