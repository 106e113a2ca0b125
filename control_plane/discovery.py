"""Servers that come and go by themselves: the servers file is followed, and the DNS names in it are asked for.

Every few seconds: read the file, ask DNS, have `planning.discovery` say which servers that makes, and hand those to the
fleet, which wakes the loop where something changed. Whatever goes wrong changes nothing and is told: in the log once,
and for as long as it lasts in the metrics, `GET /v1/health` and `tritonfleet status`.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from control_plane.errors import ControlPlaneError, SettingsError
from control_plane.metrics import Metrics
from control_plane.planning.discovery import Answer, Entry, Known, plan_servers, take_answer
from control_plane.ports import Resolver
from control_plane.reconciler import utc_now
from control_plane.state import Server

_PATIENCE = 2
"""So many times in a row the file must be missing or wrong before that is told: while it is written, it is once."""

logger = logging.getLogger(__name__)


class Entries(Protocol):
    """The servers file."""

    def read(self) -> tuple[Entry, ...]:
        """Return what it says now. Raises SettingsError with the cause. Reads a file: for a thread."""


class FoundServers(Protocol):
    """Who is told: the part of the fleet that others decide on."""

    async def take_found(self, servers: tuple[Server, ...], problems: tuple[str, ...]) -> None:
        """Have just these servers be the found ones, and these be the problems of finding them."""


@dataclass(frozen=True, slots=True)
class DiscoveryTiming:
    """How often to look, how long an address stays that DNS names no more, in seconds; and where the time is from."""

    interval_s: float = 5.0
    grace_s: float = 300.0
    now: Callable[[], datetime] = utc_now


class Discovery:
    """Follows one servers file. Use from one event loop."""

    def __init__(
        self, entries: Entries, resolver: Resolver, found: FoundServers, metrics: Metrics, timing: DiscoveryTiming
    ) -> None:
        self._file, self._resolver, self._found = entries, resolver, found
        self._metrics, self._timing = metrics, timing
        self._entries: tuple[Entry, ...] = ()
        self._wrong_in_a_row = 0
        self._known: dict[str, Known] = {}
        self._told: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look every interval, until cancelled."""
        while True:
            await asyncio.sleep(self._timing.interval_s)
            try:
                await self.look()
            except Exception:
                logger.exception("Unexpected error while looking for servers")
                self._metrics.error("discovery")

    async def look(self) -> None:
        """Look once. Raises StateFileError where one that is gone could not be forgotten; the next time it is."""
        of_file = await self._read()
        names = sorted({entry.discover.dns for entry in self._entries if entry.discover is not None})
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        now, grace = self._timing.now(), timedelta(seconds=self._timing.grace_s)
        self._known = {
            name: take_answer(self._known.get(name, Known()), answer, now, grace)
            for name, answer in zip(names, answers, strict=True)
        }
        found = plan_servers(self._entries, self._known)
        problems = (*of_file, *found.problems)
        self._tell(problems)
        self._metrics.found(found.servers, len(problems))
        await self._found.take_found(found.servers, problems)

    async def _read(self) -> tuple[str, ...]:
        """Take in the file; where it is wrong, keep what it said last. Returns what is wrong."""
        try:
            self._entries = await asyncio.to_thread(self._file.read)
        except SettingsError as error:
            self._wrong_in_a_row += 1
            if self._wrong_in_a_row < _PATIENCE:
                return ()
            return (f"{error} Until that is put right, what it said last holds.",)
        self._wrong_in_a_row = 0
        return ()

    async def _ask(self, name: str) -> Answer:
        try:
            return Answer(await self._resolver.resolve(name))
        except ControlPlaneError as error:
            return Answer(problem=str(error))

    def _tell(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._told:
                logger.warning("%s", problem)
        for problem in self._told:
            if problem not in problems:
                logger.info("No more: %s", problem)
        self._told = problems
