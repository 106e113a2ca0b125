"""Looking at the fleet: every server at the same time, each with a deadline, so that a dead one delays nobody.

Between `reconciler` above and the ports below. What only time tells is added here: since when a server is away, that
one is draining, and, by `weighing`, what it took that did not come back.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from control_plane.planning.outages import TOO_MANY, plan_marks
from control_plane.ports import DeploymentStore, Fleet, TritonControl
from control_plane.state import (
    Mark,
    ObservedServer,
    Server,
    ServerCondition,
    ServerId,
)
from control_plane.weighing import Scales

_AT_ONCE = 64

logger = logging.getLogger(__name__)


class Observer:
    """Remembers when each server answered last, and when it went away. Use from one event loop."""

    def __init__(
        self, store: DeploymentStore, fleet: Fleet, triton: TritonControl, now: Callable[[], datetime]
    ) -> None:
        self._store, self._fleet, self._triton, self._now = store, fleet, triton, now
        self._answered: dict[ServerId, datetime] = {}
        self._away: set[ServerId] = set()
        self._outages: dict[ServerId, deque[datetime]] = {}
        self._taken_out: set[ServerId] = set()
        self.scales = Scales(fleet, now)
        self._marking = asyncio.Lock()  # the loop and a preview may look at the same time

    async def observe(self, drained: Mark | None = None) -> tuple[ObservedServer, ...]:
        """Return what every registered server answers now, by id. Takes out those that keep failing.

        `drained` is a mark to be taken as given, which nobody made yet.
        """
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask(server: Server) -> ObservedServer:
            async with room:
                seen = self._dated(await self._triton.observe(server))
                return await self.scales.with_memory(seen)

        self.scales.begin()
        servers = sorted(self._fleet.servers(), key=lambda server: server.id)
        there = frozenset(server.id for server in servers)
        self._forget_others(there)
        self._triton.forget_others(there)
        seen = await asyncio.gather(*(ask(server) for server in servers))
        async with self._marking:
            marks = await self._marks(seen)
        if drained is not None:
            marks[drained.server] = drained
        return tuple(_marked(entry, marks.get(entry.server.id)) for entry in seen)

    def restarted(self, server: ServerId) -> None:
        """Take note that a server was started again because it leaked: that was no outage, and its ledger is new."""
        self.scales.begin_anew(server)
        self._outages.pop(server, None)

    async def _marks(self, seen: Iterable[ObservedServer]) -> dict[ServerId, Mark]:
        marks = {mark.server: mark for mark in await self._store.marks()}
        for server, why in self._fleet.retiring().items():
            marks.setdefault(server, Mark(server, why, self._now()))
        for server in self._taken_out - marks.keys():
            self._outages.pop(server, None)  # an operator let it back in: its outages before that count no more
        out, back = plan_marks(seen, self._outages, marks, self._now(), self.scales.leaking)
        for mark in out:
            logger.warning("Server %s is taken out: %s", mark.server, mark.reason)
            await self._store.mark(mark)
            marks[mark.server] = mark
        for server in back:
            logger.info("Server %s is let back in", server)
            await self._store.unmark(server)
            del marks[server]
        self._taken_out = {server for server, mark in marks.items() if not mark.by_operator}
        return marks

    def _dated(self, seen: ObservedServer) -> ObservedServer:
        server, now = seen.server.id, self._now()
        if seen.condition is not ServerCondition.UNREACHABLE:
            self._answered[server] = now
            self._away.discard(server)
            return seen
        if server not in self._away and server in self._answered:
            self._outages.setdefault(server, deque(maxlen=TOO_MANY)).append(now)
        self._away.add(server)
        note = self._fleet.note(server)
        since = self._answered.setdefault(server, now)
        return replace(seen, detail=f"{note} {seen.detail}" if note else seen.detail, since=since)

    def _forget_others(self, there: frozenset[ServerId]) -> None:
        self._answered = {server: at for server, at in self._answered.items() if server in there}
        self._outages = {server: times for server, times in self._outages.items() if server in there}
        self._away &= there
        self.scales.forget_others(there)


def _marked(seen: ObservedServer, mark: Mark | None) -> ObservedServer:
    if mark is None or seen.condition is not ServerCondition.HEALTHY:
        return seen
    return replace(seen, condition=ServerCondition.DRAINING, detail=mark.reason)
