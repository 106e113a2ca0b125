"""When a failed load is tried again: exponential delays with jitter, as pure functions of the record and `now`.

`reconciler` brings the clock and the dice; `lifecycle` leaves alone what is held back here.
"""

from collections.abc import Iterable
from datetime import datetime

from control_plane.state import NO_VERSION, ActionRecord, ModelName, ServerId

FIRST_DELAY_S = 1.0
CAP_S = 60.0
_MAX_DOUBLINGS = 16


def retry_delay_s(failures: int, jitter: float) -> float:
    """Seconds before the next try after `failures` in a row (at least 1).

    Doubled for each failure from FIRST_DELAY_S up to CAP_S; `jitter` in [0, 1) takes away up to half of it.
    """
    delay = min(CAP_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return delay * (1.0 - jitter / 2.0)


QUARANTINED_AFTER = 8
"""Loads of a model that failed, or did not last, in a row on one server: then it is not tried there any more."""


def quarantined(records: Iterable[ActionRecord]) -> dict[tuple[ServerId, ModelName], str]:
    """Find the models that are not loaded on a server any more, and why. A new revision of a deployment ends it."""
    return {
        (record.server, record.model): f"{record.failures} loads in a row failed or did not last: {record.reason}"
        for record in records
        if record.failures >= QUARANTINED_AFTER and record.version != NO_VERSION
    }


def held_back(records: Iterable[ActionRecord], now: datetime) -> dict[tuple[ServerId, ModelName], ActionRecord]:
    """Find the loads that failed and are not due again, by server and model."""
    return {
        (record.server, record.model): record
        for record in records
        if record.retry_at is not None and record.retry_at > now
    }


def next_retry(records: Iterable[ActionRecord], now: datetime) -> float | None:
    """Seconds until the first retry that is not due yet, or None."""
    waits = [(record.retry_at - now).total_seconds() for record in held_back(records, now).values() if record.retry_at]
    return min(waits, default=None)
