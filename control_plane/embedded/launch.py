"""One life of one tritonserver: starting it under a reaper, ending it, and leaving nothing behind.

`server` decides when; this module only does. All signals go to the reaper through a pidfd, never to a bare pid, so a
pid that was given to somebody else cannot be hit.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from control_plane.embedded import reaper
from control_plane.embedded.command import RUN_VARIABLE, server_command, server_environment, shared_memory_prefix
from control_plane.embedded.layout import Layout
from control_plane.embedded.record import RECORD_NAME, RECORDS, RuntimeRecord
from control_plane.embedded.spec import Ownership
from control_plane.errors import ServerStartError

LOG_NAME = "tritonserver.log"
LOG_BYTES = 8 * 1024 * 1024
_REAPER_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Folder:
    """A server's runtime folder. `remove` says that the folder itself goes with the server, log and all."""

    path: Path
    remove: bool = False

    @property
    def record(self) -> Path:
        """Where the runtime record is."""
        return self.path / RECORD_NAME

    @property
    def log(self) -> Path:
        """Where the newest part of the log is."""
        return self.path / LOG_NAME

    @property
    def leftovers(self) -> list[Path]:
        """What must not outlive the server."""
        return [self.path] if self.remove else [self.path / "backends", self.path / "tmp"]


class ServerRun:
    """A reaper and the server below it, from `launch` or `adopt` to `finish`."""

    def __init__(self, run: str, folder: Folder, process: int) -> None:
        self._run, self._folder = run, folder
        self._pidfd = os.pidfd_open(process)
        self._finished = False
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """Resolves when the reaper is gone, to the server's status (see `reaper`); None for an adopted one's."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    @classmethod
    def launch(cls, record: RuntimeRecord, layout: Layout, folder: Folder, grace_s: float) -> Self:
        """Start the reaper, which starts the server. Returns at once; ServerStartError when not even that worked."""
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = _reaper_config(record, layout, folder, grace_s)
        try:
            process = _start_reaper(config, folder)
        except OSError as error:
            raise ServerStartError(f"The reaper of server '{record.spec.id}' could not be started: {error}") from error
        return cls(record.run, folder, process)

    @classmethod
    def adopt(cls, record: RuntimeRecord, folder: Folder) -> Self:
        """Take over the living run of `record`. ServerStartError when it is not living."""
        try:
            run = cls(record.run, folder, record.reaper_pid)
        except ProcessLookupError as error:
            raise _gone(record) from error
        if not record.is_running():  # asked with the pidfd held: from here on it is this process or none
            run.detach()
            raise _gone(record)
        return run

    def terminate(self) -> None:
        """Ask for a graceful end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Have everything of this run killed now."""
        self._signal(signal.SIGUSR1)

    async def wait(self, deadline_s: float) -> bool:
        """Wait for the end of the run. False when it did not come within `deadline_s`."""
        await asyncio.wait({self.exited}, timeout=deadline_s)
        return self.exited.done()

    async def finish(self) -> None:
        """End the run, by force where it still is, and clear away what the reaper could not. Safe to call twice."""
        if not self.exited.done():
            self.kill()
            if not await self.wait(_REAPER_DEADLINE_S):
                self._signal(signal.SIGKILL)
                await self.wait(_REAPER_DEADLINE_S)
        if self._close():
            await asyncio.to_thread(clear_run, self._run, self._folder)

    def finish_now(self) -> None:
        """Like `finish`, without giving way to other tasks: for when this task is being cancelled."""
        if not self.exited.done():
            self.kill()
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(_REAPER_DEADLINE_S * 1000):
                self._signal(signal.SIGKILL)
            self._on_exit()
        if self._close():
            clear_run(self._run, self._folder)

    def detach(self) -> None:
        """Stop watching; the run goes on."""
        if self._close():
            self.exited.cancel()

    def _signal(self, number: int) -> None:
        if not self.exited.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def processes(self) -> tuple[int, ...]:
        """Return the ids of the processes of this life, whoever their parents are. Reads all of /proc."""
        return tuple(reaper.processes_of(f"{RUN_VARIABLE}={self._run}"))

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(self._take_status())

    def _take_status(self) -> int | None:
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:  # adopted: a child of somebody else
            return None
        assert ended is not None  # noqa: S101 - only with WNOHANG can it be None
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    def _close(self) -> bool:
        """Let go of the reaper. False when that was done before."""
        if self._finished:
            return False
        self._finished = True
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        return True


def clear_run(run: str, folder: Folder) -> None:
    """Kill what is left of a run whose reaper is gone, and remove its shared memory and its record."""
    left = reaper.kill_run(f"{RUN_VARIABLE}={run}")
    if not left:
        reaper.sweep_shared_memory(shared_memory_prefix(run))
    folder.record.unlink(missing_ok=True)


def _gone(record: RuntimeRecord) -> ServerStartError:
    return ServerStartError(
        f"The recorded server '{record.spec.id}' (pid {record.server_pid}) is not running any more."
    )


def _reaper_config(record: RuntimeRecord, layout: Layout, folder: Folder, grace_s: float) -> dict[str, Any]:
    spec, run = record.spec, record.run
    bound = spec.ownership is Ownership.BOUND
    return {
        "argv": server_command(spec, layout, record.endpoints, record.admin_key, run),
        "env": server_environment(spec, layout, run, os.environ),
        "cpus": None if spec.cpus is None else sorted(spec.cpus),
        "mark": f"{RUN_VARIABLE}={run}",
        "shared_memory_prefix": shared_memory_prefix(run),
        "supervisor": {"pid": os.getpid(), "start_time": reaper.start_time_of(os.getpid())} if bound else None,
        "grace_s": grace_s,
        "log": str(folder.log),
        "log_bytes": LOG_BYTES,
        "record": RECORDS.dump_python(record, mode="json"),
        "record_path": str(folder.record),
        "leftovers": [str(path) for path in folder.leftovers],
        "remove_if_empty": [str(folder.path.parent)] if folder.remove else [],
    }


def _start_reaper(config: dict[str, Any], folder: Folder) -> int:
    """Start the script in a session of its own, its config (which holds the key) on stdin. Returns its pid."""
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}  # for python itself
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(config).encode())
            stdin.seek(0)
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__],
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=libraries,
                cwd="/",
                start_new_session=True,
            )
            child.returncode = 0  # from here on the pidfd of `ServerRun` owns it, and an adoptable one outlives us
            return child.pid
    finally:
        os.close(log)
