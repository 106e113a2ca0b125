"""The `Fleet` of all servers: those that we started, those found outside, and those registered through the API.

The last are kept in the store. Which are found outside, in the servers file and by DNS, `control_plane.discovery` says
as often as it changes.
"""

from collections.abc import Callable, Iterable, Mapping

from control_plane.ports import DeploymentStore, Fleet, ServerLog
from control_plane.state import Server, ServerId


class RegisteredFleet:
    """Servers of `started`, those found, and those in the store. Open it with `open_fleet`."""

    def __init__(self, started: Fleet, store: DeploymentStore, registered: Iterable[Server]) -> None:
        self._started, self._store = started, store
        self._found: dict[ServerId, Server] = {}
        self._problems: tuple[str, ...] = ()
        self._gone: set[ServerId] = set()
        self._registered = {server.id: server for server in registered}
        self._listeners: list[Callable[[], None]] = []

    def servers(self) -> tuple[Server, ...]:
        """Every server; where an id is there twice, the one we started comes first, then the one that was found."""
        return tuple({**self._registered, **self._found, **{it.id: it for it in self._started.servers()}}.values())

    def has(self, server: ServerId) -> bool:
        """Tell whether it is there, by whatever way."""
        return server in self._found or server in self._registered or self._started.has(server)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with what was found last."""
        return self._problems

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when one that we started changes state, or one is registered, found or gone."""
        end = self._started.listen(changed)
        self._listeners.append(changed)

        def stop() -> None:
            end()
            self._listeners.remove(changed)

        return stop

    def note(self, server: ServerId) -> str:
        """Return what is known of one that we started."""
        return self._started.note(server)

    async def register(self, server: Server) -> bool:
        """Keep a server, unless its id is that of one that we started or that was found."""
        if server.id in self._found or self._started.has(server.id):
            return False
        await self._store.register(server)
        self._registered[server.id] = server
        self._changed()
        return True

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server. Of any other nothing is forgotten: its mark and records stay."""
        if server not in self._registered or not await self._store.unregister(server):
            return False
        self._registered.pop(server, None)
        self._changed()
        return True

    def retiring(self) -> Mapping[ServerId, str]:
        """Return those that we started and that are to be given up."""
        return self._started.retiring()

    def owned(self) -> frozenset[ServerId]:
        """Return those that we started."""
        return self._started.owned()

    def memory_used(self, server: ServerId) -> int | None:
        """Return what one that we started takes of this machine's memory."""
        return self._started.memory_used(server)

    async def take_found(self, servers: Iterable[Server], problems: tuple[str, ...]) -> None:
        """Have just these servers be the found ones. Of one that is gone, mark and records are forgotten.

        What could not be forgotten now (StateFileError) is forgotten at the next call, unless it is back by then.
        """
        before, self._found = self._found, {server.id: server for server in servers}
        self._problems = problems
        self._gone = (self._gone | before.keys()) - {server.id for server in self.servers()}
        if self._found != before:
            self._changed()
        for server in sorted(self._gone):
            await self._store.unregister(server)
            self._gone.discard(server)

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Restart one that we started."""
        return await self._started.restart(server, reason)

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return the log of one that we started."""
        return self._started.log_of(server)

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()


async def open_fleet(started: Fleet, store: DeploymentStore) -> RegisteredFleet:
    """Return the fleet with the servers that the store keeps."""
    return RegisteredFleet(started, store, await store.registered())
