"""A small disk of its own for a test: a tmpfs in a private mount namespace, which nobody outside sees.

Commands run inside through a shell that holds the namespace; when it ends, the disk is gone.
"""

import os
import select
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import DEADLINE_S, Ended

PAGE = 4096
"""A tmpfs gives space in pages of this many bytes."""


class SmallDisk:
    """A disk mounted at `folder` for what `run` runs. Paths outside it are those that everybody sees."""

    def __init__(self, shell: subprocess.Popen[bytes], folder: Path, scratch: Path) -> None:
        self._shell, self._folder, self._scratch = shell, folder, scratch

    @property
    def here(self) -> Path:
        """The disk's content as this process reaches it."""
        return Path(f"/proc/{self._shell.pid}/root{self._folder}")

    def run(self, arguments: list[str], environment: Mapping[str, str]) -> Ended:
        """Run a command beside the disk."""
        words = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *arguments]
        out, err = self._scratch / "out", self._scratch / "err"
        code = self._do(f"{shlex.join(words)} >{shlex.quote(str(out))} 2>{shlex.quote(str(err))} </dev/null")
        return Ended(code, out.read_text(), err.read_text())

    def remount(self, options: str) -> None:
        """Change the disk: `size=...`, `ro`, `rw`."""
        code = self._do(f"mount -o {shlex.quote('remount,' + options)} {shlex.quote(str(self._folder))}")
        assert code == 0, (self._scratch / "shell.err").read_text()

    def leave(self, pages: int) -> None:
        """Fill the disk up to this many free pages."""
        filler = self.here / "filler"
        filler.unlink(missing_ok=True)
        free = os.statvfs(self.here).f_bavail
        assert free >= pages
        filler.write_bytes(b"\0" * PAGE * (free - pages))
        assert os.statvfs(self.here).f_bavail == pages

    def free(self) -> None:
        """Take the filler away."""
        (self.here / "filler").unlink()

    def _do(self, line: str) -> int:
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\necho $?\n".encode())
        self._shell.stdin.flush()
        return int(_line(self._shell))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a disk of `size` (tmpfs's own way to say it) at `folder`, which is made. Skips where the kernel refuses."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` (util-linux) to make a private mount namespace with")
    folder.mkdir(parents=True)
    scratch = folder.with_name(f"{folder.name}.scratch")
    scratch.mkdir()
    mount = f"mount -t tmpfs -o size={shlex.quote(size)} tmpfs {shlex.quote(str(folder))} && echo ready && exec sh"
    with (
        (scratch / "shell.err").open("wb") as errors,
        subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as shell,
    ):
        try:
            if _line(shell) != "ready":
                pytest.skip(f"no private tmpfs on this machine: {(scratch / 'shell.err').read_text().strip()}")
            yield SmallDisk(shell, folder, scratch)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)


def _line(shell: subprocess.Popen[bytes]) -> str:
    """Return the shell's next line, or "" where it ended."""
    assert shell.stdout is not None
    descriptor = shell.stdout.fileno()
    readable, _, _ = select.select([descriptor], [], [], DEADLINE_S)
    assert readable, f"no answer within {DEADLINE_S} s"
    return os.read(descriptor, PAGE).decode().strip()
