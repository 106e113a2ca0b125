"""Reading the rotating log that `reaper` writes: its tail, and what was added since a mark.

Triton often gives the cause of a failed load in its log alone, so the control plane marks the log before a load and
asks for what came after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from control_plane.embedded.reaper import LOG_PART_HEADER, log_part

_RACES = 3


@dataclass(frozen=True, slots=True)
class LogMark:
    """A place in the log: the number of a part (0: before the first) and an offset in bytes in it."""

    part: int
    offset: int


@dataclass(frozen=True, slots=True)
class LogWindow:
    """The log at `path` and its one older part. Lines that were rotated away twice are gone."""

    path: Path

    def mark(self) -> LogMark:
        """Return the end of the log as it is now."""
        parts = self._read()
        return LogMark(parts[-1][0], len(parts[-1][1])) if parts else LogMark(0, 0)

    def since(self, mark: LogMark) -> list[str]:
        """Return the lines added after `mark`; all there are when the part of `mark` is gone."""
        return _lines(
            (body[mark.offset :] if part == mark.part else body) for part, body in self._read() if part >= mark.part
        )

    def tail(self, lines: int) -> list[str]:
        """Return the last `lines` lines."""
        return _lines(body for _, body in self._read())[-lines:]

    def _read(self) -> list[tuple[int, bytes]]:
        """Read the parts there are, oldest first, read again where a rotation came in between."""
        parts: list[tuple[int, bytes]] = []
        for _ in range(_RACES):
            parts = [
                (log_part(path), path.read_bytes())
                for path in (self.path.with_suffix(".log.1"), self.path)
                if path.exists()
            ]
            numbers = [number for number, _ in parts]
            if numbers == sorted(set(numbers)):
                break
        return parts


def _lines(bodies: Iterable[bytes]) -> list[str]:
    text = b"".join(body.partition(b"\n")[2] if body.startswith(LOG_PART_HEADER) else body for body in bodies)
    return text.decode(errors="replace").splitlines()
