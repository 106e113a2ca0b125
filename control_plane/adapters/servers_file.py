"""The servers file: a JSON list of servers, and of DNS names each of whose addresses is one.

Read at the start and again every few seconds by `control_plane.discovery`. Fields that nobody knows are refused here:
a misspelt `pool` would have models placed where they must not be.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from control_plane.errors import SettingsError
from control_plane.planning.discovery import DnsName, Entry, Family
from control_plane.state import DEFAULT_POOL, Device, Endpoints, Server, ServerId, Source

_MOST_BYTES = 16 * 2**20
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"

_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Address = Annotated[str, Field(pattern=r"^[^\s/:]+:\d{1,5}$|^\[[0-9A-Fa-f:.]+\]:\d{1,5}$", max_length=300)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Bytes = Annotated[int, Field(ge=0, le=2**50)]
_Capability = Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]


class _Part(BaseModel):
    """What all parts of the file have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Endpoints(_Part):
    http: _Address
    grpc: _Address
    metrics: _Address


class _Discover(_Part):
    dns: Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*\.?$", max_length=253)]
    http_port: _Port = 8000
    grpc_port: _Port = 8001
    metrics_port: _Port = 8002
    family: Annotated[Family, Field(strict=False)] = Family.ANY


class _Device(_Part):
    uuid: Annotated[str, Field(min_length=1, max_length=128)]
    product: str = ""
    compute_capability: _Capability | Annotated[str, Field(max_length=0)] = ""
    memory_bytes: _Bytes = 0
    mig_profile: Annotated[str, Field(pattern=r"^[a-z0-9.+]{0,32}$")] = ""


class _Entry(_Part):
    """An entry. What its devices say of capabilities and memory need not be said again."""

    id: _Word
    endpoints: _Endpoints | None = None
    discover: _Discover | None = None
    admin_key: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    compute_capabilities: list[_Capability] = []
    backends: list[_Word] = ["python", "onnxruntime"]
    versions: dict[_Word, str] = {}
    devices: list[_Device] = []
    memory_bytes: _Bytes = 0
    pool: _Word = DEFAULT_POOL
    labels: dict[_Word, Annotated[str, Field(max_length=63)]] = {}
    repository: Annotated[str, Field(pattern=r"^(/.*)?$", max_length=4096)] = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.endpoints is None) == (self.discover is None):
            raise ValueError("give either endpoints or discover")
        if self.discover is not None and self.repository:
            raise ValueError("the servers of one name cannot have one folder each: leave repository out")
        if len(self.devices) > 1 and any(device.mig_profile for device in self.devices):
            raise ValueError("a tritonserver sees one MIG slice, or whole GPUs: give one slice and nothing else")
        return self

    def entry(self) -> Entry:
        """Return it as the core has it."""
        devices = tuple(Device(**device.model_dump()) for device in self.devices)
        of_devices = {device.compute_capability for device in devices if device.compute_capability}
        server = Server(
            ServerId(self.id),
            Endpoints(**self.endpoints.model_dump()) if self.endpoints is not None else Endpoints("", "", ""),
            self.admin_key,
            tuple(sorted({*self.compute_capabilities, *of_devices})),
            frozenset(self.backends),
            dict(sorted(self.versions.items())),
            devices=devices,
            memory_bytes=self.memory_bytes or sum(device.memory_bytes for device in devices),
            pool=self.pool,
            labels=dict(sorted(self.labels.items())),
            repository=self.repository,
            source=Source.FILE,
        )
        return Entry(server, DnsName(**self.discover.model_dump()) if self.discover is not None else None)


_ENTRIES = TypeAdapter(list[_Entry])


class ServersFile:
    """The file at `path`. Only its content counts, however it was put there: written, renamed, or behind a new link."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = b""
        self._entries: tuple[Entry, ...] = ()

    def read(self) -> tuple[Entry, ...]:
        """Return the entries, parsed anew where the content changed. Raises SettingsError with the cause.

        Reads a file: not for the event loop's thread. A time stamp would tell less: an edit within its resolution
        leaves it as it was.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as exc:
            raise SettingsError(f"The file of servers {self._path} cannot be read: {exc.strerror}.") from exc
        if len(content) > _MOST_BYTES:
            raise SettingsError(f"The file of servers {self._path} has more than {_MOST_BYTES // 2**20} MiB.")
        digest = hashlib.sha256(content).digest()
        if digest != self._digest:
            self._entries = self._parsed(content)
            self._digest = digest
        return self._entries

    def _parsed(self, content: bytes) -> tuple[Entry, ...]:
        try:
            entries = _ENTRIES.validate_json(content)
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise SettingsError(
                f"The file of servers {self._path}: {f'{where}: ' if where else ''}{first['msg']}."
            ) from exc
        names = [entry.id for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SettingsError(f"The file of servers {self._path} names {', '.join(twice)} twice.")
        return tuple(entry.entry() for entry in entries)
