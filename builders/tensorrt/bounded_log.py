"""The log of one compiler process: its beginning and its end, whatever lies between. Written by `limited`."""

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

HEAD_BYTES = 4 << 20
TAIL_BYTES = 1 << 20


class BoundedLog:
    """A file that takes `head` bytes as they come; of the rest it keeps the last `tail`, written when it is closed."""

    def __init__(self, path: Path, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self._stream = path.open("wb", buffering=0)
        self._room = head
        self._tail_bytes = tail
        self._tail: deque[bytes] = deque()
        self._kept = 0
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Take `data`. Raises OSError where the disk is full."""
        if self._room:
            self._stream.write(data[: self._room])
            data, self._room = data[self._room :], max(0, self._room - len(data))
        if not data:
            return
        self._tail.append(data)
        self._kept += len(data)
        while self._kept - len(self._tail[0]) >= self._tail_bytes:
            gone = len(self._tail.popleft())
            self._kept -= gone
            self._left_out += gone

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._left_out:
                self._stream.write(f"\n[{self._left_out} bytes of log left out here]\n".encode())
            self._stream.write(b"".join(self._tail))
        finally:
            self._stream.close()


def last_lines(path: Path, size: int = 65536) -> list[str]:
    """Return the lines in the last `size` bytes of a log, without empty ones."""
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - size))
        text = stream.read().decode("utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
