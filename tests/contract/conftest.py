"""Benches of the contract suites that command a Triton: the fake, and one embedded tritonserver for each module."""

from collections.abc import Iterator

import pytest

from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.embedded import EmbeddedServer
from tests.fakes.triton import FakeTriton
from tests.fakes.world import a_server
from tests.serving import embedded_server
from tests.triton_bench import LOAD_DEADLINE_S, PROBE_DEADLINE_S, Bench, FakeRepository, RealRepository


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    with embedded_server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def real(real_server: EmbeddedServer) -> Bench:
    deadlines = Deadlines(load_s=LOAD_DEADLINE_S, probe_s=PROBE_DEADLINE_S)
    repository = RealRepository(real_server.spec.model_repository)
    return Bench(real_server.server, repository, lambda: GrpcTritonControl(lambda _: real_server, deadlines))


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "real":
        found: Bench = request.getfixturevalue("real")
        return found
    fake = FakeTriton({})
    server = a_server("fake", "key")
    fake.start(server)
    return Bench(server, FakeRepository(fake), lambda: fake)
