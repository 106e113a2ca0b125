"""Memory that does not come back: what a server takes before and after loads, unloads and loads that fail. Pure.

`observing` feeds a ledger for each server with what it sees while nothing is being done there. Only changes around such
an action are judged, once it has settled, so that a model whose memory grows with its traffic is not taken for a leak:

- what failed to load should have left nothing behind;
- what is unloaded should give back what its load took, where that was seen; what was loaded together, together.

More that comes back than was taken is set against what is missing: measurements vary, and their errors must not add up.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from control_plane.planning.fitting import mib
from control_plane.state import ModelName, ModelState, ObservedServer, Server

SETTLE = timedelta(seconds=10)
"""How long a server is left alone before it is judged: processes end, and drivers give memory back, with a delay."""
LEAST_BYTES = 256 * 2**20
PART = 0.1
"""Memory that may be missing before anything is done: this part of the server's, and never less than LEAST_BYTES."""

Held = frozenset[tuple[ModelName, int, int, int]]
"""What a server has ready: model, version, instances, generation."""

_ON_ITS_WAY = frozenset({ModelState.LOADING, ModelState.UNLOADING})


@dataclass(frozen=True, slots=True)
class Look:
    """What a server held and took while nothing was being done on it; `failed_at` is its last failed load."""

    at: datetime
    held: Held
    used_bytes: int
    failed_at: datetime | None = None

    def is_like(self, other: "Look") -> bool:
        """Tell whether nothing was done between the two."""
        return (self.held, self.failed_at) == (other.held, other.failed_at)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What one life of a server took and gave back.

    `rest` is the last look before what was done, or the latest one; `changed` is what it holds since, not settled yet,
    with the least that it took. `loads` are what came together and what that took; `missing_bytes` is the sum.
    """

    rest: Look | None = None
    changed: Look | None = None
    loads: tuple[tuple[Held, int], ...] = ()
    missing_bytes: int = 0

    def after(self, look: Look) -> "Ledger":
        """Return the ledger after one more look."""
        if self.changed is None:
            if self.rest is not None and look.is_like(self.rest):
                return replace(self, rest=look)
            return replace(self, changed=look)
        if not look.is_like(self.changed):
            return replace(self, changed=look)
        least = min(self.changed.used_bytes, look.used_bytes)
        if look.at - self.changed.at < SETTLE:
            return replace(self, changed=replace(self.changed, used_bytes=least))
        settled = replace(look, used_bytes=least)
        return replace(self if self.rest is None else self._judged(self.rest, settled), rest=settled, changed=None)

    def _judged(self, before: Look, now: Look) -> "Ledger":
        came, gone = now.held - before.held, before.held - now.held
        more = now.used_bytes - before.used_bytes
        known = tuple(load for load in self.loads if not load[0] & gone)
        if not came and not gone:
            return replace(self, missing_bytes=max(0, self.missing_bytes + more))
        if not gone:
            return replace(self, loads=(*known, (came, max(0, more))))
        left = [load for load in self.loads if load[0] <= gone]
        if came or frozenset().union(*(held for held, _ in left)) != gone:
            return replace(self, loads=known)  # nobody knows what that took
        expected = sum(took for _, took in left)
        return replace(self, loads=known, missing_bytes=max(0, self.missing_bytes + expected + more))


def look_at(seen: ObservedServer, at: datetime, failed_at: datetime | None) -> Look | None:
    """Return what an observation tells; None where it does not say what the server takes, or a model is on its way."""
    if seen.memory_used_bytes is None or any(row.state in _ON_ITS_WAY for row in seen.models):
        return None
    ready = (row for row in seen.models if row.state is ModelState.READY)
    held = frozenset((row.name, row.version, row.instances, row.generation) for row in ready)
    return Look(at, held, seen.memory_used_bytes, failed_at)


def leak(server: Server, missing_bytes: int) -> str:
    """Say why a server is to be started again, in half a sentence; empty where too little is missing for that."""
    if missing_bytes <= max(LEAST_BYTES, PART * server.memory_bytes):
        return ""
    return f"{mib(missing_bytes)} of memory did not come back after unloads and failed loads"
