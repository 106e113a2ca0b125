"""`tritonfleet` as tests run it: inside the test's process where that will do, else in a process of its own."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.cli.main import main

ROOT = Path(__file__).parents[1]
DEADLINE_S = 180.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed with --json: all of standard output."""
        return json.loads(self.out)

    @property
    def flat(self) -> str:
        """All that it printed, without frames and line breaks."""
        return " ".join((self.out + self.err).replace("│", " ").split())


def run_here(*arguments: str) -> Ended:
    """Run a command in this process; it must not need signals."""
    out, err = io.StringIO(), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    else:
        raise AssertionError("main() returned instead of ending with an exit code")
    finally:
        signal.signal(signal.SIGTERM, before)
    return Ended(code, out.getvalue(), err.getvalue())


def command_line(*arguments: str) -> list[str]:
    """Return the argument list of a process that runs the command."""
    return [sys.executable, "-W", "error", "-c", "from control_plane.cli.main import main; main()", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without any setting of Tritonfleet, with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITONFLEET_", "_TYPER"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def run_apart(*arguments: str, **more: str) -> Ended:
    """Run a command in a process of its own, with `more` in its environment."""
    done = subprocess.run(
        command_line(*arguments),
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
