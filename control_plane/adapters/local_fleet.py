"""The `Fleet` of supervised servers on this machine.

Adapts what `embedded` offers to the port without importing it: anything with this shape will do.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from control_plane.adapters.measured_memory import host_bytes
from control_plane.ports import ServerLog
from control_plane.state import Server, ServerId


class SupervisedServer(ServerLog, Protocol):
    """A server whose process somebody watches and brings back (`embedded.EmbeddedServer`)."""

    reason: str

    @property
    def server(self) -> Server:
        """How to reach it."""

    def listen(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Have `listener` called at every change of the process's state."""

    def processes(self) -> Iterable[int]:
        """Return the ids of its processes, stubs and whatever else they started included."""

    async def restart(self, reason: str) -> None:
        """Kill it, start it again and wait until it is ready."""


class LocalFleet:
    """A fixed set of supervised servers."""

    def __init__(self, supervised: Iterable[SupervisedServer]) -> None:
        self._supervised = {entry.server.id: entry for entry in supervised}

    def servers(self) -> tuple[Server, ...]:
        """Every server, as it is reached now."""
        return tuple(entry.server for entry in self._supervised.values())

    def has(self, server: ServerId) -> bool:
        """Tell whether it is one of them."""
        return server in self._supervised

    def problems(self) -> tuple[str, ...]:
        """None: they are not found, but started."""
        return ()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when any of them changes state."""
        endings = [entry.listen(lambda _change: changed()) for entry in self._supervised.values()]

        def end() -> None:
            for ending in endings:
                ending()

        return end

    def note(self, server: ServerId) -> str:
        """Return the supervisor's last word on the process."""
        return self._supervised[server].reason if server in self._supervised else ""

    async def register(self, server: Server) -> bool:
        """Refuse: the set is fixed."""
        del server
        return False

    async def unregister(self, server: ServerId) -> bool:
        """Refuse: the set is fixed."""
        del server
        return False

    def retiring(self) -> Mapping[ServerId, str]:
        """None: the set is fixed."""
        return {}

    def owned(self) -> frozenset[ServerId]:
        """Return all: somebody here watches each process."""
        return frozenset(self._supervised)

    def memory_used(self, server: ServerId) -> int | None:
        """Return what the server and its stubs take of this machine's memory."""
        supervised = self._supervised.get(server)
        return host_bytes(supervised.processes()) if supervised is not None else None

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Restart the server, which is ours."""
        supervised = self._supervised.get(server)
        if supervised is None:
            return False
        await supervised.restart(reason)
        return True

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return the server's log."""
        return self._supervised.get(server)
