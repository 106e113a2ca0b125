"""`python -m tests.faults.killed_builds`: runs commands, each in a child of its own, which is killed where it is asked.

Reads a JSON object a line: `arguments` of `tritonfleet`, `folder`, `out`, `err`, `events`, `kill_at`. The child counts
what it does to files below `folder` (opens, renames, removes, makes) by Python's audit events, writes each as a line to
`events`, and kills itself -9 instead of doing number `kill_at`. Answers each line with the child's exit code, below 0
for a signal. This process imports once and runs nothing, so that a child costs no start of an interpreter.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command_line import Ended, environment

_WATCHED = {"open": 0, "os.rename": 1, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.chmod": 0}
"""Audit events by which of their arguments is the path."""
_VARIABLE = re.compile(r"[0-9a-f]{64}|(?<=/)[0-9a-f]{2}(?=/)|(?<=version-)\w{8}|(?<=staging/)tmp\w{8}")


def _watch(folder: str, events: int, kill_at: int | None) -> Callable[[str, tuple[Any, ...]], None]:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        place = _WATCHED.get(event)
        if place is None or not isinstance(arguments[place], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[place])
        if not path.startswith(folder):
            return
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        os.write(events, f"{event} {path[len(folder) :]}\n".encode())

    return hook


def _run(order: dict[str, Any]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    events = os.open(order["events"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(_watch(order["folder"], events, order["kill_at"]))
    from control_plane.cli.main import main  # noqa: PLC0415 - imported by the parent

    try:
        main(order["arguments"])
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0)  # what the parent imported has threads of the parent


def _serve() -> None:
    """Answer orders until there are no more."""
    import onnxruntime.quantization  # noqa: F401, PLC0415

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class KilledBuilds:
    """The process that runs commands on what lies in `folder`; `scratch` is a folder for what they print."""

    process: subprocess.Popen[str]
    scratch: Path

    def run(self, folder: Path, *arguments: str, kill_at: int | None = None) -> Ended:
        """Run a command, killed -9 at that event where one is given: its code is -9 then."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        files = {name: str(self.scratch / name) for name in ("out", "err", "events")}
        order = {"arguments": arguments, "folder": str(folder), "kill_at": kill_at, **files}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline()
        assert code, "the process that runs the commands has ended"
        return Ended(int(code), (self.scratch / "out").read_text(), (self.scratch / "err").read_text())

    def events(self) -> list[str]:
        """Return what the last command did to files, with every digest and number that varies left out."""
        lines = (self.scratch / "events").read_text().splitlines()
        return [_VARIABLE.sub("*", line) for line in lines]


@contextmanager
def killed_builds(scratch: Path) -> Iterator[KilledBuilds]:
    """Run the process; it ends with the context."""
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.faults.killed_builds"],
        env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield KilledBuilds(process, scratch)
        finally:
            process.kill()


if __name__ == "__main__":
    _serve()
