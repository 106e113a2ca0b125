"""The other ports in memory: a catalogue, a fleet, a store and a clock, and short ways to make state for tests."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from builders.model_config import EnsembleStep, ModelConfig
from control_plane.errors import LoadFailedError
from control_plane.ports import ServerLog
from control_plane.state import (
    ActionRecord,
    Deployment,
    DeploymentName,
    Endpoints,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Pin,
    Published,
    PublishedConfig,
    PublishedModel,
    Server,
    ServerCondition,
    ServerId,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_server(name: str = "s0", key: str | None = None) -> Server:
    return Server(ServerId(name), Endpoints("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"), key)


def a_package(
    name: str, versions: tuple[int, ...] = (1,), members: tuple[str, ...] = (), problems: tuple[str, ...] = ()
) -> PublishedModel:
    """Return a package made by hand; members may be written as `name` or `name:version`."""
    return PublishedModel(ModelName(name), a_config(name, members, problems), versions)


def a_built(name: str, *members: tuple[str, ...], draft: PublishedConfig | None = None) -> PublishedModel:
    """Return a package with versions 1, 2, ... of their own configs, each calling its `members`."""
    own = {version: a_config(name, called) for version, called in enumerate(members, 1)}
    return PublishedModel(ModelName(name), draft or a_config(name), tuple(own), own)


def a_config(name: str, members: tuple[str, ...] = (), problems: tuple[str, ...] = ()) -> PublishedConfig:
    steps = tuple(_step(member) for member in members)
    config = ModelConfig(name, backend="" if members else "python", platform="ensemble" if members else "")
    if steps:
        config = ModelConfig(name, platform="ensemble", ensemble_steps=steps)
    return PublishedConfig(config, problems)


def _step(member: str) -> EnsembleStep:
    name, _, version = member.partition(":")
    return EnsembleStep(name, int(version or -1), {}, {})


def a_repository(*packages: PublishedModel) -> Published:
    return Published({package.name: package for package in packages})


def a_deployment(name: str, *pins: tuple[str, int], at: int = 0, revision: int = 1) -> Deployment:
    """Return a deployment of the last pin's model, written `at` seconds after START."""
    made = tuple(Pin(ModelName(model), version) for model, version in pins)
    when = START + timedelta(seconds=at)
    return Deployment(DeploymentName(name), made[-1].model, None, made, revision, when, when)


def seen(
    *rows: tuple[str, int, ModelState], server: str = "s0", condition: ServerCondition = ServerCondition.HEALTHY
) -> ObservedServer:
    models = tuple(ObservedModel(ModelName(name), version, state) for name, version, state in rows)
    return ObservedServer(a_server(server), condition, models, "" if condition is ServerCondition.HEALTHY else "away")


async def until(reached: Callable[[], bool]) -> None:
    """Let other tasks run until `reached`; ten seconds mean that it never is."""
    async with asyncio.timeout(10):
        while True:
            if reached():
                return
            await asyncio.sleep(0)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class FakeCatalogue:
    """A `Catalogue` in memory."""

    def __init__(self, *packages: PublishedModel) -> None:
        self.published = {package.name: package for package in packages}
        self.fails: Exception | None = None

    def read(self) -> Published:
        if self.fails is not None:
            raise self.fails
        return Published(dict(self.published))

    def load_config(self, model: ModelName, version: int) -> str:
        if model not in self.published:
            raise LoadFailedError(f"{model}/config.pbtxt: there is no such file; a package needs one")
        problems = self.published[model].at(version).problems
        if problems:
            raise LoadFailedError(problems[0])
        return json.dumps({"name": model, "version_policy": {"specific": {"versions": [version]}}})


class FakeFleet:
    """A `Fleet` in memory; `change` is what a supervisor would do."""

    def __init__(self, *servers: Server) -> None:
        self.known = list(servers)
        self.notes: dict[ServerId, str] = {}
        self.listeners: list[Callable[[], None]] = []

    def servers(self) -> tuple[Server, ...]:
        return tuple(self.known)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(changed)
        return lambda: self.listeners.remove(changed)

    def note(self, server: ServerId) -> str:
        return self.notes.get(server, "")

    def log_of(self, server: ServerId) -> ServerLog | None:
        del server
        return None

    def change(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class FakeStore:
    """A `DeploymentStore` in memory."""

    def __init__(self) -> None:
        self._deployments: dict[DeploymentName, Deployment] = {}
        self._records: dict[tuple[ServerId, ModelName], ActionRecord] = {}

    async def create(self, deployment: Deployment) -> bool:
        if deployment.name in self._deployments:
            return False
        self._deployments[deployment.name] = deployment
        return True

    async def replace(self, *deployments: Deployment) -> bool:
        before = [self._deployments.get(deployment.name) for deployment in deployments]
        for old, new in zip(before, deployments, strict=True):
            if old is None or old.revision != new.revision - 1:
                return False
        self._deployments.update({deployment.name: deployment for deployment in deployments})
        return True

    async def delete(self, name: DeploymentName) -> bool:
        return self._deployments.pop(name, None) is not None

    async def get(self, name: DeploymentName) -> Deployment | None:
        return self._deployments.get(name)

    async def list(self) -> tuple[Deployment, ...]:
        return tuple(self._deployments[name] for name in sorted(self._deployments))

    async def record(self, record: ActionRecord) -> None:
        self._records[record.server, record.model] = record

    async def forget(self, models: frozenset[ModelName]) -> None:
        self._records = {key: record for key, record in self._records.items() if record.model not in models}

    async def records(self) -> tuple[ActionRecord, ...]:
        return tuple(self._records[key] for key in sorted(self._records))
