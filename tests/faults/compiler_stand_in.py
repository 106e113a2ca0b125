"""Stands in for the compiler's process: it fails in the way that the request's file name says.

It imports nothing heavy, so that it is in the middle of its fault well before a limit of a second or two.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SPAWNED = "spawned"
"""Name of the file beside `out` with the number of a process that the stand-in started."""


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _crash(_: Path) -> None:
    _say("[E] about to touch what is not there")
    _say("[I] and a last word")
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit_3(_: Path) -> None:
    _say("no kernel image")
    sys.exit(3)


def _hang(folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "1000"])
    (folder.parent / SPAWNED).write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
    _say("timing tactics")
    time.sleep(1000)


def _allocate(_: Path) -> None:
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1)) * (8 << 20))


def _killed(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _chat(_: Path) -> None:
    line = b"x" * 65535 + b"\n"
    for _count in range(256):
        os.write(1, line)
    _say("[E] the end of it")
    sys.exit(1)


def _garbage(folder: Path) -> None:
    (folder / "answer.json").write_bytes(b'{"kind": "built", "seconds": "soon"}')


def _full(folder: Path) -> None:
    refused = {"kind": "refused", "problem": "the engine could not be written: no space", "retryable": True}
    (folder / "answer.json").write_text(json.dumps(refused))


def _nothing(_: Path) -> None:
    pass


def _no_engine(folder: Path) -> None:
    (folder / "engine").touch()
    built = {"kind": "built", "seconds": 1.0, "toolchain": {}, "timing_cache": "none", "inspected": False}
    (folder / "answer.json").write_text(json.dumps(built))


FAULTS: dict[str, Callable[[Path], None]] = {
    "crash": _crash,
    "exit-3": _exit_3,
    "hang": _hang,
    "allocate": _allocate,
    "killed": _killed,
    "chat": _chat,
    "full": _full,
    "garbage": _garbage,
    "nothing": _nothing,
    "no-engine": _no_engine,
}

if __name__ == "__main__":
    FAULTS[Path(json.loads(Path(sys.argv[1]).read_bytes())["onnx"]).stem](Path(sys.argv[2]))
