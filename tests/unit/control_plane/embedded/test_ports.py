"""Picking loopback ports and telling that one is taken."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.embedded.command import port_of
from control_plane.embedded.ports import bind_error_in, choose_endpoints, is_free, taken_among
from control_plane.embedded.spec import ServerSpec
from control_plane.errors import PortTakenError
from control_plane.state import Endpoints, ServerId

EPHEMERAL_START = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def test_picked_ports_are_free_different_and_not_ephemeral() -> None:
    endpoints = choose_endpoints(ServerSpec(ServerId("a"), Path("/models")))
    ports = {port_of(endpoint) for endpoint in (endpoints.http, endpoints.grpc, endpoints.metrics)}
    assert len(ports) == 3
    assert all(is_free(port) and port < EPHEMERAL_START for port in ports)
    assert taken_among(endpoints) is None


def test_a_fixed_port_is_kept(taken: int) -> None:
    spec = ServerSpec(ServerId("a"), Path("/models"), http_port=_free_port())
    assert port_of(choose_endpoints(spec).http) == spec.http_port
    assert not is_free(taken)


def test_a_fixed_port_that_is_taken_is_named(taken: int) -> None:
    with pytest.raises(PortTakenError, match=f"Port {taken} on 127.0.0.1 is in use"):
        choose_endpoints(ServerSpec(ServerId("a"), Path("/models"), metrics_port=taken))


def test_one_port_for_two_services_is_refused() -> None:
    with pytest.raises(PortTakenError, match="given twice"):
        choose_endpoints(ServerSpec(ServerId("a"), Path("/models"), http_port=20001, grpc_port=20001))


def test_the_taken_one_is_found(taken: int) -> None:
    free = f"127.0.0.1:{_free_port()}"
    assert taken_among(Endpoints(http=free, grpc=f"127.0.0.1:{taken}", metrics=free)) == taken


def test_tritons_bind_errors_are_recognised() -> None:
    bind_error = "failed to start GRPC service: Unavailable - Socket '127.0.0.1:18001' already in use "
    log = ['I1123 19:48:17.130163 4851 server.cc:604] ""', f'E1123 19:48:17.934874 4851 main.cc:245] "{bind_error}"']
    assert bind_error_in(log) == 18001
    assert bind_error_in(log[:1]) is None


def _free_port() -> int:
    return port_of(choose_endpoints(ServerSpec(ServerId("x"), Path("/models"))).http)
