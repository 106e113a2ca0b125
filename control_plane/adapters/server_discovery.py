"""Following the file of servers and the DNS names in it, so that servers come and go without a restart.

The file is looked at every few seconds: that works for an editor's rename, for a ConfigMap's swapped link and over any
file system. One that is wrong, or away, changes nothing and is told; the last good one stays.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from control_plane.adapters.registered_fleet import RegisteredFleet
from control_plane.adapters.server_file import ServerFile, parse_server_file, read_server_file
from control_plane.errors import ControlPlaneError, DeadlineExceededError, ServerUnreachableError, SettingsError
from control_plane.planning.discovery import Answer, Discovered, Unresolved, discover

_DEADLINE_S = 3.0

logger = logging.getLogger(__name__)


class Resolver(Protocol):
    """What DNS says."""

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Return the IP addresses of a name, each once, sorted.

        Raises ServerUnreachableError, DeadlineExceededError.
        """


class SystemResolver:
    """The resolver of this machine, IPv4 and IPv6."""

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Ask it, in a thread of the loop's; see the port."""
        try:
            async with asyncio.timeout(_DEADLINE_S):
                found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"it was not resolved within {_DEADLINE_S:g} s") from exc
        except (OSError, UnicodeError) as exc:  # UnicodeError: no name that DNS could have
            raise ServerUnreachableError(str(getattr(exc, "strerror", None) or exc)) from exc
        return tuple(sorted({str(entry[4][0]) for entry in found}))


class ServerDiscovery:
    """Brings the servers of a file, and of the names in it, into a fleet. Use from one event loop."""

    def __init__(self, path: Path, fleet: RegisteredFleet, resolver: Resolver, now: Callable[[], datetime]) -> None:
        self._path, self._fleet, self._resolver, self._now = path, fleet, resolver, now
        self._text = b""
        self._file = ServerFile()
        self._discovered = Discovered()
        self._problem = ""

    async def begin(self) -> None:
        """Take the file for the first time. Raises SettingsError."""
        self._file = await asyncio.to_thread(read_server_file, self._path)
        await self.look()

    async def run(self, interval_s: float) -> None:
        """Look again and again, until cancelled. An error that nobody expected is logged, and the next look follows."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.look()
            except Exception:
                logger.exception("Unexpected error while looking for servers")

    async def look(self) -> None:
        """Look once at the file and at the names in it."""
        await self._read()
        names = self._file.names
        dns = sorted({name.dns for name in names})
        answers = dict(zip(dns, await asyncio.gather(*(self._answer(it) for it in dns)), strict=True))
        before = self._discovered
        self._discovered = discover(names, answers, before.seen, self._now())
        problems = (*((self._problem,) if self._problem else ()), *self._discovered.problems)
        for problem in problems:
            if problem not in self._fleet.problems():
                logger.warning("%s", problem)
        gone = {it.id for it in before.servers} - {it.id for it in self._discovered.servers}
        await self._fleet.name(self._file.servers, self._discovered.servers, problems, gone)

    async def _read(self) -> None:
        try:
            text = await asyncio.to_thread(self._path.read_bytes)
            if text != self._text:
                self._file, self._text = parse_server_file(text, self._path), text
            self._problem = ""
        except OSError as exc:
            self._problem = f"The file of servers {self._path} cannot be read: {exc.strerror}. What it said last holds."
        except SettingsError as exc:
            self._problem = f"{exc} What it said before holds."

    async def _answer(self, name: str) -> Answer:
        try:
            return await self._resolver.addresses(name)
        except ControlPlaneError as exc:
            return Unresolved(str(exc).removesuffix("."))
