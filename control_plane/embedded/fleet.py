"""Several embedded servers under one runtime folder, begun and ended together.

What `bootstrap` opens for the demo, `serve` and the tests; each server supervises itself (`server`).
"""

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from control_plane.embedded.record import RECORD_NAME, read_record
from control_plane.embedded.server import EmbeddedServer
from control_plane.embedded.spec import Ownership, ServerSpec, Supervision
from control_plane.errors import ServerStartError
from control_plane.state import ServerId

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class EmbeddedFleet:
    """An async context manager over `specs`: inside it every server is up; after it every BOUND one is gone.

    ADOPTABLE servers that run already are adopted on entry, and left running on exit. Each server has the folder
    `runtime_dir`/<id>; without `runtime_dir`, which ADOPTABLE servers need, a temporary one that is removed at the end.
    """

    def __init__(
        self, specs: Iterable[ServerSpec], runtime_dir: Path | None = None, supervision: Supervision | None = None
    ) -> None:
        self._specs = tuple(specs)
        self._runtime_dir, self._supervision = runtime_dir, supervision
        self._temporary: Path | None = None
        self._servers: dict[ServerId, EmbeddedServer] = {}
        _check(self._specs, runtime_dir)

    def servers(self) -> tuple[EmbeddedServer, ...]:
        """Every server, in the order of the specs."""
        return tuple(self._servers.values())

    def __getitem__(self, server_id: ServerId) -> EmbeddedServer:
        """Return the server with this id; KeyError when there is none."""
        return self._servers[server_id]

    async def __aenter__(self) -> Self:
        """Bring every server up, at the same time. The first error is raised once every BOUND one is gone."""
        if self._runtime_dir is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="tritonfleet-"))
        root = self._runtime_dir or self._temporary
        assert root is not None  # noqa: S101 - one of the two is set, which mypy cannot know
        begins = [self._begin(spec, root / spec.id) for spec in self._specs]
        try:
            _raise_first(await asyncio.gather(*begins, return_exceptions=True))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the BOUND servers and let go of the ADOPTABLE ones."""
        await self._end()

    async def _begin(self, spec: ServerSpec, folder: Path) -> None:
        record = read_record(folder / RECORD_NAME) if spec.ownership is Ownership.ADOPTABLE else None
        if record is not None and record.is_running():
            self._servers[spec.id] = await EmbeddedServer.adopt(folder / RECORD_NAME, self._supervision)
            return
        server = EmbeddedServer(spec, folder, self._supervision, remove_runtime=self._temporary is not None)
        self._servers[spec.id] = server
        await server.start()

    async def _end(self) -> None:
        """End every server even where ending one fails; that error is raised afterwards."""
        bound = [server for server in self.servers() if server.spec.ownership is Ownership.BOUND]
        for server in self.servers():
            if server not in bound:
                server.detach()
        outcomes = await asyncio.gather(*(server.stop() for server in bound), return_exceptions=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        _raise_first(outcomes)


def _raise_first(outcomes: Iterable[BaseException | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def _check(specs: tuple[ServerSpec, ...], runtime_dir: Path | None) -> None:
    for spec in specs:
        if not _FOLDER_NAME.fullmatch(spec.id):
            raise ServerStartError(f"'{spec.id}' cannot name a server: letters, digits, '.', '_' and '-' only.")
        if spec.ownership is Ownership.ADOPTABLE and runtime_dir is None:
            raise ServerStartError(f"Server '{spec.id}' is adoptable: give the fleet a runtime_dir that stays.")
    if len({spec.id for spec in specs}) < len(specs):
        raise ServerStartError("Two servers of one fleet have the same id.")
