"""The `Fleet` of all servers: those that we started, those that a file names, and those registered through the API.

The last are kept in the store. `server_discovery` follows the file, and the names in it that stand for servers.
"""

from collections.abc import Callable, Iterable

from control_plane.ports import DeploymentStore, Fleet, ServerLog
from control_plane.state import Server, ServerId


class RegisteredFleet:
    """Servers of `started`, those that a file names, and those in the store. Open it with `open_fleet`."""

    def __init__(self, started: Fleet, store: DeploymentStore, registered: Iterable[Server]) -> None:
        self._started, self._store = started, store
        self._named: dict[ServerId, Server] = {}
        self._discovered: dict[ServerId, Server] = {}
        self._registered = {server.id: server for server in registered}
        self._problems: tuple[str, ...] = ()
        self._listeners: list[Callable[[], None]] = []

    def servers(self) -> tuple[Server, ...]:
        """Every server; where an id is there twice, the one we started comes first, then the file's."""
        started = {it.id: it for it in self._started.servers()}
        return tuple({**self._registered, **self._discovered, **self._named, **started}.values())

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with the file or its names."""
        return self._problems

    async def name(
        self,
        named: Iterable[Server],
        discovered: Iterable[Server],
        problems: tuple[str, ...] = (),
        gone: Iterable[ServerId] = (),
    ) -> None:
        """Take what the file says now, and what its names stand for.

        What is known of the discovered servers in `gone` is forgotten: an address may be another server's next time.
        One that is no longer in the file is remembered, for whoever writes it there again.
        """
        before = self._named, self._discovered
        self._named = {server.id: server for server in named}
        self._discovered = {server.id: server for server in discovered}
        self._problems = problems
        for server in sorted(gone):
            await self._store.unregister(server)
        if (self._named, self._discovered) != before:
            self._changed()

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called when a server that we started changes state, or one is registered or forgotten."""
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
        """Keep a server, unless its id is that of one that we started or that the file names."""
        others = {*self._named, *self._discovered, *(it.id for it in self._started.servers())}
        if server.id in others:
            return False
        await self._store.register(server)
        self._registered[server.id] = server
        self._changed()
        return True

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server."""
        if server not in self._registered:  # the store would forget the mark and the records of any
            return False
        await self._store.unregister(server)
        self._registered.pop(server, None)
        self._changed()
        return True

    def owned(self) -> frozenset[ServerId]:
        """Return those that we started."""
        return self._started.owned()

    def memory_used(self, server: ServerId) -> int | None:
        """Return what one that we started takes of this machine's memory."""
        return self._started.memory_used(server)

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
