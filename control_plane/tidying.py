"""Moving replicas together while nothing else is to be done: the defragmentation that nobody has to ask for.

Beside the loop. Once slices were as they should be for long enough, the plan that `placement defrag` shows is carried
out, within what is left of the budget of moves; then it waits that long again.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from control_plane.errors import MissingExtraError
from control_plane.slicer import Slicer

_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Tidier:
    """Use from one event loop; `look` is called as often as one likes."""

    def __init__(self, slicer: Slicer, after_s: float, now: Callable[[], datetime], wake: Callable[[], None]) -> None:
        self._slicer, self._after, self._now, self._wake = slicer, timedelta(seconds=after_s), now, wake
        self._quiet_since: datetime | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, self._after.total_seconds()))
            await self.look()

    async def look(self) -> bool:
        """Tidy up where it is time; tells whether anything was moved. Raises MissingExtraError without OR-Tools."""
        now = self._now()
        if not self._slicer.is_quiet:
            self._quiet_since = None
            return False
        self._quiet_since = self._quiet_since or now
        if now - self._quiet_since < self._after:
            return False
        self._quiet_since = None
        try:
            from control_plane.slicing.defragmenting import defragment  # noqa: PLC0415 - an extra, and slow to import
        except ImportError as exc:
            raise MissingExtraError("Defragmenting needs OR-Tools: pip install 'tritonfleet[placement]'.") from exc
        view = self._slicer.view
        found = await asyncio.to_thread(defragment, view.fleet, view.wanted, None, _SECONDS, view.moves_left)
        if not found.is_worth_it or not await self._slicer.apply(found.optimised.plan):
            return False
        logger.info("Tidying up: %d replicas move", len(found.optimised.plan.moved))
        self._wake()
        return True
