"""One suite for Triton's control calls: the fake, and a real embedded tritonserver behind the real adapter."""

import asyncio
import gc
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from builders.releases import release_of
from control_plane.actions import Load, Loaded
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.triton import GrpcTritonControl
from control_plane.embedded import EmbeddedServer
from control_plane.errors import (
    AdminKeyRefusedError,
    DeadlineExceededError,
    LoadFailedError,
    ServerUnreachableError,
)
from control_plane.executor import Executor
from control_plane.planning import PlannedAction, with_lacking
from control_plane.ports import TritonControl
from control_plane.state import (
    ActionRecord,
    ModelName,
    ModelState,
    ObservedModel,
    Pin,
    Probe,
    ProbeResult,
    Result,
    Server,
    ServerCondition,
)
from tests.embedded_triton import seconds_until
from tests.fakes.world import START, FakeFleet
from tests.small_models import answer
from tests.triton_bench import NOWHERE, Bench, RealRepository

INPUTS = ({"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},)


def test_exactly_the_asked_version_is_loaded_and_swapped(bench: Bench) -> None:
    bench.repository.publish("swapped", 1, 2)

    async def scenario(control: TritonControl) -> None:
        assert await bench.ready(control, "swapped") == frozenset()
        await bench.load(control, "swapped", 1)
        assert await bench.ready(control, "swapped") == {1}
        await bench.load(control, "swapped", 2)
        assert await bench.ready(control, "swapped") == {2}
        await bench.load(control, "swapped", 2)
        assert await bench.ready(control, "swapped") == {2}

    bench.run(scenario)


def test_an_unload_and_one_of_what_is_not_loaded(bench: Bench) -> None:
    bench.repository.publish("unloaded", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "unloaded")
        await control.unload(bench.server, ModelName("unloaded"))
        assert await bench.ready(control, "unloaded") == frozenset()
        await control.unload(bench.server, ModelName("unloaded"))
        await control.unload(bench.server, ModelName("was_never_there"))

    bench.run(scenario)


def test_a_server_that_is_forgotten_ends_no_call_and_can_be_asked_again(bench: Bench) -> None:
    bench.repository.publish("forgotten", 1)

    async def scenario(control: TritonControl) -> None:
        loading = asyncio.create_task(bench.load(control, "forgotten"))
        await asyncio.sleep(0)
        control.forget_others(frozenset())
        await loading
        assert await bench.ready(control, "forgotten") == {1}
        control.forget_others(frozenset({bench.server.id}))
        assert await bench.ready(control, "forgotten") == {1}

    bench.run(scenario)


def test_the_channel_of_a_forgotten_server_closes(real_server: EmbeddedServer) -> None:
    def connections() -> int:
        port = int(real_server.server.endpoints.grpc.rpartition(":")[2])
        here = psutil.Process().net_connections("tcp")
        return sum(bool(it.raddr) and it.raddr.port == port and it.status == psutil.CONN_ESTABLISHED for it in here)

    async def scenario() -> None:
        control = GrpcTritonControl(lambda _: None)
        before = connections()
        await control.observe(real_server.server)
        assert connections() == before + 1
        control.forget_others(frozenset())
        gc.collect()
        await asyncio.to_thread(seconds_until, lambda: connections() == before, 10)

    asyncio.run(scenario())


def test_an_ensemble_over_its_members(bench: Bench) -> None:
    bench.repository.publish("first", 1)
    bench.repository.publish("second", 1)
    bench.repository.publish_ensemble("both", "first", "second")

    async def scenario(control: TritonControl) -> None:
        for model in ("first", "second", "both"):
            await bench.load(control, model)
        for model in ("first", "second", "both"):
            assert await bench.ready(control, model) == {1}

    bench.run(scenario)


def test_the_server_says_which_triton_it_is_and_which_file_serves(bench: Bench) -> None:
    bench.repository.publish("filed", 1)
    config = {**json.loads(bench.repository.config("filed", 1)), "default_model_filename": "model.py"}

    async def scenario(control: TritonControl) -> None:
        await control.load(bench.server, ModelName("filed"), json.dumps(config))
        seen = await control.observe(bench.server)
        assert release_of(seen.triton_version) is not None, seen.triton_version
        assert seen.ready_file(Pin(ModelName("filed"), 1)) == "model.py"
        await control.unload(bench.server, ModelName("filed"))
        assert (await control.observe(bench.server)).ready_file(Pin(ModelName("filed"), 1)) is None

    bench.run(scenario)


def failure(bench: Bench, model: str) -> str:
    """Load what cannot be loaded; returns why."""
    reasons: list[str] = []

    async def scenario(control: TritonControl) -> None:
        with pytest.raises(LoadFailedError) as caught:
            await bench.load(control, model)
        reasons.append(str(caught.value))
        assert await bench.ready(control, model) == frozenset()

    bench.run(scenario)
    return reasons[0]


def test_a_missing_model_is_told_as_such(bench: Bench) -> None:
    assert "not found in any model repository" in failure(bench, "was_never_there")


def test_a_config_that_does_not_validate_is_told_with_the_rule_it_breaks(bench: Bench) -> None:
    bench.repository.publish_invalid("invalid")
    assert "preferred size must be <= max batch size" in failure(bench, "invalid")


def test_a_model_whose_code_is_broken_is_told_with_its_error(bench: Bench) -> None:
    bench.repository.publish_broken("broken")
    assert "ModuleNotFoundError: No module named 'nothing_here'" in failure(bench, "broken")

    async def scenario(control: TritonControl) -> None:
        row = await bench.row(control, "broken")
        assert row.state is ModelState.UNAVAILABLE
        assert "nothing_here" in row.reason

    bench.run(scenario)


def test_a_failed_load_leaves_what_serves(bench: Bench) -> None:
    bench.repository.publish("kept", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "kept", 1)
        with pytest.raises(LoadFailedError, match="at least one version must be available"):
            await bench.load(control, "kept", 9)
        assert await bench.ready(control, "kept") == {1}

    bench.run(scenario)


def test_a_wrong_key_is_told_apart_from_a_dead_server(bench: Bench) -> None:
    stranger = replace(bench.server, admin_key="another")

    async def scenario(control: TritonControl) -> None:
        seen = await control.observe(stranger)
        assert (seen.condition, seen.models) == (ServerCondition.DEGRADED, ())
        assert "admin key" in seen.detail
        with pytest.raises(AdminKeyRefusedError, match="admin key"):
            await control.load(stranger, ModelName("any"), bench.repository.config("any", 1))
        with pytest.raises(AdminKeyRefusedError):
            await control.unload(stranger, ModelName("any"))
        seen = await control.observe(bench.server)
        assert seen.condition is ServerCondition.HEALTHY

    bench.run(scenario)


def test_a_server_that_is_not_there(bench: Bench) -> None:
    async def scenario(control: TritonControl) -> None:
        seen = await control.observe(NOWHERE)
        assert (seen.condition, seen.models) == (ServerCondition.UNREACHABLE, ())
        assert "refused" in seen.detail
        assert seen.triton_version == ""
        with pytest.raises(ServerUnreachableError):
            await control.load(NOWHERE, ModelName("any"), bench.repository.config("any", 1))
        with pytest.raises(ServerUnreachableError):
            await control.unload(NOWHERE, ModelName("any"))

    bench.run(scenario)


def test_a_load_that_takes_too_long_is_given_up_and_named(bench: Bench) -> None:
    bench.repository.publish_hanging("hanging")

    async def scenario(control: TritonControl) -> None:
        with pytest.raises(DeadlineExceededError, match="model 'hanging' did not load"):
            await bench.load(control, "hanging")
        row = await bench.row(control, "hanging")
        assert row.state is ModelState.LOADING

    bench.run(scenario)


def test_loading_an_ensemble_moves_a_changed_member_unless_it_is_pinned_again(real: Bench) -> None:
    """Measured on 2.51, and why `Load` has `members`: Triton polls the members of an ensemble that it loads."""
    real.repository.publish("moved", 1)
    real.repository.publish_ensemble("over", "moved")
    pin = Pin(ModelName("moved"), 1)

    async def scenario(control: TritonControl) -> None:
        await real.load(control, "moved", 1)
        await real.load(control, "moved", 1)
        real.repository.publish("moved", 2)
        await real.load(control, "over")
        assert await real.ready(control, "moved") == {2}, "Triton keeps pins now: `Load.members` is not needed"

        await real.load(control, "moved", 1)
        real.repository.publish("moved", 3)
        assert isinstance(real.repository, RealRepository)
        executor = Executor(control, RepositoryFolder(real.repository.root), FakeFleet(real.server))
        load = Load(real.server.id, ModelName("over"), 1, (pin,))

        async def keep(*_: object) -> None:
            """Forget it."""

        (outcome,) = await executor.execute(real.server, [PlannedAction(load, "why", 0)], keep)
        assert isinstance(outcome, Loaded), outcome
        assert await real.ready(control, "moved") == {1}
        assert await asyncio.to_thread(answer, real.server, "over") == 2.0

    real.run(scenario)


def test_triton_itself_reloads_the_ensemble_above_a_reloaded_member(real: Bench) -> None:
    """Measured on 2.51: so an ensemble's own reload, which the plan adds, finds nothing left to do."""
    real.repository.publish("lower", 1, 2)
    real.repository.publish_ensemble("upper", "lower")

    async def scenario(control: TritonControl) -> None:
        for model in ("lower", "lower", "upper"):
            await real.load(control, model)
        assert await asyncio.to_thread(answer, real.server, "upper") == 2.0
        await real.load(control, "lower", 2)
        assert await asyncio.to_thread(answer, real.server, "upper") == 4.0

    real.run(scenario)


def test_instances_and_generation_are_those_of_the_load(bench: Bench) -> None:
    bench.repository.publish("scaled", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "scaled")
        row = await bench.row(control, "scaled")
        assert (row.instances, row.generation) == (1, 0)
        await bench.load(control, "scaled", instances=2, generation=3)
        row = await bench.row(control, "scaled")
        assert (row.instances, row.generation) == (2, 3)
        await bench.load(control, "scaled", instances=1, generation=3)
        row = await bench.row(control, "scaled")
        assert (row.instances, row.generation) == (1, 3)

    bench.run(scenario)


def test_an_ensemble_has_a_generation_and_no_instances(bench: Bench) -> None:
    bench.repository.publish("part", 1)
    bench.repository.publish_ensemble("whole", "part")

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "part")
        config = bench.repository.config("whole", 1, generation=2)
        await control.load(bench.server, ModelName("whole"), config)
        row = await bench.row(control, "whole")
        assert (row.state, row.instances, row.generation) == (ModelState.READY, 0, 2)

    bench.run(scenario)


def test_a_dead_process_is_healed_by_another_generation_alone(bench: Bench) -> None:
    """On 2.51 the model stays READY; a load with nothing changed is none, and one that scales heals nothing."""
    bench.repository.publish("dying", 1)
    probe = Probe(ModelName("dying"), 1, INPUTS)

    async def scenario(control: TritonControl) -> None:
        for _ in range(2):  # the second load of a model is a reload in any case, see below
            await bench.load(control, "dying")
        assert (await control.probe(bench.server, probe)).broken == ""
        bench.repository.kill(bench.server, "dying")
        before = await bench.row(control, "dying")
        for instances in (None, None, 2):
            await bench.load(control, "dying", instances=instances)
            await control.observe(bench.server)  # from here on a probe tries every instance
            result = await control.probe(bench.server, probe)
            assert "is not healthy" in result.broken, instances
        after = await counted(bench, control, "dying", lambda row: row.failed >= before.failed + 3)
        assert (before.state, after.state) == (ModelState.READY, ModelState.READY)
        assert after.failed >= before.failed + 3

        await bench.load(control, "dying", generation=1)
        row = await bench.row(control, "dying")
        assert (row.state, row.generation, row.failed) == (ModelState.READY, 1, 0)
        assert await control.probe(bench.server, probe) == ProbeResult(probe)

    bench.run(scenario)


async def requests_until(server: Server, model: str, ended: asyncio.Event) -> tuple[int, list[str]]:
    """Send one request after the other; returns how many were answered, and what went wrong with the others."""
    answered, failed = 0, []
    async with InferenceServerClient(server.endpoints.grpc) as client:
        while not ended.is_set():
            tensor = InferInput("X", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
            try:
                await client.infer(model, [tensor], client_timeout=10)
                answered += 1
            except InferenceServerException as error:
                failed.append(str(error))
    return answered, failed


@pytest.mark.parametrize("generation", [0, 1], ids=["scaled", "healed"])
def test_no_request_fails_while_a_model_is_changed(real: Bench, generation: int) -> None:
    """Measured on 2.51: instances come and go in place, with what was counted kept; a reload begins to count anew."""
    model, repository = f"busy_{generation}", real.repository
    repository.publish(model, 1)
    assert isinstance(repository, RealRepository)

    async def scenario(control: TritonControl) -> None:
        for _ in range(2):
            await real.load(control, model, instances=1)
        (process,) = repository.stubs(model)[-1:]
        ended = asyncio.Event()
        clients = [asyncio.create_task(requests_until(real.server, model, ended)) for _ in range(4)]
        before = await counted(real, control, model, lambda row: row.succeeded >= 20)
        await real.load(control, model, instances=3, generation=generation)
        row = await real.row(control, model)
        assert (row.instances, row.generation, row.failed) == (3, generation, 0)
        if not generation:
            assert row.succeeded >= before.succeeded
            assert process in repository.stubs(model)
        await real.load(control, model, instances=2, generation=generation)
        assert (await real.row(control, model)).instances == 2
        await counted(real, control, model, lambda seen: seen.succeeded >= row.succeeded + 20)
        ended.set()
        outcomes = await asyncio.gather(*clients)
        assert [failed for _, failed in outcomes] == [[], [], [], []]
        assert all(answered > 0 for answered, _ in outcomes)

    real.run(scenario)


def test_the_second_load_of_a_model_is_a_reload_even_with_nothing_changed(real: Bench) -> None:
    """Measured on 2.51: the first change of the instances after a load takes as long as a load, and as much memory."""
    real.repository.publish("twice", 1)
    assert isinstance(real.repository, RealRepository)
    processes = []

    async def scenario(control: TritonControl) -> None:
        assert isinstance(real.repository, RealRepository)
        for _ in range(3):
            await real.load(control, "twice", instances=1)
            processes.append(real.repository.stubs("twice")[-1])

    real.run(scenario)
    assert processes[0] != processes[1] == processes[2]


async def counted(
    bench: Bench, control: TritonControl, model: str, reached: Callable[[ObservedModel], bool]
) -> ObservedModel:
    """Wait until the model's counts are there: Triton counts a request slightly after it answers."""
    async with asyncio.timeout(20):
        while True:
            row = await bench.row(control, model)
            if reached(row):
                return row


def test_a_backend_that_the_server_lacks_is_told_and_stays_told_in_the_index(bench: Bench) -> None:
    bench.repository.publish_strange("strange", "nothing_here")

    async def scenario(control: TritonControl) -> None:
        with pytest.raises(LoadFailedError) as caught:
            await bench.load(control, "strange")
        seen = await control.observe(bench.server)
        place = bench.server.id, ModelName("strange")
        record = ActionRecord(*place, 1, Result.FAILED, str(caught.value), START)
        assert with_lacking(seen, {place: record}).lacks == {"nothing_here"}
        assert with_lacking(seen, {}) == seen

    bench.run(scenario)


def test_what_runs_tells_its_backend(bench: Bench) -> None:
    bench.repository.publish("told", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "told")
        assert (await bench.row(control, "told")).backend == "python"

    bench.run(scenario)
