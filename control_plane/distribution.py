"""Versions on their way to where each server loads from, and off it again once nobody needs them.

Between `executor` and `reconciler` above and the `VersionPlacer` below. A server that reads the model repository itself
(`Server.repository` is empty) has nothing to be done for it.
"""

import logging
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from control_plane.errors import ControlPlaneError, NoSpaceError
from control_plane.planning.retention import plan_retention
from control_plane.ports import VersionPlacer
from control_plane.state import Pin, Server

logger = logging.getLogger(__name__)


class Distribution:
    """Copies out of the model repository `source`. All calls read or write files: not for the event loop's thread."""

    def __init__(self, source: Path, placer: VersionPlacer, now: Callable[[], datetime]) -> None:
        self._source, self._placer, self._now = source, placer, now

    def bring(self, server: Server, pin: Pin, needed: Collection[Pin]) -> None:
        """Have a version be where the server loads it from. Where there is no room, what is unused makes some.

        Raises NoSpaceError, LocationBusyError, DamagedVersionError, LocationError.
        """
        if not server.repository:
            return
        location = Path(server.repository)
        try:
            self._placer.place(self._source, location, pin.model, pin.version)
        except NoSpaceError as error:
            if not self._make_room(location, {*needed, pin}, error.bytes_short):
                raise
            self._placer.place(self._source, location, pin.model, pin.version)

    def retire(self, server: Server, needed: Collection[Pin]) -> None:
        """Remove versions that have been unused for long. What cannot be removed now is tried again the next time."""
        if not server.repository:
            return
        location = Path(server.repository)
        try:
            self._placer.note_needed(location, needed)
            self._make_room(location, needed, 0)
        except ControlPlaneError as error:
            logger.warning("Unused versions of server %s stay for now: %s", server.id, error)

    def _make_room(self, location: Path, needed: Collection[Pin], bytes_short: int) -> bool:
        plan = plan_retention(self._placer.installed(location), needed, self._now(), bytes_short=bytes_short)
        for removal in plan.removals:
            pin = removal.pin
            logger.info("Version %d of %s leaves %s: %s", pin.version, pin.model, location, removal.reason)
            self._placer.remove(location, pin.model, pin.version)
        return bool(plan.removals) and not plan.still_short
