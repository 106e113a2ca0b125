"""Names to addresses through this machine's own resolver, /etc/hosts and search domains included: the real `Resolver`.

What `getaddrinfo` is: a call that blocks a thread until the name servers answer or it gives up, which may take half a
minute. So it has threads of its own. Those of the event loop are what the store and the model repository work in, and
name servers that hang must not take them.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from control_plane.errors import DeadlineExceededError, NameNotResolvedError

_THREADS = 8


def look_up(name: str) -> frozenset[str]:
    """Return every address of `name`, however long that takes. Raises NameNotResolvedError."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise NameNotResolvedError(f"Name '{name}' cannot be resolved: {exc.strerror}.") from exc
    except UnicodeError as exc:  # a label that is empty, or too long for DNS
        raise NameNotResolvedError(f"Name '{name}' cannot be resolved: it is no host name.") from exc
    return frozenset(str(address[0]) for *_, address in found)


class SystemResolver:
    """Asks with a deadline for each name. Close it at the end."""

    def __init__(self, deadline_s: float = 5.0, look_up: Callable[[str], frozenset[str]] = look_up) -> None:
        self._deadline_s, self._look_up = deadline_s, look_up
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def resolve(self, name: str) -> frozenset[str]:
        """Return every address of `name`; see the port."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await loop.run_in_executor(self._threads, self._look_up, name)
        except TimeoutError as exc:
            raise DeadlineExceededError(f"Name '{name}' was not resolved within {self._deadline_s:g} s.") from exc

    def close(self) -> None:
        """Begin no further question."""
        self._threads.shutdown(wait=False, cancel_futures=True)
