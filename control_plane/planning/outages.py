"""When a server that keeps failing, or loses memory, is taken out, and when it may come back. Pure.

`observing` keeps the times and the ledgers.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from control_plane.state import Mark, ObservedServer, ServerCondition, ServerId

WINDOW = timedelta(minutes=10)
TOO_MANY = 3
"""Outages within WINDOW after which a server is taken out. After WINDOW without one it may come back."""


def plan_marks(
    observed: Iterable[ObservedServer],
    outages: Mapping[ServerId, Iterable[datetime]],
    marks: Mapping[ServerId, Mark],
    now: datetime,
    leaking: Mapping[ServerId, str] | None = None,
) -> tuple[tuple[Mark, ...], tuple[ServerId, ...]]:
    """Return the servers to take out now, and those to let back in. What an operator drains stays as it is.

    The last server of a pool that answers is never taken out: one that fails now and then beats none. `leaking` says
    of servers how much memory did not come back there; they are taken out until they were started again.
    """
    lost = leaking or {}
    seen = {entry.server.id: entry for entry in sorted(observed, key=lambda entry: entry.server.id)}
    recent = {server: [at for at in outages.get(server, ()) if now - at < WINDOW] for server in seen}
    marked = (it for it, mark in marks.items() if not mark.by_operator)
    back = tuple(it for it in marked if it in recent and not recent[it] and it not in lost)
    out: list[Mark] = []
    usable = {it for it, entry in seen.items() if entry.condition is ServerCondition.HEALTHY and it not in marks}
    for server, times in recent.items():
        reason = lost.get(server, "")
        if len(times) >= TOO_MANY:
            reason = f"it was away {len(times)} times within {WINDOW.total_seconds() / 60:.0f} minutes"
        if not reason or server in marks:
            continue
        pool = seen[server].server.pool
        if any(it != server and seen[it].server.pool == pool for it in usable):
            out.append(Mark(server, reason, now, by_operator=False))
            usable.discard(server)
    return tuple(out), tuple(sorted(back))
