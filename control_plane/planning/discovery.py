"""Servers that a DNS name stands for: one for each of its addresses, as answers come and go. Pure.

A headless Service lists the pods that are ready, so one that is gone from the answer may only be restarting: it is kept
for a while. A name that cannot be resolved keeps what it last gave.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from control_plane.state import Endpoints, Server, ServerId

GRACE = timedelta(seconds=60)
"""How long a server is kept whose address is gone: longer than a tritonserver takes to start again and to load."""
MOST = 256
"""Servers of one name: a name with more addresses is not what was meant."""


@dataclass(frozen=True, slots=True)
class Name:
    """A DNS name with the ports of its servers. `like` is what is said of each of them, without where it listens."""

    dns: str
    like: Server
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002

    def server_at(self, address: str) -> Server:
        """Return the server at an IP address."""
        host = f"[{address}]" if ":" in address else address
        name = address.replace(".", "-").replace(":", "-")
        endpoints = Endpoints(f"{host}:{self.http_port}", f"{host}:{self.grpc_port}", f"{host}:{self.metrics_port}")
        return replace(self.like, id=ServerId(f"{self.like.id}-{name}"), endpoints=endpoints)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a name has no answer at present."""

    reason: str


Answer = tuple[str, ...] | Unresolved
"""The IP addresses of a name."""

Seen = Mapping[tuple[ServerId, str], datetime]
"""When each address of a name, by the id of what it is like, was last in an answer."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the names stand for, when each address was seen last, and what is wrong, in sentences."""

    servers: tuple[Server, ...] = ()
    seen: Seen = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def discover(names: Iterable[Name], answers: Mapping[str, Answer], before: Seen, now: datetime) -> Discovered:
    """Return the servers of `names` by the answers for each, and by what was seen before."""
    servers: dict[str, Server] = {}
    seen: dict[tuple[ServerId, str], datetime] = {}
    problems: list[str] = []
    for name in names:
        answer = answers.get(name.dns, Unresolved("it was not asked for yet"))
        own = {address: at for (owner, address), at in before.items() if owner == name.like.id}
        if isinstance(answer, Unresolved):
            kept = dict.fromkeys(own, now)
            problems.append(f"Name {name.dns} of '{name.like.id}' has no answer: {answer.reason}.")
        else:
            fresh = sorted(set(answer))
            if len(fresh) > MOST:
                problems.append(f"Name {name.dns} of '{name.like.id}' has {len(fresh)} addresses; {MOST} are taken.")
            kept = {address: at for address, at in own.items() if now - at < GRACE} | dict.fromkeys(fresh[:MOST], now)
        for address, at in sorted(kept.items()):
            server = name.server_at(address)
            other = servers.setdefault(server.endpoints.grpc, server)
            if other.id != server.id:
                problems.append(f"Address {address} of '{name.like.id}' is server '{other.id}' already.")
                continue
            seen[name.like.id, address] = at
    return Discovered(tuple(servers.values()), seen, tuple(problems))
