"""When a failed load is tried again: exponential delays with jitter, as pure functions of the record and `now`.

`reconciler` brings the clock and the dice; `lifecycle` leaves alone what is held back here.
"""

from collections.abc import Iterable
from datetime import datetime

from control_plane.state import ActionRecord, ModelName, ServerId

FIRST_DELAY_S = 1.0
CAP_S = 60.0
PERMANENT_CAP_S = 300.0
_MAX_DOUBLINGS = 16


def retry_delay_s(failures: int, jitter: float, *, permanent: bool = False) -> float:
    """Seconds before the next try after `failures` in a row (at least 1).

    Doubled for each failure from FIRST_DELAY_S up to CAP_S; `jitter` in [0, 1) takes away up to half of it. What is
    `permanent` waits longer in the end, but is tried again too: nobody tells when its cause was mended.
    """
    delay = min(PERMANENT_CAP_S if permanent else CAP_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    return delay * (1.0 - jitter / 2.0)


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
