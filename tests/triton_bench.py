"""A server to command in a test, with a repository to publish small models in: a fake one, or a real tritonserver.

What the contract suites of `TritonControl` run on; its fixtures are in `tests/contract/conftest.py`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from control_plane.actions import Setting
from control_plane.adapters.repository import RepositoryFolder
from control_plane.errors import LoadFailedError
from control_plane.ports import TritonControl
from control_plane.state import GENERATION, Endpoints, ModelName, ObservedModel, Server, ServerCondition, ServerId
from tests.fakes.triton import FakeModel, FakeTriton
from tests.small_models import ensemble, multiplier

LOAD_DEADLINE_S = 8.0
PROBE_DEADLINE_S = 3.0
NOWHERE = Server(ServerId("nowhere"), Endpoints("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))


class Repository(Protocol):
    """Publishing small models, and the config to load one with."""

    def publish(self, name: str, *versions: int) -> None: ...
    def publish_ensemble(self, name: str, *members: str) -> None: ...
    def publish_broken(self, name: str) -> None: ...
    def publish_strange(self, name: str, backend: str) -> None: ...
    def publish_invalid(self, name: str) -> None: ...
    def publish_hanging(self, name: str) -> None: ...
    def publish_refusing(self, name: str) -> None: ...
    def publish_wrong(self, name: str) -> None: ...
    def publish_slow(self, name: str) -> None: ...
    def config(self, name: str, version: int, *, instances: int | None = None, generation: int = 0) -> str: ...
    def kill(self, server: Server, name: str) -> None: ...


@dataclass
class FakeRepository:
    fake: FakeTriton

    def publish(self, name: str, *versions: int) -> None:
        self.fake.published[name] = FakeModel(versions)

    def publish_ensemble(self, name: str, *members: str) -> None:
        self.fake.published[name] = FakeModel(members=members)

    def publish_broken(self, name: str) -> None:
        self.fake.published[name] = FakeModel(broken="Internal: ModuleNotFoundError: No module named 'nothing_here'")

    def publish_strange(self, name: str, backend: str) -> None:
        self.fake.published[name] = FakeModel(backend=backend)

    def publish_invalid(self, name: str) -> None:
        self.fake.published[name] = FakeModel(invalid="dynamic batching preferred size must be <= max batch size")

    def publish_hanging(self, name: str) -> None:
        self.fake.published[name] = FakeModel(hangs=True)

    def publish_refusing(self, name: str) -> None:
        self.fake.published[name] = FakeModel(refuses="ValueError: not like this")

    def publish_wrong(self, name: str) -> None:
        self.fake.published[name] = FakeModel(wrong=True)

    def publish_slow(self, name: str) -> None:
        self.fake.published[name] = FakeModel(slow=True)

    def config(self, name: str, version: int, *, instances: int | None = None, generation: int = 0) -> str:
        config: dict[str, Any] = {"name": name, "version_policy": {"specific": {"versions": [version]}}}
        if instances is not None:
            config["instance_group"] = [{"count": instances}]
        if generation:
            config["parameters"] = {GENERATION: {"string_value": str(generation)}}
        return json.dumps(config)

    def kill(self, server: Server, name: str) -> None:
        self.fake.processes[server.id].dead.add(name)


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

    def publish_strange(self, name: str, backend: str) -> None:
        multiplier(self.root, name, 1.0)
        config = self.root / name / "config.pbtxt"
        config.write_text(config.read_text().replace('backend: "python"', f'backend: "{backend}"'))

    def publish_invalid(self, name: str) -> None:
        multiplier(self.root, name, 1.0)
        with (self.root / name / "config.pbtxt").open("a") as config:
            config.write("dynamic_batching { preferred_batch_size: [ 32 ] }\n")

    def publish_hanging(self, name: str) -> None:
        multiplier(self.root, name, 1.0, more="time.sleep(15)")

    def publish_refusing(self, name: str) -> None:
        multiplier(self.root, name, 1.0)
        self._runs_first(name, "raise ValueError('not like this')")

    def publish_wrong(self, name: str) -> None:
        multiplier(self.root, name, 3.0)

    def publish_slow(self, name: str) -> None:
        multiplier(self.root, name, 1.0)
        self._runs_first(name, f"time.sleep({2 * PROBE_DEADLINE_S})")

    def _runs_first(self, name: str, statement: str) -> None:
        """Have the model run a statement before it answers a request."""
        code = self.root / name / "1" / "model.py"
        code.write_text(code.read_text().replace("        inputs = ", f"        {statement}\n        inputs = "))

    def config(self, name: str, version: int, *, instances: int | None = None, generation: int = 0) -> str:
        try:
            folder = RepositoryFolder(self.root)
            return folder.load_config(ModelName(name), version, Setting(instances=instances, generation=generation))
        except LoadFailedError:  # not published: send what the control plane would have known of it
            return json.dumps({"name": name, "backend": "python"})

    def kill(self, server: Server, name: str) -> None:
        """Kill the processes of a Python model, and wait until they are gone."""
        del server
        stubs = self.stubs(name)
        assert stubs, f"no process of {name} found"
        for stub in stubs:
            stub.kill()
        psutil.wait_procs(stubs, timeout=5)

    def stubs(self, name: str) -> list[psutil.Process]:
        """Return the processes of a Python model, the oldest first."""
        code = str(self.root / name / "")
        found = [(it, it.info["cmdline"] or []) for it in psutil.process_iter(["cmdline", "create_time"])]
        own = ((it, line) for it, line in found if len(line) > 1)  # one that ends just now has none
        stubs = [it for it, line in own if line[0].endswith("_stub") and line[1].startswith(f"{code}/")]
        return sorted(stubs, key=lambda stub: float(stub.info["create_time"]))


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

    async def load(
        self, control: TritonControl, model: str, version: int = 1, *, instances: int | None = None, generation: int = 0
    ) -> None:
        config = self.repository.config(model, version, instances=instances, generation=generation)
        await control.load(self.server, ModelName(model), config)

    async def ready(self, control: TritonControl, model: str) -> frozenset[int]:
        """Return the versions of a model that are ready."""
        seen = await control.observe(self.server)
        assert seen.condition is ServerCondition.HEALTHY
        return seen.ready_versions(ModelName(model))

    async def row(self, control: TritonControl, model: str) -> ObservedModel:
        """Return the one row of a model."""
        (row,) = (await control.observe(self.server)).rows_of(ModelName(model))
        return row
