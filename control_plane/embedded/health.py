"""Asking a Triton for its health with as little as possible between: one HTTP GET over a plain connection.

`server` asks once a second; a whole HTTP client would cost more than the answer is worth.
"""

import asyncio
from collections.abc import Callable

from control_plane.embedded.command import port_of
from control_plane.embedded.spec import Supervision
from control_plane.state import Endpoints

LIVE, READY, METRICS = "/v2/health/live", "/v2/health/ready", "/metrics"
_OK = 200


async def status_of(endpoint: str, path: str, deadline_s: float) -> int | None:
    """HTTP status that `endpoint` (`host:port`) answers for `path`; None when nothing came within `deadline_s`."""
    host = endpoint.rpartition(":")[0]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, port_of(endpoint))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n".encode())
            parts = (await reader.readline()).split()
            return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
    except (OSError, TimeoutError):
        return None
    finally:
        if writer is not None:
            writer.transport.abort()


async def is_up(endpoints: Endpoints, deadline_s: float) -> bool:
    """Tell whether a starting server is ready and has opened its metrics port, which it does last."""
    return (
        await status_of(endpoints.http, READY, deadline_s) == _OK
        and await status_of(endpoints.metrics, METRICS, deadline_s) == _OK
    )


async def until_hung(endpoints: Endpoints, times: Supervision, answered: Callable[[float], None]) -> str:
    """Probe until the server counts as hung (see `Supervision`), and return that in a sentence.

    After each probe `answered` is called with the seconds since the last answer: 0 when it has just answered. Models
    have no say in this: it is the server's own liveness that is asked for.
    """
    clock = asyncio.get_running_loop().time
    answered_at, failures = clock(), 0
    while True:
        await asyncio.sleep(times.health_interval_s)
        if await status_of(endpoints.http, LIVE, times.probe_deadline_s) == _OK:
            answered_at, failures = clock(), 0
            answered(0.0)
            continue
        failures += 1
        silent_s = clock() - answered_at
        if failures > 1 and silent_s >= times.hang_after_s:
            return f"tritonserver did not answer its health check for {silent_s:.0f} s."
        answered(silent_s)
