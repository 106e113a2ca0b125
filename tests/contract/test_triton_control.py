"""One suite for Triton's control calls: the fake, and a real embedded tritonserver behind the real adapter."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from builders.releases import release_of
from control_plane.actions import Load, Loaded, Outcome
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.embedded import EmbeddedServer
from control_plane.errors import (
    AdminKeyRefusedError,
    DeadlineExceededError,
    LoadFailedError,
    ServerUnreachableError,
)
from control_plane.executor import Executor
from control_plane.planning import PlannedAction
from control_plane.ports import TritonControl
from control_plane.state import Endpoints, ModelName, ModelState, Pin, Server, ServerCondition, ServerId
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import a_server
from tests.serving import embedded_server
from tests.small_models import answer, ensemble, multiplier

LOAD_DEADLINE_S = 5.0
NOWHERE = Server(ServerId("nowhere"), Endpoints("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))


class Repository(Protocol):
    """Publishing small models, and the config to load one with."""

    def publish(self, name: str, *versions: int) -> None: ...
    def publish_ensemble(self, name: str, *members: str) -> None: ...
    def publish_broken(self, name: str) -> None: ...
    def publish_invalid(self, name: str) -> None: ...
    def publish_hanging(self, name: str) -> None: ...
    def config(self, name: str, version: int) -> str: ...


@dataclass
class FakeRepository:
    published: dict[str, FakeModel]

    def publish(self, name: str, *versions: int) -> None:
        self.published[name] = FakeModel(versions)

    def publish_ensemble(self, name: str, *members: str) -> None:
        self.published[name] = FakeModel(members=members)

    def publish_broken(self, name: str) -> None:
        self.published[name] = FakeModel(broken="Internal: ModuleNotFoundError: No module named 'nothing_here'")

    def publish_invalid(self, name: str) -> None:
        self.published[name] = FakeModel(invalid="dynamic batching preferred size must be <= max batch size")

    def publish_hanging(self, name: str) -> None:
        self.published[name] = FakeModel(hangs=True)

    def config(self, name: str, version: int) -> str:
        return json.dumps({"name": name, "version_policy": {"specific": {"versions": [version]}}})


@dataclass
class RealRepository:
    root: Path

    def publish(self, name: str, *versions: int) -> None:
        for version in versions:
            multiplier(self.root, name, factor=version * 2.0, version=version)

    def publish_ensemble(self, name: str, *members: str) -> None:
        ensemble(self.root, name, *members)

    def publish_broken(self, name: str) -> None:
        multiplier(self.root, name, 1.0, more="import nothing_here")

    def publish_invalid(self, name: str) -> None:
        multiplier(self.root, name, 1.0)
        with (self.root / name / "config.pbtxt").open("a") as config:
            config.write("dynamic_batching { preferred_batch_size: [ 32 ] }\n")

    def publish_hanging(self, name: str) -> None:
        multiplier(self.root, name, 1.0, more="time.sleep(15)")

    def config(self, name: str, version: int) -> str:
        try:
            return RepositoryFolder(self.root).load_config(ModelName(name), version)
        except LoadFailedError:  # not published: send what the control plane would have known of it
            return json.dumps({"name": name, "backend": "python"})


@dataclass
class Bench:
    """A server, a way to command it, and its repository."""

    server: Server
    repository: Repository
    control: Callable[[], TritonControl]

    def run(self, scenario: Callable[[TritonControl], Awaitable[None]]) -> None:
        async def body() -> None:
            control = self.control()
            try:
                await scenario(control)
            finally:
                await control.close()

        asyncio.run(body())

    async def load(self, control: TritonControl, model: str, version: int = 1) -> None:
        await control.load(self.server, ModelName(model), self.repository.config(model, version))


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    repository = tmp_path_factory.mktemp("repository")
    with embedded_server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def real(real_server: EmbeddedServer) -> Bench:
    deadlines = Deadlines(load_s=LOAD_DEADLINE_S)
    repository = RealRepository(real_server.spec.model_repository)
    return Bench(real_server.server, repository, lambda: GrpcTritonControl(lambda _: real_server, deadlines))


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "real":
        found: Bench = request.getfixturevalue("real")
        return found
    models: dict[str, FakeModel] = {}
    fake = FakeTriton(models)
    server = a_server("fake", "key")
    fake.start(server)
    return Bench(server, FakeRepository(models), lambda: fake)


async def ready(bench: Bench, control: TritonControl, model: str) -> frozenset[int]:
    seen = await control.observe(bench.server)
    assert seen.condition is ServerCondition.HEALTHY
    return seen.ready_versions(ModelName(model))


def test_exactly_the_asked_version_is_loaded_and_swapped(bench: Bench) -> None:
    bench.repository.publish("swapped", 1, 2)

    async def scenario(control: TritonControl) -> None:
        assert await ready(bench, control, "swapped") == frozenset()
        await bench.load(control, "swapped", 1)
        assert await ready(bench, control, "swapped") == {1}
        await bench.load(control, "swapped", 2)
        assert await ready(bench, control, "swapped") == {2}
        await bench.load(control, "swapped", 2)
        assert await ready(bench, control, "swapped") == {2}

    bench.run(scenario)


def test_an_unload_and_one_of_what_is_not_loaded(bench: Bench) -> None:
    bench.repository.publish("unloaded", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "unloaded")
        await control.unload(bench.server, ModelName("unloaded"))
        assert await ready(bench, control, "unloaded") == frozenset()
        await control.unload(bench.server, ModelName("unloaded"))
        await control.unload(bench.server, ModelName("was_never_there"))

    bench.run(scenario)


def test_an_ensemble_over_its_members(bench: Bench) -> None:
    bench.repository.publish("first", 1)
    bench.repository.publish("second", 1)
    bench.repository.publish_ensemble("both", "first", "second")

    async def scenario(control: TritonControl) -> None:
        for model in ("first", "second", "both"):
            await bench.load(control, model)
        for model in ("first", "second", "both"):
            assert await ready(bench, control, model) == {1}

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
        assert await ready(bench, control, model) == frozenset()

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
        (row,) = (await control.observe(bench.server)).rows_of(ModelName("broken"))
        assert row.state is ModelState.UNAVAILABLE
        assert "nothing_here" in row.reason

    bench.run(scenario)


def test_a_failed_load_leaves_what_serves(bench: Bench) -> None:
    bench.repository.publish("kept", 1)

    async def scenario(control: TritonControl) -> None:
        await bench.load(control, "kept", 1)
        with pytest.raises(LoadFailedError, match="at least one version must be available"):
            await bench.load(control, "kept", 9)
        assert await ready(bench, control, "kept") == {1}

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
        (row,) = (await control.observe(bench.server)).rows_of(ModelName("hanging"))
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
        assert await ready(real, control, "moved") == {2}, "Triton keeps pins now: `Load.members` is not needed"

        await real.load(control, "moved", 1)
        real.repository.publish("moved", 3)
        assert isinstance(real.repository, RealRepository)
        executor = Executor(control, RepositoryFolder(real.repository.root))
        load = Load(real.server.id, ModelName("over"), 1, (pin,))

        async def keep(_: Outcome) -> None:
            """Forget it."""

        (outcome,) = await executor.execute(real.server, [PlannedAction(load, "why", 0)], keep)
        assert isinstance(outcome, Loaded), outcome
        assert await ready(real, control, "moved") == {1}
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
