"""The JSON file that names servers: a list of servers with their addresses, or with a DNS name that stands for several.

Read by `server_discovery`, which follows it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from control_plane.errors import SettingsError
from control_plane.planning.discovery import Name
from control_plane.state import DEFAULT_POOL, Device, Endpoints, Server, ServerId, ServerSource

Port = Annotated[int, Field(ge=1, le=65535)]
NOWHERE = Endpoints("", "", "")
_BACKENDS = frozenset({"python", "onnxruntime"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Endpoints(_Strict):
    http: str
    grpc: str
    metrics: str


class _Device(_Strict):
    uuid: str
    product: str = ""
    compute_capability: str = ""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    mig_profile: str = ""


class _Discover(_Strict):
    dns: Annotated[str, Field(min_length=1, max_length=253)]
    http_port: Port = 8000
    grpc_port: Port = 8001
    metrics_port: Port = 8002


class _Entry(_Strict):
    """One entry: with `endpoints` it is one server, with `discover` as many as the name has addresses."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")]
    endpoints: _Endpoints | None = None
    discover: _Discover | None = None
    admin_key: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    backends: frozenset[str] = _BACKENDS
    versions: dict[str, str] = Field(default_factory=dict)
    devices: tuple[_Device, ...] = ()
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    pool: Annotated[str, Field(min_length=1, max_length=64)] = DEFAULT_POOL
    labels: dict[str, str] = Field(default_factory=dict)
    repository: str = ""

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if (self.endpoints is None) == (self.discover is None):
            raise ValueError("give either endpoints or discover")
        return self

    def server(self) -> Server:
        """Return the server; what its devices say goes where nothing else is said."""
        where = self.endpoints
        capabilities = {it.compute_capability for it in self.devices if it.compute_capability}
        return Server(
            ServerId(self.id),
            Endpoints(where.http, where.grpc, where.metrics) if where is not None else NOWHERE,
            self.admin_key,
            self.compute_capabilities or tuple(sorted(capabilities)),
            self.backends,
            self.versions,
            tuple(Device(**it.model_dump()) for it in self.devices),
            self.memory_bytes or sum(it.memory_bytes for it in self.devices),
            self.pool,
            dict(sorted(self.labels.items())),
            self.repository,
            ServerSource.FILE if where is not None else ServerSource.DISCOVERED,
        )


_ENTRIES = TypeAdapter(list[_Entry])


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What a file says: servers, and names that stand for servers."""

    servers: tuple[Server, ...] = ()
    names: tuple[Name, ...] = ()


def read_server_file(path: Path) -> ServerFile:
    """Return what the file `path` says. Raises SettingsError with the entry and what is wrong with it."""
    try:
        text = path.read_bytes()
    except OSError as exc:
        raise SettingsError(f"The file of servers {path} cannot be read: {exc.strerror}.") from exc
    return parse_server_file(text, path)


def parse_server_file(text: bytes, path: Path) -> ServerFile:
    """Return what the text of the file `path` says. Raises SettingsError."""
    try:
        entries = _ENTRIES.validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"The file of servers {path}: {where + ': ' if where else ''}{first['msg']}.") from exc
    ids = [entry.id for entry in entries]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise SettingsError(f"The file of servers {path} names {', '.join(twice)} twice.")
    names = (
        Name(it.discover.dns, it.server(), it.discover.http_port, it.discover.grpc_port, it.discover.metrics_port)
        for it in entries
        if it.discover is not None
    )
    return ServerFile(tuple(it.server() for it in entries if it.discover is None), tuple(names))
