"""What servers take of memory, pass after pass, and which of them lose some: the ledgers that `planning.leaks` judges.

A part of `observing`, which asks for it with every look. Use from one event loop.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.planning.leaks import Ledger, leak, look_at
from control_plane.ports import Fleet
from control_plane.state import ActionRecord, ModelName, ObservedServer, Result, ServerCondition, ServerId

_WEIGHED_EVERY = timedelta(seconds=5)
"""How often the memory of a server's processes is read, which takes milliseconds for each of them."""

logger = logging.getLogger(__name__)


class Scales:
    """`leaking` says of servers how much memory did not come back there."""

    def __init__(self, fleet: Fleet, now: Callable[[], datetime]) -> None:
        self._fleet, self._now = fleet, now
        self._ledgers: dict[ServerId, Ledger] = {}
        self._weighed: dict[ServerId, tuple[datetime, int | None]] = {}
        self._fresh: set[ServerId] = set()
        self.leaking: dict[ServerId, str] = {}

    def begin(self) -> None:
        """Begin another look: nothing was read for it yet."""
        self._fresh.clear()

    async def with_memory(self, seen: ObservedServer) -> ObservedServer:
        """Return a server with what it takes of memory, and what did not come back."""
        return replace(await self._read(seen), memory_missing_bytes=self.missing(seen.server.id))

    def forget_others(self, there: Container[ServerId]) -> None:
        """Forget every server but these."""
        self._ledgers = {server: ledger for server, ledger in self._ledgers.items() if server in there}
        self._weighed = {server: last for server, last in self._weighed.items() if server in there}

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

    def begin_anew(self, server: ServerId) -> None:
        """Take note that a server was started again: its ledger is new."""
        self._ledgers.pop(server, None)
        self._weighed.pop(server, None)
        self.leaking.pop(server, None)

    def missing(self, server: ServerId) -> int:
        """Return the bytes that did not come back."""
        return self._ledgers.get(server, Ledger()).missing_bytes

    async def _read(self, seen: ObservedServer) -> ObservedServer:
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
