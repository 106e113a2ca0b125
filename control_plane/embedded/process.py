"""The tritonserver of one runtime folder, life after life: the ports, the key and the lock that outlast each of them.

`server` decides when a life begins and ends, and watches it; `launch` is one life.
"""

import asyncio
import os
import secrets
import shutil
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from control_plane.embedded.facts import host_facts
from control_plane.embedded.health import is_up
from control_plane.embedded.launch import Folder, ServerRun, clear_run
from control_plane.embedded.layout import Layout, build_layout
from control_plane.embedded.log_window import LogMark, LogWindow
from control_plane.embedded.ports import bind_error_in, choose_endpoints, port_taken, taken_among
from control_plane.embedded.record import RuntimeRecord, boot_id, read_record
from control_plane.embedded.spec import Ownership, ServerSpec, Supervision
from control_plane.errors import ControlPlaneError, PortTakenError, ServerStartError
from control_plane.state import Endpoints, Server, Source

_START_POLL_S = 0.05
_START_PROBE_S = 2.0
_TAIL_LINES = 20
_VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


class ServerProcess:
    """What stays of one server while its processes come and go. `run` is the life it has now, if any.

    The folder's lock, held from `claim` to `release`, keeps two supervisors from one folder; the kernel drops it when
    its holder dies.
    """

    def __init__(self, spec: ServerSpec, folder: Folder, times: Supervision) -> None:
        self.spec, self.folder = spec, folder
        self.log = LogWindow(folder.log)
        self.run: ServerRun | None = None
        self._times = times
        self._lock = FileLock(folder.path / "supervisor.lock", timeout=0, thread_local=False)
        self._admin_key = secrets.token_urlsafe(32)
        self._endpoints: Endpoints | None = None
        self._layout: Layout | None = None

    @classmethod
    def adopt(cls, record_path: Path, times: Supervision) -> Self:
        """Claim the living ADOPTABLE server that `record_path` tells of. ServerStartError when there is none."""
        record = read_record(record_path)
        if record is None or record.spec.ownership is not Ownership.ADOPTABLE:
            raise ServerStartError(f"There is no record of a server that can be adopted at {record_path}.")
        process = cls(record.spec, Folder(record_path.resolve().parent), times)
        process._admin_key, process._endpoints = record.admin_key, record.endpoints
        process.claim()
        try:
            process.run = ServerRun.adopt(record, process.folder)
        except BaseException:
            process.release()
            raise
        return process

    @property
    def server(self) -> Server:
        """How the control plane reaches it. ServerStartError before it has ports."""
        if self._endpoints is None:
            raise ServerStartError(f"Server '{self.spec.id}' has no ports before it was started.")
        facts = host_facts(dict(self.spec.extra_env).get(_VISIBLE_GPUS, os.environ.get(_VISIBLE_GPUS)))
        return Server(
            id=self.spec.id,
            endpoints=self._endpoints,
            admin_key=self._admin_key,
            compute_capabilities=facts.compute_capabilities,
            backends=facts.backends,
            versions=facts.versions,
            memory_bytes=self.spec.memory_bytes,
            source=Source.EMBEDDED,
        )

    def processes(self) -> tuple[int, ...]:
        """Return the ids of every process of the present life, however they came about."""
        return self.run.processes() if self.run is not None else ()

    def claim(self) -> None:
        """Take the folder's lock. ServerStartError when another process holds it."""
        self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ServerStartError(
                f"Server '{self.spec.id}' in {self.folder.path} is supervised by another process: stop that one, or "
                "use another runtime folder."
            ) from error

    def release(self) -> None:
        """Give the folder's lock back."""
        self._lock.release()

    async def begin(self) -> None:
        """Begin the first life in the claimed folder, on ports chosen now, and wait until it is up.

        Raises PortTakenError, MissingExtraError and ServerStartError.
        """
        self._clear_leftovers()
        self._layout = build_layout(self.folder.path)
        picks_ports = None in (self.spec.http_port, self.spec.grpc_port, self.spec.metrics_port)
        attempts = self._times.port_attempts if picks_ports else 1
        for attempt in range(1, attempts + 1):
            self._endpoints = choose_endpoints(self.spec)
            try:
                await self.launch()
            except PortTakenError:  # somebody took a port between the choice and the bind: choose again
                if attempt == attempts:
                    raise
            else:
                return

    async def launch(self) -> None:
        """Begin a life on the ports there are, and wait until it is up; a life that does not get there is ended."""
        if self._layout is None:
            self._layout = build_layout(self.folder.path)
        if (port := taken_among(self.server.endpoints)) is not None:
            raise port_taken(port)
        mark = self.log.mark()
        record = RuntimeRecord(
            spec=self.spec,
            endpoints=self.server.endpoints,
            run=secrets.token_hex(8),
            admin_key=self.server.admin_key or "",
            boot_id=boot_id(),
        )
        self.run = ServerRun.launch(record, self._layout, self.folder, self._times.stop_deadline_s)
        try:
            await self.until_up(mark)
        except ControlPlaneError:
            await self.run.finish()
            raise

    async def until_up(self, mark: LogMark) -> None:
        """Wait until the present life is up. ServerStartError or PortTakenError, told by the log since `mark`."""
        run, clock = self.run, asyncio.get_running_loop().time
        end = clock() + self._times.start_deadline_s
        while run is not None and clock() < end:
            if await is_up(self.server.endpoints, _START_PROBE_S) and not run.exited.done():
                return
            if await run.wait(_START_POLL_S):
                raise self._start_failure(f"ended with status {run.exited.result()} before it was ready", mark)
        raise self._start_failure(f"was not ready within {self._times.start_deadline_s:g} s", mark)

    async def end(self) -> None:
        """End the present life: SIGTERM, a bounded wait, SIGKILL."""
        if self.run is not None:
            self.run.terminate()
            await self.run.wait(self._times.stop_deadline_s)
            await self.run.finish()

    def abandon(self) -> None:
        """Leave nothing behind, without giving way to another task: after `end`, or in its place when cancelled."""
        if self.run is not None:
            self.run.finish_now()
            self.run = None
        for leftover in self.folder.leftovers:
            shutil.rmtree(leftover, ignore_errors=True)
        self._layout = None
        self.release()

    def detach(self) -> None:
        """Let go of the present life, which goes on."""
        if self.run is not None:
            self.run.detach()
            self.run = None
        self.release()

    def _clear_leftovers(self) -> None:
        """Clear what a supervisor and a reaper that were both killed left; refuse where a server still runs."""
        record = read_record(self.folder.record)
        if record is None:
            return
        if record.is_running():
            raise ServerStartError(
                f"Server '{self.spec.id}' already runs (pid {record.server_pid}): adopt it by {self.folder.record}."
            )
        clear_run(record.run, self.folder)

    def _start_failure(self, what: str, mark: LogMark) -> ControlPlaneError:
        log = self.log.since(mark)
        if (port := bind_error_in(log)) is not None:
            return port_taken(port)
        tail = "\n".join(log[-_TAIL_LINES:]) or "(it wrote nothing)"
        return ServerStartError(f"The tritonserver of '{self.spec.id}' {what}. The end of its log:\n{tail}")
