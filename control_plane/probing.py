"""Finding what answers READY and serves nobody: probes with a golden request, in time and when failures rise.

Triton goes on saying READY of a model whose Python process died (measured on 2.51), so nothing but a request tells. The
loop plans by what is found here; a load with another generation heals it without an unload.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from control_plane.errors import ControlPlaneError
from control_plane.planning import Broken
from control_plane.ports import Catalogue, TritonControl
from control_plane.state import ModelName, ModelState, ObservedModel, ObservedServer, Pin, Probe, Server, ServerId

logger = logging.getLogger(__name__)

Place = tuple[ServerId, ModelName]

_AT_ONCE = 16


@dataclass(slots=True)
class _Watched:
    """One ready model on one server, and what is known of it."""

    server: Server
    row: ObservedModel
    probed_at: float | None = None
    suspect: bool = False


class Prober:
    """Probes the ready models that it was last shown. `found` is what is broken. Use from one event loop.

    `every_s` seconds lie between two probes of a model. `changed` is called when something was found, or has gone.
    """

    def __init__(
        self,
        triton: TritonControl,
        catalogue: Catalogue,
        now: Callable[[], datetime],
        changed: Callable[[], None],
        *,
        every_s: float = 10.0,
    ) -> None:
        self._triton, self._catalogue, self._now, self._changed = triton, catalogue, now, changed
        self._every_s = every_s
        self.found: dict[Place, Broken] = {}
        self._watched: dict[Place, _Watched] = {}
        self._requests: dict[tuple[Pin, str], Probe | None] = {}
        self._shown = asyncio.Event()

    def show(self, observed: Iterable[ObservedServer]) -> None:
        """Take in what a pass saw: what to probe, and which models' failures rose."""
        watched: dict[Place, _Watched] = {}
        for seen in observed:
            if seen.answers:
                for row in seen.models:
                    if row.state is ModelState.READY:
                        watched[seen.server.id, row.name] = self._watch(seen.server, row)
        self._watched = watched
        for place, broken in tuple(self.found.items()):
            entry = watched.get(place)
            if entry is None or (entry.row.version, entry.row.generation) != (broken.version, broken.generation):
                del self.found[place]  # it is not that any more; the next probe tells what it is now
        self._shown.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            self._shown.clear()
            due = [entry for entry in self._watched.values() if self._is_due(entry, clock())]
            await self._probe_all(due)
            try:
                async with asyncio.timeout(self._every_s / 4):
                    await self._shown.wait()
            except TimeoutError:
                continue

    async def probe_now(self) -> None:
        """Probe everything that was shown, once."""
        await self._probe_all(list(self._watched.values()))

    async def _probe_all(self, entries: Iterable[_Watched]) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def probe(entry: _Watched) -> None:
            async with room:
                await self._probe(entry)

        before = dict(self.found)
        await asyncio.gather(*(probe(entry) for entry in entries))
        if self.found != before:
            self._changed()

    def _watch(self, server: Server, row: ObservedModel) -> _Watched:
        before = self._watched.get((server.id, row.name))
        if before is None or (before.row.version, before.row.generation) != (row.version, row.generation):
            return _Watched(server, row)
        failing = row.failed > before.row.failed
        return _Watched(server, row, before.probed_at, suspect=before.suspect or failing)

    def _is_due(self, entry: _Watched, now: float) -> bool:
        ailing = (entry.server.id, entry.row.name) in self.found  # it may have been mended meanwhile
        return ailing or entry.suspect or entry.probed_at is None or now - entry.probed_at >= self._every_s

    async def _probe(self, entry: _Watched) -> None:
        row, place = entry.row, (entry.server.id, entry.row.name)
        entry.probed_at, entry.suspect = asyncio.get_running_loop().time(), False
        try:
            request = await self._request(Pin(row.name, row.version), row.filename)
            if request is None:
                return
            result = await self._triton.probe(entry.server, request)
        except ControlPlaneError as error:
            logger.warning("Model %s on server %s could not be probed: %s", row.name, entry.server.id, error)
            return
        if result.broken:
            self.found[place] = Broken(result.broken, row.version, row.generation, self._now())
        elif not result.unsure:
            self.found.pop(place, None)

    async def _request(self, pin: Pin, filename: str) -> Probe | None:
        """Return the request to probe a version with, read once; None where there is none."""
        key = pin, filename
        if key not in self._requests:
            self._requests[key] = await asyncio.to_thread(self._catalogue.probe, pin.model, pin.version, filename)
        return self._requests[key]
