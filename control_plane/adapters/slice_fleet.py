"""The `Fleet` of the servers on slices: those that nodes run, and those that are about to be.

A slice that was given out is in it from then on, also while it is cut: its replica is placed on it, and loaded once the
server answers. `control_plane.slicer` says what there is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from control_plane.nodes import GpuNode, NodeView
from control_plane.ports import ServerLog
from control_plane.slicing.demand import POOL
from control_plane.slicing.records import SliceRecord
from control_plane.state import Device, Endpoints, Server, ServerId, Source


def agent_location(node: str) -> str:
    """Return what stands for the folder of a node that takes versions, where servers say their repository location."""
    return f"agent:{node}"


_NOWHERE = Endpoints("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1")
"""Where a server listens that is not started yet: nobody answers on port 1."""


class SliceFleet:
    """Servers of slices. Use from one event loop."""

    def __init__(self, nodes: Iterable[GpuNode]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._records: dict[ServerId, SliceRecord] = {}
        self._views: Mapping[str, NodeView] = {}
        self._listeners: list[Callable[[], None]] = []

    def take(self, records: Iterable[SliceRecord], views: Mapping[str, NodeView]) -> None:
        """Have these be the slices that were given out, and this what the nodes run."""
        before = self.servers()
        self._records = {it.server: it for it in records}
        self._views = dict(views)
        if self.servers() != before:
            self.changed()

    def changed(self) -> None:
        """Tell those who listen that something is different."""
        for listener in tuple(self._listeners):
            listener()

    def servers(self) -> tuple[Server, ...]:
        """Every server, whether it is started yet or not."""
        return tuple(self._server(record) for _, record in sorted(self._records.items()))

    def has(self, server: ServerId) -> bool:
        """Tell whether a slice was given out for it."""
        return server in self._records

    def problems(self) -> tuple[str, ...]:
        """None: they are not found, but started."""
        return ()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when a slice comes or goes, or a server changes state."""
        endings = [node.listen(changed) for node in self._nodes.values()]
        self._listeners.append(changed)

        def end() -> None:
            self._listeners.remove(changed)
            for ending in endings:
                ending()

        return end

    def note(self, server: ServerId) -> str:
        """Say what is known of a server's process, or that its slice is not there yet."""
        record = self._records.get(server)
        if record is None:
            return ""
        running = server in self._view(record).servers
        return self._nodes[record.node].note(server) if running else "Its slice is being made ready."

    async def register(self, server: Server) -> bool:
        """Refuse: slices are given out, not registered."""
        del server
        return False

    async def unregister(self, server: ServerId) -> bool:
        """Refuse: slices are given up, not unregistered."""
        del server
        return False

    def retiring(self) -> Mapping[ServerId, str]:
        """Return those whose slice is given up once it is empty."""
        return {server: it.leaving for server, it in sorted(self._records.items()) if it.leaving}

    def owned(self) -> frozenset[ServerId]:
        """Return all: a node watches each process."""
        return frozenset(self._records)

    def memory_used(self, server: ServerId) -> int | None:
        """None: what a slice's server takes is its device's memory, and its metrics tell that."""
        del server
        return None

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Have its node restart a server."""
        record = self._records.get(server)
        return record is not None and await self._nodes[record.node].restart(server, reason)

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return a server's log, where its node can read it."""
        record = self._records.get(server)
        return self._nodes[record.node].log_of(server) if record is not None else None

    def _view(self, record: SliceRecord) -> NodeView:
        return self._views.get(record.node, NodeView((), Server(record.server, _NOWHERE)))

    def _server(self, record: SliceRecord) -> Server:
        view = self._view(record)
        running = view.servers.get(record.server)
        gpu = next((it for it in view.gpus if it.uuid == record.seat.gpu), None)
        placement = record.seat.placement
        devices: tuple[Device, ...] = ()
        memory = 0
        if gpu is not None:
            instance = next((it for it in gpu.instances if it.placement == placement), None)
            profile, product = gpu.product.profiles[placement.profile], gpu.product
            memory = profile.memory_bytes
            uuid = instance.uuid if instance is not None else ""
            devices = (Device(uuid, product.name, product.compute_capability, memory, profile.name),)
        return replace(
            running or replace(view.pattern, endpoints=_NOWHERE),
            id=record.server,
            devices=devices,
            memory_bytes=memory,
            pool=POOL,
            reserved_for=record.deployment,
            repository=agent_location(record.node) if view.takes_versions else "",
            source=Source.EMBEDDED,
        )
