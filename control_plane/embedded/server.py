"""One supervised tritonserver: started, watched, brought back on the same ports with the same key, and ended.

`process` is what is supervised, `health` how; `fleet` holds several of these. The control plane commands the server
through Triton's own APIs, and asks here for the state of the process and for its log.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from control_plane.embedded.backoff import Backoff
from control_plane.embedded.health import until_hung
from control_plane.embedded.launch import Folder, ServerRun
from control_plane.embedded.log_window import LogMark
from control_plane.embedded.process import ServerProcess
from control_plane.embedded.spec import Ownership, ServerSpec, Supervision
from control_plane.errors import ControlPlaneError, DeadlineExceededError, ServerStartError
from control_plane.state import Server, ServerId

_SETTLE_S, _SETTLE_LIMIT_S = 0.05, 0.5

logger = logging.getLogger(__name__)


class ServerState(StrEnum):
    """What a supervised tritonserver is doing."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """A server came into `state`; `reason` is one sentence for people."""

    server_id: ServerId
    state: ServerState
    reason: str


class EmbeddedServer:
    """A tritonserver of this machine, kept running while this object supervises it.

    `runtime` is the folder that is its alone; with `remove_runtime` the folder goes with the server, log and all. Use
    from one event loop. `start` and `adopt` are the two beginnings; `stop` and `detach` the two ends. `restarts` counts
    the times it was started again.
    """

    def __init__(
        self, spec: ServerSpec, runtime: Path, supervision: Supervision | None = None, *, remove_runtime: bool = False
    ) -> None:
        self.state = ServerState.STOPPED
        self.reason = "Not started yet."
        self.restarts = 0
        self._times = supervision or Supervision()
        self._process = ServerProcess(spec, Folder(runtime.resolve(), remove_runtime), self._times)
        self._listeners: list[Callable[[StateChange], None]] = []
        self._restart_asked = asyncio.Event()
        self._restart_reason = ""
        self._supervising: asyncio.Task[None] | None = None

    @classmethod
    async def adopt(cls, record_path: Path, supervision: Supervision | None = None) -> Self:
        """Supervise again the ADOPTABLE server that runs by the record at `record_path`, and wait until it is ready.

        Raises ServerStartError when there is no such record, its server is gone, or another process supervises it. A
        server that does not answer is left running.
        """
        times = supervision or Supervision()
        process = ServerProcess.adopt(record_path, times)
        server = cls(process.spec, process.folder.path, times)
        server._process = process
        server._become(ServerState.STARTING, "Adopted.")
        try:
            await process.until_up(process.log.mark())
        except BaseException:
            process.detach()
            raise
        server._begin_supervision()
        return server

    @property
    def spec(self) -> ServerSpec:
        """What it was asked to be."""
        return self._process.spec

    @property
    def server(self) -> Server:
        """How the control plane reaches it. ServerStartError before the first start."""
        return self._process.server

    @property
    def record_path(self) -> Path:
        """Where the runtime record is while the server runs."""
        return self._process.folder.record

    def listen(self, listener: Callable[[StateChange], None]) -> Callable[[], None]:
        """Have `listener` called, in the event loop, at every change of state. It must not raise.

        Call what is returned to end that.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises PortTakenError (a fixed port), ServerStartError with the last lines of its log, MissingExtraError. What
        was started is gone when this raises or is cancelled.
        """
        if self._supervising is not None:
            raise ServerStartError(f"Server '{self.spec.id}' is started already.")
        self._process.claim()
        self._become(ServerState.STARTING, "Starting tritonserver.")
        try:
            await self._process.begin()
        except BaseException as error:
            self._process.abandon()
            self._become(ServerState.FAILED, str(error) or type(error).__name__)
            raise
        self._begin_supervision()

    async def stop(self) -> None:
        """End the server: SIGTERM, a bounded wait, SIGKILL. Afterwards nothing of it is left, cancelled or not."""
        try:
            await self._end_supervision()
            await self._process.end()
        finally:
            self._process.abandon()
            self._become(ServerState.STOPPED, "Stopped.")

    async def restart(self, reason: str) -> None:
        """Kill the server, start it again at once and wait until it is ready. For a hung load, say.

        Raises DeadlineExceededError after `start_deadline_s`; the supervision goes on trying even so.
        """
        if self._supervising is None:
            raise ServerStartError(f"Server '{self.spec.id}' is not supervised, so it cannot be restarted.")
        before = self.restarts
        if self.state in (ServerState.READY, ServerState.UNHEALTHY):
            self._restart_reason = reason
            self._restart_asked.set()
        else:  # it is on its way back already
            before -= 1
        await self._until(
            lambda: self.restarts > before and self.state is ServerState.READY, self._times.start_deadline_s
        )

    def detach(self) -> None:
        """Stop supervising and leave an ADOPTABLE server running for the next supervisor."""
        if self.spec.ownership is not Ownership.ADOPTABLE:
            raise ValueError(f"Server '{self.spec.id}' is bound to this process: only an adoptable one is left alone.")
        if self._supervising is not None:
            self._supervising.cancel()
            self._supervising = None
        self._process.detach()
        self._become(ServerState.STOPPED, "Detached: the server runs on, unsupervised.")

    async def wait_ready(self, deadline_s: float) -> None:
        """Wait until the server is ready. DeadlineExceededError after `deadline_s`, ServerStartError if it failed."""
        await self._until(lambda: self.state is ServerState.READY, deadline_s)

    def processes(self) -> tuple[int, ...]:
        """Return the ids of every process of its present life; none where it has none. Reads all of /proc."""
        return self._process.processes()

    def log_tail(self, lines: int = 20) -> list[str]:
        """Return the last lines of the server's log, those of earlier lives included."""
        return self._process.log.tail(lines)

    def log_mark(self) -> LogMark:
        """Return the end of the log now; hand it to `log_since` after a call whose log lines are wanted."""
        return self._process.log.mark()

    async def log_since(self, mark: LogMark) -> list[str]:
        """Return what the log said since `mark`. Waits until the log has settled, at most half a second."""
        clock = asyncio.get_running_loop().time
        end = clock() + _SETTLE_LIMIT_S
        seen = self.log_mark()
        while clock() < end:
            await asyncio.sleep(_SETTLE_S)
            if (now := self.log_mark()) == seen:
                break
            seen = now
        return self._process.log.since(mark)

    def _begin_supervision(self) -> None:
        self._become(ServerState.READY, "Answers that it is ready.")
        self._supervising = asyncio.create_task(self._supervise(), name=f"supervise {self.spec.id}")

    async def _end_supervision(self) -> None:
        task, self._supervising = self._supervising, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _supervise(self) -> None:
        backoff = Backoff(self._times.backoff_first_s, self._times.backoff_cap_s, self._times.stable_after_s)
        clock = asyncio.get_running_loop().time
        try:
            while (run := self._process.run) is not None:
                ready_at = clock()
                reason = await self._watch(run)
                ready_for_s = clock() - ready_at
                await run.finish()
                await self._bring_back(reason, backoff, ready_for_s)
        except Exception as error:
            logger.exception("The supervision of server %s failed", self.spec.id)
            self._become(ServerState.FAILED, f"The supervision itself failed: {error}")

    async def _watch(self, run: ServerRun) -> str:
        """Wait for the end of this life, or for a reason to end it. Returns the reason."""
        hang = asyncio.create_task(until_hung(self.server.endpoints, self._times, self._hear))
        asked = asyncio.create_task(self._restart_asked.wait())
        ends: set[asyncio.Future[Any]] = {run.exited, hang, asked}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if run.exited.done():
                return f"tritonserver ended with status {run.exited.result()}."
            return hang.result() if hang.done() else self._restart_reason
        finally:
            hang.cancel()
            asked.cancel()
            await asyncio.wait(ends - {run.exited})

    def _hear(self, silent_s: float) -> None:
        """Take note of a probe's outcome: answered just now, or silent for `silent_s`."""
        if silent_s == 0.0:
            self._become(ServerState.READY, "Answers that it lives.")
        else:
            self._become(ServerState.UNHEALTHY, f"No answer to the health check for {silent_s:.0f} s.")

    async def _bring_back(self, reason: str, backoff: Backoff, ready_for_s: float) -> None:
        """Start lives until one is ready. One that was asked for starts at once."""
        delay_s = 0.0 if self._restart_asked.is_set() else backoff.delay_after(ready_for_s)
        self._restart_asked.clear()
        while True:
            logger.warning("Server %s is down and starts again in %.1f s: %s", self.spec.id, delay_s, reason)
            self._become(ServerState.BACKING_OFF, reason)
            await asyncio.sleep(delay_s)
            self.restarts += 1
            self._become(ServerState.STARTING, "Starting tritonserver again.")
            try:
                await self._process.launch()
            except ControlPlaneError as error:
                reason = str(error)
                delay_s = backoff.delay_after(0.0)
            else:
                self._become(ServerState.READY, "Answers that it is ready.")
                return

    async def _until(self, reached: Callable[[], bool], deadline_s: float) -> None:
        changed = asyncio.Event()
        forget = self.listen(lambda _: changed.set())
        try:
            async with asyncio.timeout(deadline_s):
                while not reached():
                    if self.state is ServerState.FAILED:
                        raise ServerStartError(self.reason)
                    changed.clear()
                    await changed.wait()
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"Server '{self.spec.id}' is {self.state}, not ready, after {deadline_s:g} s: {self.reason}"
            ) from error
        finally:
            forget()

    def _become(self, state: ServerState, reason: str) -> None:
        if state is self.state and state is not ServerState.UNHEALTHY:
            return
        self.state, self.reason = state, reason
        for listener in tuple(self._listeners):
            listener(StateChange(self.spec.id, state, reason))
