"""Looking at the fleet: every server at the same time, each with a deadline, so that a dead one delays nobody.

Between `reconciler` above and the ports below. What only time tells is added here: since when a server is away, that
one is draining, and what it took that did not come back.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.planning.leaks import Ledger, leak, look_at
from control_plane.planning.outages import TOO_MANY, plan_marks
from control_plane.ports import DeploymentStore, Fleet, TritonControl
from control_plane.state import (
    ActionRecord,
    Mark,
    ModelName,
    ObservedServer,
    Result,
    Server,
    ServerCondition,
    ServerId,
)

_AT_ONCE = 64
_WEIGHED_EVERY = timedelta(seconds=5)
"""How often the memory of a server's processes is read, which takes milliseconds for each of them."""

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
        self._ledgers: dict[ServerId, Ledger] = {}
        self._weighed: dict[ServerId, tuple[datetime, int | None]] = {}
        self._fresh: set[ServerId] = set()
        self.leaking: dict[ServerId, str] = {}
        self._marking = asyncio.Lock()  # the loop and a preview may look at the same time

    async def observe(self, drained: Mark | None = None) -> tuple[ObservedServer, ...]:
        """Return what every registered server answers now, by id. Takes out those that keep failing.

        `drained` is a mark to be taken as given, which nobody made yet.
        """
        room = asyncio.Semaphore(_AT_ONCE)

        async def ask(server: Server) -> ObservedServer:
            async with room:
                seen = self._dated(await self._triton.observe(server))
                return replace(await self._with_memory(seen), memory_missing_bytes=self._missing(server.id))

        self._fresh.clear()
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

    def weigh(
        self,
        observed: Iterable[ObservedServer],
        records: Mapping[tuple[ServerId, ModelName], ActionRecord],
        busy: Container[ServerId],
    ) -> None:
        """Take note of what servers take that nothing is being done on; then `leaking` tells of those that lose memory.

        A server that shares a device with another one is not judged: whose memory it is cannot be told.
        """
        seen = {entry.server.id: entry for entry in observed}
        owners = Counter(device.uuid for entry in seen.values() for device in entry.server.devices)
        failed: dict[ServerId, datetime] = {}
        for record in records.values():
            if record.result is Result.FAILED:
                failed[record.server] = max(record.at, failed.get(record.server, record.at))
        for server, entry in seen.items():
            if entry.condition is ServerCondition.UNREACHABLE:
                self._ledgers.pop(server, None)
            elif (
                server in self._fresh
                and server not in busy
                and all(owners[device.uuid] == 1 for device in entry.server.devices)
            ):
                look = look_at(entry, self._now(), failed.get(server))
                if look is not None:
                    self._ledgers[server] = self._ledgers.get(server, Ledger()).after(look)
        found = {it: leak(seen[it].server, ledger.missing_bytes) for it, ledger in self._ledgers.items() if it in seen}
        for server in sorted(it for it, why in found.items() if why and it not in self.leaking):
            logger.warning("Server %s is to be drained and started again: %s", server, found[server])
        self.leaking = {server: why for server, why in sorted(found.items()) if why}

    def restarted(self, server: ServerId) -> None:
        """Take note that a server was started again because it leaked: that was no outage, and its ledger is new."""
        self._ledgers.pop(server, None)
        self._weighed.pop(server, None)
        self.leaking.pop(server, None)
        self._outages.pop(server, None)

    def _missing(self, server: ServerId) -> int:
        return self._ledgers.get(server, Ledger()).missing_bytes

    async def _with_memory(self, seen: ObservedServer) -> ObservedServer:
        """Return a server of ours that has no devices with what it takes of the host's memory, read now and then."""
        server, now = seen.server, self._now()
        if server.devices or not seen.answers or server.id not in self._fleet.owned():
            if seen.memory_used_bytes is not None:
                self._fresh.add(server.id)
            return seen
        at, used = self._weighed.get(server.id, (None, None))
        if at is None or now - at >= _WEIGHED_EVERY:
            used = await asyncio.to_thread(self._fleet.memory_used, server.id)
            self._weighed[server.id] = now, used
            self._fresh.add(server.id)
        return replace(seen, memory_used_bytes=used)

    async def _marks(self, seen: Iterable[ObservedServer]) -> dict[ServerId, Mark]:
        marks = {mark.server: mark for mark in await self._store.marks()}
        for server, why in self._fleet.retiring().items():
            marks.setdefault(server, Mark(server, why, self._now()))
        for server in self._taken_out - marks.keys():
            self._outages.pop(server, None)  # an operator let it back in: its outages before that count no more
        out, back = plan_marks(seen, self._outages, marks, self._now(), self.leaking)
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
        self._ledgers = {server: ledger for server, ledger in self._ledgers.items() if server in there}
        self._weighed = {server: last for server, last in self._weighed.items() if server in there}


def _marked(seen: ObservedServer, mark: Mark | None) -> ObservedServer:
    if mark is None or seen.condition is not ServerCondition.HEALTHY:
        return seen
    return replace(seen, condition=ServerCondition.DRAINING, detail=mark.reason)
