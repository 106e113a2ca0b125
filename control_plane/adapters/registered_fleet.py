"""The `Fleet` of all servers: those that we started, those that a file names, and those registered through the API.

The last are kept in the store. A file is read once, at the start; what it names is as fixed as what we started.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from control_plane.errors import SettingsError
from control_plane.ports import DeploymentStore, Fleet, ServerLog
from control_plane.state import Server, ServerId


class RegisteredFleet:
    """Servers of `started` and of `named`, and those in the store. Open it with `open_fleet`."""

    def __init__(
        self, started: Fleet, store: DeploymentStore, named: Iterable[Server], registered: Iterable[Server]
    ) -> None:
        self._started, self._store = started, store
        self._named = {server.id: server for server in named}
        self._registered = {server.id: server for server in registered}
        self._listeners: list[Callable[[], None]] = []

    def servers(self) -> tuple[Server, ...]:
        """Every server; where an id is there twice, the one we started comes first, then the file's."""
        return tuple({**self._registered, **self._named, **{it.id: it for it in self._started.servers()}}.values())

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
        if server.id in self._named or any(it.id == server.id for it in self._started.servers()):
            return False
        await self._store.register(server)
        self._registered[server.id] = server
        self._changed()
        return True

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server."""
        if not await self._store.unregister(server):
            return False
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


async def open_fleet(started: Fleet, store: DeploymentStore, named: Iterable[Server] = ()) -> RegisteredFleet:
    """Return the fleet with the servers that the store keeps."""
    return RegisteredFleet(started, store, named, await store.registered())


_SERVERS = TypeAdapter(list[Server])


def read_servers(path: Path) -> tuple[Server, ...]:
    """Return the servers that the JSON file `path` names, a list of `state.Server`. Raises SettingsError."""
    try:
        servers = _SERVERS.validate_json(path.read_bytes())
    except OSError as exc:
        raise SettingsError(f"The file of servers {path} cannot be read: {exc.strerror}.") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"The file of servers {path}: {where}: {first['msg']}.") from exc
    names = [server.id for server in servers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"The file of servers {path} names {', '.join(twice)} twice.")
    return tuple(servers)
