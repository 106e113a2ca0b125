"""Which servers the servers file and DNS give. Pure; `control_plane.discovery` reads the file and asks DNS.

An entry is one server, or a DNS name each of whose addresses is one. What DNS answered is folded into what is known of
the name (`take_answer`); entries and what is known make the servers (`plan_servers`).
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.state import Endpoints, Server, ServerId, Source

MOST_PER_NAME = 256
"""How many servers one name gives at most: a wrong answer must not have thousands of addresses commanded."""


class Family(StrEnum):
    """Which addresses of a name count. A pod of a dual-stack Service has one of each: then one kind is chosen."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name each of whose addresses is a server with these ports."""

    dns: str
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    family: Family = Family.ANY


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the servers file: a server, or, with `discover`, what each server of that name is but its address.

    Of the latter the id is the beginning of each server's, and the endpoints are empty.
    """

    server: Server
    discover: DnsName | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said of a name once: its addresses, or in a sentence why there are none."""

    addresses: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a name: each address, and since when the answers lack it (None: the last one has it).

    `problem` is why the last question had no answer; empty where it had one. `left_out` counts the addresses beyond
    MOST_PER_NAME.
    """

    missing_since: Mapping[str, datetime | None] = field(default_factory=dict)
    problem: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The servers that entries give, in the entries' order, and what is wrong with them, each in a sentence."""

    servers: tuple[Server, ...] = ()
    problems: tuple[str, ...] = ()


def take_answer(known: Known, answer: Answer, now: datetime, grace: timedelta) -> Known:
    """Return what is known after `answer`.

    Without an answer everything stays. An address that the answer lacks stays for `grace`: a headless Service lists
    ready pods only, and one that loads models or restarts is not. Beyond MOST_PER_NAME, those that are there come
    before new ones, and these before those that are missing.
    """
    if answer.problem:
        return replace(known, problem=answer.problem)
    there = {_normal(address) for address in answer.addresses}
    stayed = [address for address in _ordered(there) if address in known.missing_since]
    new = [address for address in _ordered(there) if address not in known.missing_since]
    since = {address: at or now for address, at in known.missing_since.items() if address not in there}
    missing = sorted((at, _order(address), address) for address, at in since.items() if now - at < grace)
    wanted = [*stayed, *new, *(address for _, _, address in reversed(missing))]
    kept = _ordered(wanted[:MOST_PER_NAME])
    return Known({address: since.get(address) for address in kept}, left_out=len(there - set(kept)))


def plan_servers(entries: Iterable[Entry], known: Mapping[str, Known]) -> Found:
    """Return the servers of `entries`, with what is known of their names.

    Of two servers with one gRPC address, or with one id, the first in the file counts, and the other is told.
    """
    servers: dict[ServerId, Server] = {}
    by_address: dict[str, ServerId] = {}
    problems: dict[str, None] = {}  # keeps the order; two entries may have the same trouble
    for entry in entries:
        if entry.discover is not None:
            problems |= dict.fromkeys(_problems(entry.discover, known.get(entry.discover.dns, Known())))
        for server in _servers(entry, known):
            grpc = server.endpoints.grpc
            if server.id in servers:
                problems[f"Entry '{entry.server.id}' gives server '{server.id}', whose id is taken: left out."] = None
            elif grpc in by_address:
                problems[f"Server '{server.id}' is left out: {grpc} is server '{by_address[grpc]}' already."] = None
            else:
                servers[server.id], by_address[grpc] = server, server.id
    return Found(tuple(servers.values()), tuple(problems))


def _servers(entry: Entry, known: Mapping[str, Known]) -> tuple[Server, ...]:
    name = entry.discover
    if name is None:
        return (entry.server,)
    addresses = known.get(name.dns, Known()).missing_since
    return tuple(_server(entry.server, name, it) for it in _ordered(addresses) if _counts(it, name.family))


def _server(pattern: Server, name: DnsName, address: str) -> Server:
    """Return the server at an address. A colon in its id would need quoting wherever the id is written."""
    host = f"[{address}]" if ":" in address else address
    endpoints = Endpoints(f"{host}:{name.http_port}", f"{host}:{name.grpc_port}", f"{host}:{name.metrics_port}")
    server_id = ServerId(f"{pattern.id}-{address.replace(':', '-')}")
    return replace(pattern, id=server_id, endpoints=endpoints, source=Source.DISCOVERED)


def _problems(name: DnsName, known: Known) -> list[str]:
    problems = []
    if known.problem:
        stays = "the servers that it gave last stay" if known.missing_since else "it gives no server yet"
        problems.append(f"{known.problem} Until it can be resolved, {stays}.")
    elif not any(_counts(address, name.family) for address in known.missing_since):
        kind = "" if name.family is Family.ANY else f" of family {name.family}"
        problems.append(f"Name '{name.dns}' has no address{kind}.")
    if known.left_out:
        problems.append(
            f"Name '{name.dns}' has more than {MOST_PER_NAME} addresses: {known.left_out} of them are left out."
        )
    return problems


def _counts(address: str, family: Family) -> bool:
    match family:
        case Family.ANY:
            return True
        case Family.IPV4:
            return ":" not in address
        case Family.IPV6:
            return ":" in address


def _ordered(addresses: Iterable[str]) -> list[str]:
    return sorted(addresses, key=_order)


def _order(address: str) -> tuple[int, bytes]:
    """Order as numbers, IPv4 first: 10.0.0.9 comes before 10.0.0.10."""
    parsed = ipaddress.ip_address(address)
    return parsed.version, parsed.packed


def _normal(address: str) -> str:
    """Return the one way to write an address, so that it makes one id."""
    return str(ipaddress.ip_address(address))
