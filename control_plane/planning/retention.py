"""Which versions are taken off a server's disk: a pure function of what lies there, what is needed, and `now`.

`adapters.server_repository` lists what lies there and removes what is planned here. That a shortage cannot be met is an
answer (`still_short`), never an exception.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from control_plane.state import ModelName, Pin

KEEP = 2
"""Unused versions of each model that stay, so that a rollback copies nothing."""
RECENT = timedelta(hours=1)
"""A version that was needed within this time stays: what was just taken away is what is most often asked for again."""
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Installed:
    """One version in a server's repository location, and what it takes there.

    `ours` is whether the control plane copied it there; what somebody else put there is never removed. `last_needed` is
    when it was last said to be needed, None where nobody ever said so.
    """

    pin: Pin
    bytes: int
    ours: bool
    last_needed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """A version to remove, how much room that gives, and why."""

    pin: Pin
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What to remove, in this order. `still_short` is what a shortage lacks even if every unused version went."""

    removals: tuple[Removal, ...] = ()
    still_short: int = 0


def plan_retention(
    installed: Iterable[Installed],
    needed: Collection[Pin],
    now: datetime,
    keep: int = KEEP,
    bytes_short: int = 0,
) -> RetentionPlan:
    """Choose the versions of one location to remove; `needed` are those that should serve there, or are loaded.

    Of the others each model keeps its `keep` newest, and those needed within RECENT. Where `bytes_short` more bytes are
    wanted than are free, these go too, the one needed longest ago first, until there is enough; they stay where all of
    them together would not be enough, for then their loss gains nothing.
    """
    unused = sorted((it for it in installed if it.ours and it.pin not in needed), key=_age)
    kept = _newest(unused, keep)
    surplus = [it for it in unused if it.pin not in kept and not _is_recent(it, now)]
    removals = [Removal(it.pin, it.bytes, f"not used, and older than the {keep} newest unused ones") for it in surplus]
    short = bytes_short - sum(it.bytes for it in surplus)
    gone = {it.pin for it in removals}
    spare = [it for it in unused if it.pin not in gone]
    still_short = max(0, short - sum(it.bytes for it in spare))
    if still_short:
        return RetentionPlan(tuple(removals), still_short)
    for it in spare:
        if short <= 0:
            break
        removals.append(Removal(it.pin, it.bytes, "not used, and its space is needed"))
        short -= it.bytes
    return RetentionPlan(tuple(removals))


def _age(it: Installed) -> tuple[datetime, ModelName, int]:
    """Order by when it was last needed, longest ago first."""
    return it.last_needed or _NEVER, it.pin.model, it.pin.version


def _newest(unused: Iterable[Installed], keep: int) -> frozenset[Pin]:
    """Return the `keep` highest versions of each model."""
    versions: dict[ModelName, list[int]] = {}
    for it in unused:
        versions.setdefault(it.pin.model, []).append(it.pin.version)
    return frozenset(
        Pin(model, version) for model, found in versions.items() for version in sorted(found, reverse=True)[:keep]
    )


def _is_recent(it: Installed, now: datetime) -> bool:
    return it.last_needed is not None and it.last_needed > now - RECENT
