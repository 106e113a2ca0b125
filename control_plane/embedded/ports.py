"""Loopback ports for embedded servers: picking free ones, and telling early when a given one is taken.

`server` picks ports once and keeps them over restarts, so they are taken from below the kernel's ephemeral range: a
client that keeps reconnecting to a dead server's ephemeral port can be given that very port as its own source port.
"""

import random
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from control_plane.embedded.command import port_of
from control_plane.embedded.spec import LOOPBACK, ServerSpec
from control_plane.errors import PortTakenError
from control_plane.state import Endpoints

_LOWEST = 16384
_PICK_ATTEMPTS = 200
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_BIND_ERROR = re.compile(r"Socket '[^']*:(\d+)' already in use")


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the loopback `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Triton does: a port with nothing but connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_endpoints(spec: ServerSpec) -> Endpoints:
    """Endpoints of `spec`: its fixed ports, checked, and free ones where it fixes none. PortTakenError."""
    fixed = [port for port in (spec.http_port, spec.grpc_port, spec.metrics_port) if port is not None]
    for port in fixed:
        if fixed.count(port) > 1:
            raise PortTakenError(f"Port {port} is given twice for server '{spec.id}': give each service its own port.")
        if not is_free(port):
            raise port_taken(port)
    used = set(fixed)
    return Endpoints(
        http=f"{spec.address}:{spec.http_port or _pick(used)}",
        grpc=f"{spec.address}:{spec.grpc_port or _pick(used)}",
        metrics=f"{spec.address}:{spec.metrics_port or _pick(used)}",
    )


def taken_among(endpoints: Endpoints) -> int | None:
    """Find the first port of `endpoints` that something listens on, or None."""
    ports = (port_of(endpoint) for endpoint in (endpoints.http, endpoints.grpc, endpoints.metrics))
    return next((port for port in ports if not is_free(port)), None)


def port_taken(port: int) -> PortTakenError:
    """Say which port is taken and what to do."""
    return PortTakenError(
        f"Port {port} on {LOOPBACK} is in use by another process: stop that process (`ss -ltnp 'sport = :{port}'` "
        "shows it), give another port, or leave the port out so that a free one is picked."
    )


def bind_error_in(log: Iterable[str]) -> int | None:
    """Find the port that Triton's log says it could not bind, or None."""
    return next((int(match[1]) for line in log if (match := _BIND_ERROR.search(line))), None)


def _pick(used: set[int]) -> int:
    """Pick a free port that is not in `used`, and add it there."""
    highest = _ephemeral_start() - 1
    chooser = random.SystemRandom()
    for _ in range(_PICK_ATTEMPTS if highest > _LOWEST else 0):
        port = chooser.randint(_LOWEST, highest)
        if port not in used and is_free(port):
            used.add(port)
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as any_free:
        any_free.bind((LOOPBACK, 0))
        port = int(any_free.getsockname()[1])
    used.add(port)
    return port


def _ephemeral_start() -> int:
    try:
        return int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768  # Linux's default
