"""One suite for the server that is measured: the fake, and a real tritonserver behind the real adapter."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from builders.measure.sweep import AS_CONFIGURED
from control_plane.adapters.measured_server import MeasuredModel, TritonMeasuredServer
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.command import RUN_VARIABLE
from control_plane.embedded.reaper import processes_of
from control_plane.embedded.record import read_record
from control_plane.errors import LoadFailedError, ServerUnreachableError
from control_plane.measuring import MeasuredServer
from control_plane.state import Endpoints, ModelName, Server, ServerId
from tests.fakes.measured import FakeMeasuredServer
from tests.serving import embedded_server
from tests.small_models import ensemble, multiplier

Scenario = Callable[[MeasuredServer], Awaitable[None]]
Bench = Callable[[Scenario], None]
SECONDS = 0.2


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    multiplier(repository, "m", 2.0)
    multiplier(repository, "broken", 1.0, more="import nothing_here")
    ensemble(repository, "over", "m")
    with embedded_server(repository) as server:
        yield server


def model(triton: EmbeddedServer, name: str, *members: str) -> MeasuredModel:
    folder = RepositoryFolder(triton.spec.model_repository)
    configs = tuple((ModelName(it), folder.load_config(ModelName(it), 1)) for it in (*members, name))
    return MeasuredModel(ModelName(name), configs[-1][1], configs[:-1])


def on_triton(
    triton: EmbeddedServer,
    measured: MeasuredModel,
    scenario: Callable[[TritonMeasuredServer], Awaitable[None]],
    server: Server | None = None,
) -> None:
    def pids() -> list[int]:
        record = read_record(triton.record_path)
        assert record is not None
        return list(processes_of(f"{RUN_VARIABLE}={record.run}"))

    async def body() -> None:
        control = GrpcTritonControl(lambda _: triton, Deadlines(load_s=60))
        try:
            async with TritonMeasuredServer(server or triton.server, measured, control, pids) as used:
                await scenario(used)
        finally:
            await control.close()

    asyncio.run(body())


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "real":
        triton: EmbeddedServer = request.getfixturevalue("triton")
        return lambda scenario: on_triton(triton, model(triton, "m"), scenario)

    async def body(scenario: Scenario) -> None:
        await scenario(FakeMeasuredServer())

    return lambda scenario: asyncio.run(body(scenario))


def test_a_loaded_model_answers_every_request_and_costs_memory(bench: Bench) -> None:
    async def scenario(server: MeasuredServer) -> None:
        loaded = await server.load(2)
        assert loaded.seconds > 0
        ran = await server.run(4, 3, SECONDS)
        assert (ran.failed, ran.reason) == (0, "")
        assert len(ran.latencies_ms) >= 3
        assert all(0 < latency < 5000 for latency in ran.latencies_ms)
        assert SECONDS <= ran.seconds < 10
        assert 0 < ran.client_cpu_s < ran.seconds * 2
        memory = await server.memory()
        assert memory.host_bytes is not None
        assert 1_000_000 < memory.host_bytes < 2_000_000_000
        assert memory.device_bytes is None or memory.device_bytes >= 0
        await server.unload()

    bench(scenario)


def test_nothing_can_be_run_before_a_load_or_after_an_unload(bench: Bench) -> None:
    async def scenario(server: MeasuredServer) -> None:
        with pytest.raises(LoadFailedError, match="'m' is not loaded"):
            await server.run(1, 1, SECONDS)
        await server.unload()
        await server.load(1)
        await server.unload()
        await server.unload()
        with pytest.raises(LoadFailedError, match="'m' is not loaded"):
            await server.run(1, 1, SECONDS)

    bench(scenario)


def test_what_cannot_be_loaded_says_why_and_leaves_nothing(triton: EmbeddedServer) -> None:
    async def scenario(server: TritonMeasuredServer) -> None:
        with pytest.raises(LoadFailedError, match="nothing_here"):
            await server.load(1)

    on_triton(triton, model(triton, "broken"), scenario)


def test_an_ensemble_is_loaded_after_its_members_and_gone_with_them(triton: EmbeddedServer) -> None:
    async def scenario(server: TritonMeasuredServer) -> None:
        await server.load(AS_CONFIGURED)
        assert (await server.run(1, 1, SECONDS)).failed == 0
        assert server.requests == "X float32 [1]"

    on_triton(triton, model(triton, "over", "m"), scenario)
    on_triton(triton, model(triton, "m"), _nothing)  # refused, were the member still there


def test_failures_are_counted_and_a_server_that_serves_already_is_left_alone(
    triton: EmbeddedServer,
) -> None:
    async def scenario(server: TritonMeasuredServer) -> None:
        await server.load(1)
        with pytest.raises(LoadFailedError, match="serves m already: measure on a server that serves nothing"):
            await asyncio.to_thread(on_triton, triton, model(triton, "over", "m"), _nothing)
        ran = await server.run(9, 1, SECONDS)
        assert ran.latencies_ms == ()
        assert ran.failed >= 1
        assert "batch-size must be <= 8" in ran.reason
        assert (await server.run(1, 1, SECONDS)).failed == 0

    on_triton(triton, model(triton, "m"), scenario)


def test_a_server_that_is_not_there_or_not_ours_is_told(triton: EmbeddedServer) -> None:
    nowhere = Server(ServerId("nowhere"), Endpoints("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
    with pytest.raises(ServerUnreachableError, match="nowhere"):
        on_triton(triton, model(triton, "m"), _nothing, nowhere)
    with pytest.raises(ServerUnreachableError, match="admin key"):
        on_triton(triton, model(triton, "m"), _nothing, replace(triton.server, admin_key="another"))


async def _nothing(_server: TritonMeasuredServer) -> None:
    """Measure nothing."""
