"""This machine's GPUs and the tritonservers on their slices: the `GpuNode` that cuts, starts and stops.

What is real wins: the driver is asked what is cut, and the processes that run are adopted by their records, so a node
that was killed at any step goes on from what is there. A slice is created before its server starts, and destroyed after
it ended; whatever is half made is completed or removed by the next call.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from control_plane.embedded import EmbeddedServer, Ownership, ServerSpec, Supervision
from control_plane.embedded.facts import TRITON_VERSION, host_facts
from control_plane.embedded.process import ServerProcess
from control_plane.embedded.record import RECORD_NAME, read_record
from control_plane.embedded.spec import LOOPBACK
from control_plane.errors import ServerStartError
from control_plane.mig.host import DriverError, GpuInstance, HostGpu, InstanceInUseError, MigHost, NoInstanceError
from control_plane.nodes import NodeSlice, NodeView
from control_plane.ports import ServerLog
from control_plane.slicing import GpuId, Seat
from control_plane.state import Endpoints, Server, ServerId, Source

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_IN_USE_S = 5.0
"""How long a slice may be in use after its server ended: the driver takes note of that with some delay."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """How a node runs its servers. ADOPTABLE ones outlive it, and are adopted by the next one of its `runtime` folder.

    `simulated` says that its GPUs run nothing; `takes_versions` that a control plane copies what it needs there.
    `address` is where its servers listen.
    """

    name: str
    model_repository: Path
    runtime: Path
    ownership: Ownership = Ownership.BOUND
    zone: str = ""
    simulated: bool = False
    takes_versions: bool = False
    address: str = LOOPBACK
    supervision: Supervision | None = None


class LocalNode:
    """Open it with `async with`. Use from one event loop; the driver is asked in threads."""

    def __init__(self, host: MigHost, plan: NodePlan) -> None:
        self._host, self._plan = host, plan
        self._servers: dict[ServerId, EmbeddedServer] = {}
        self._locks: dict[ServerId, asyncio.Lock] = {}
        self._cutting = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        """What it is called."""
        return self._plan.name

    async def __aenter__(self) -> Self:
        """Adopt what runs already; a server whose slice is there no more is ended."""
        self._plan.runtime.mkdir(parents=True, exist_ok=True)
        gpus = await asyncio.to_thread(self._host.gpus)
        devices = {it.uuid for gpu in gpus for it in gpu.instances if it.uuid}
        for path in sorted(self._plan.runtime.glob(f"*/{RECORD_NAME}")):
            await self._adopt(path, devices)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the BOUND servers and let go of the ADOPTABLE ones."""
        async with AsyncExitStack() as stack:
            for server in self._servers.values():
                if server.spec.ownership is Ownership.ADOPTABLE:
                    server.detach()
                else:
                    stack.push_async_callback(server.stop)
        self._servers.clear()

    async def look(self) -> NodeView:
        """Read the GPUs and what runs on them; see the port."""
        gpus = await asyncio.to_thread(self._host.gpus)
        devices = {it.uuid for gpu in gpus for it in gpu.instances}
        servers = {server: it.server for server, it in sorted(self._servers.items()) if _device_of(it.spec) in devices}
        return NodeView(
            gpus,
            self._pattern(),
            servers,
            self._plan.zone,
            self._plan.simulated,
            TRITON_VERSION,
            self._plan.takes_versions,
        )

    async def create(self, wanted: NodeSlice) -> Server:
        """Cut a slice and run a server on it; see the port."""
        async with self._lock(wanted.server):
            async with self._cutting:
                instance = await asyncio.to_thread(self._cut, wanted.seat)
            running = self._servers.get(wanted.server)
            if running is not None and _device_of(running.spec) == instance.uuid:
                return running.server
            if running is not None:
                await self._stop(wanted.server)
            # One whose start a killed node did not see the end of.
            await self._adopt(self._plan.runtime / wanted.server / RECORD_NAME, {instance.uuid})
            if (running := self._servers.get(wanted.server)) is not None:
                return running.server
            gpu = await asyncio.to_thread(self._gpu, wanted.seat)
            memory = gpu.product.profiles[wanted.seat.placement.profile].memory_bytes
            spec = ServerSpec(
                wanted.server,
                self._plan.model_repository.resolve(),
                extra_env=((_VISIBLE, instance.uuid),),
                ownership=self._plan.ownership,
                memory_bytes=memory,
                address=self._plan.address,
            )
            server = EmbeddedServer(
                spec, self._plan.runtime / wanted.server, self._plan.supervision, remove_runtime=True
            )
            await server.start()
            self._keep(server)
            return server.server

    async def destroy(self, left: NodeSlice) -> None:
        """Stop a slice's server and give its room back; see the port."""
        async with self._lock(left.server):
            await self._stop(left.server)
            end = asyncio.get_running_loop().time() + _IN_USE_S
            while True:
                async with self._cutting:
                    left_in_use = await asyncio.to_thread(self._remove, left.seat)
                if left_in_use is None:
                    return
                if asyncio.get_running_loop().time() > end:
                    raise left_in_use
                await asyncio.sleep(0.1)

    async def release(self) -> tuple[ServerId, ...]:
        """Stop every server that runs here and give its slice back; returns which. Raises GpuError."""
        gpus = await asyncio.to_thread(self._host.gpus)
        seats = {it.uuid: Seat(GpuId(gpu.uuid), it.placement) for gpu in gpus for it in gpu.instances}
        there = {server: seats.get(_device_of(it.spec)) for server, it in sorted(self._servers.items())}
        for server, seat in there.items():
            if seat is None:
                await self._stop(server)
            else:
                await self.destroy(NodeSlice(server, seat))
        return tuple(there)

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Restart a slice's server; see the port."""
        running = self._servers.get(server)
        if running is None:
            return False
        await running.restart(reason)
        return True

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return a server's log."""
        return self._servers.get(server)

    def note(self, server: ServerId) -> str:
        """Return the supervisor's last word on a server's process."""
        running = self._servers.get(server)
        return running.reason if running is not None else ""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when a server changes state."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def _adopt(self, path: Path, devices: set[str]) -> None:
        record = read_record(path)
        if record is None or record.spec.ownership is not Ownership.ADOPTABLE or not record.is_running():
            return
        if _device_of(record.spec) in devices:
            try:
                self._keep(await EmbeddedServer.adopt(path, self._plan.supervision))
            except ServerStartError as error:
                logger.warning("Server %s cannot be adopted and is ended: %s", record.spec.id, error)
            else:
                return
        process = ServerProcess.adopt(path, self._plan.supervision or Supervision())
        try:
            await process.end()
        finally:
            process.abandon()

    def _keep(self, server: EmbeddedServer) -> None:
        self._servers[server.spec.id] = server
        server.listen(lambda _change: self._changed())
        self._changed()

    async def _stop(self, server: ServerId) -> None:
        running = self._servers.get(server)
        if running is not None:
            await running.stop()
            del self._servers[server]
            await asyncio.to_thread(shutil.rmtree, self._plan.runtime / server, ignore_errors=True)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _gpu(self, seat: Seat) -> HostGpu:
        found = next((it for it in self._host.gpus() if it.uuid == seat.gpu), None)
        if found is None:
            raise NoInstanceError(f"There is no GPU {seat.gpu} on {self.name} any more.")
        return found

    def _cut(self, seat: Seat) -> GpuInstance:
        """Return the GPU instance of a seat, cut now where it is not there. Blocks."""
        gpu = self._gpu(seat)
        if not gpu.mig and not self._host.set_mig(gpu.uuid, enabled=True):
            raise DriverError(
                f"MIG of {gpu.uuid} is on only after its next reset: drain it and run nvidia-smi --gpu-reset -i "
                f"{gpu.uuid}, or restart its host."
            )
        there = next((it for it in gpu.instances if it.placement == seat.placement), None)
        if there is not None and there.uuid:
            return there
        if there is not None:  # somebody was killed between the instance and its compute instance
            self._host.destroy(gpu.uuid, there.id)
        return self._host.create(gpu.uuid, seat.placement)

    def _remove(self, seat: Seat) -> InstanceInUseError | None:
        """Destroy the GPU instance of a seat, if it is there; returns why it is still in use. Blocks."""
        gpu = self._gpu(seat)
        there = next((it for it in gpu.instances if it.placement == seat.placement), None)
        if there is None:
            return None
        try:
            self._host.destroy(gpu.uuid, there.id)
        except InstanceInUseError as error:
            return error
        except NoInstanceError:
            return None
        return None

    def _lock(self, server: ServerId) -> asyncio.Lock:
        return self._locks.setdefault(server, asyncio.Lock())

    def _pattern(self) -> Server:
        """Return what a server here is like; on simulated GPUs it runs on the CPU."""
        facts = host_facts("-1" if self._plan.simulated else None)
        return Server(
            ServerId(self.name),
            Endpoints("", "", ""),
            compute_capabilities=facts.compute_capabilities,
            backends=facts.backends,
            versions=facts.versions,
            source=Source.EMBEDDED,
        )


def _device_of(spec: ServerSpec) -> str:
    return dict(spec.extra_env).get(_VISIBLE, "")
