"""The other ports in memory: a catalogue, a fleet, a store and a clock, and short ways to make state for tests."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from builders.manifest import ManifestTarget
from builders.model_config import EnsembleStep, ModelConfig
from builders.targets import Precision
from control_plane.actions import AS_PUBLISHED, Setting
from control_plane.errors import LoadFailedError
from control_plane.planning.discovery import DnsName, Entry
from control_plane.ports import ServerLog
from control_plane.state import (
    GENERATION,
    ActionRecord,
    Deployment,
    DeploymentName,
    Endpoints,
    Mark,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Pin,
    Probe,
    Published,
    PublishedConfig,
    PublishedModel,
    Server,
    ServerCondition,
    ServerId,
    Source,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


BACKENDS = frozenset({"python", "onnxruntime", "tensorrt", "tensorrt_rtx"})


def a_server(name: str = "s0", key: str | None = None, *gpus: str) -> Server:
    """Return a server with every backend, and GPUs of these compute capabilities."""
    endpoints = Endpoints("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
    return Server(ServerId(name), endpoints, key, gpus, BACKENDS)


def a_named(name: str, port: int, **more: Any) -> Entry:
    """Return an entry of the servers file: a server whose gRPC is at this port."""
    where = Endpoints("127.0.0.1:1", f"127.0.0.1:{port}", "127.0.0.1:3")
    return Entry(Server(ServerId(name), where, backends=BACKENDS, source=Source.FILE, **more))


def a_discovered(name: str, dns: str, **more: Any) -> Entry:
    """Return an entry of the servers file: servers at the addresses of a DNS name, at Triton's usual ports."""
    pattern = Server(ServerId(name), Endpoints("", "", ""), backends=BACKENDS, source=Source.FILE, **more)
    return Entry(pattern, DnsName(dns))


def a_target(name: str, unproven: str = "", **toolchain: str) -> ManifestTarget:
    """Return the target `name` of a version: its file is called `name`."""
    return ManifestTarget(name, f"config.{name}.pbtxt", toolchain, unproven=unproven)


def with_targets(package: PublishedModel, *names: str, **made: ManifestTarget) -> PublishedModel:
    """Return the package with these targets in each version: proven ones by name, and others as they are."""
    targets = {**{name: a_target(name) for name in names}, **{it.filename: it for it in made.values()}}
    return replace(package, targets=dict.fromkeys(package.versions, targets))


def a_package(
    name: str, versions: tuple[int, ...] = (1,), members: tuple[str, ...] = (), problems: tuple[str, ...] = ()
) -> PublishedModel:
    """Return a package made by hand; members may be written as `name` or `name:version`."""
    return PublishedModel(ModelName(name), a_config(name, members, problems), versions)


def with_backend(package: PublishedModel, backend: str) -> PublishedModel:
    """Return the package made by hand for another backend."""
    assert package.draft.config is not None
    return replace(package, draft=replace(package.draft, config=replace(package.draft.config, backend=backend)))


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


def a_deployment(
    name: str,
    *pins: tuple[str, int],
    at: int = 0,
    revision: int = 1,
    precisions: tuple[Precision, ...] = (),
    allow_unproven: bool = False,
) -> Deployment:
    """Return a deployment of the last pin's model, written `at` seconds after START."""
    made = tuple(Pin(ModelName(model), version) for model, version in pins)
    when = START + timedelta(seconds=at)
    return Deployment(
        DeploymentName(name), made[-1].model, None, made, revision, when, when, precisions, allow_unproven
    )


def seen(
    *rows: tuple[str, int, ModelState],
    server: str = "s0",
    condition: ServerCondition = ServerCondition.HEALTHY,
    gpus: tuple[str, ...] = (),
    files: dict[str, str] | None = None,
) -> ObservedServer:
    """Return a server with these rows; `files` are what ready models were loaded from."""
    models = tuple(
        ObservedModel(ModelName(name), version, state, filename=(files or {}).get(name, ""))
        for name, version, state in rows
    )
    detail = "" if condition is ServerCondition.HEALTHY else "away"
    return ObservedServer(a_server(server, None, *gpus), condition, models, detail, "2.51.0")


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
        self.memory: dict[Pin, int] = {}
        self.fails: Exception | None = None

    def read(self) -> Published:
        if self.fails is not None:
            raise self.fails
        return Published(dict(self.published), dict(self.memory))

    def probe(self, model: ModelName, version: int, filename: str) -> Probe | None:
        del filename
        outputs = () if self.published[model].at(version).is_ensemble else ({"name": "Y"},)
        return Probe(model, version, ({"name": "X"},), outputs)

    def load_config(self, model: ModelName, version: int, setting: Setting = AS_PUBLISHED) -> str:
        if model not in self.published:
            raise LoadFailedError(f"{model}/config.pbtxt: there is no such file; a package needs one")
        problems = self.published[model].at(version).problems
        if problems:
            raise LoadFailedError(problems[0])
        config: dict[str, Any] = {"name": model, "version_policy": {"specific": {"versions": [version]}}}
        if setting.instances is not None:
            each, rest = divmod(setting.instances, max(1, setting.gpus))
            counts = [each + (gpu < rest) for gpu in range(setting.gpus)]
            spread = [{"count": count, "gpus": [gpu]} for gpu, count in enumerate(counts) if count]
            config["instance_group"] = spread if setting.gpus > 1 else [{"count": setting.instances}]
        if setting.generation:
            config["parameters"] = {GENERATION: {"string_value": str(setting.generation)}}
        targets = self.published[model].targets.get(version, {})
        return json.dumps(
            {**config, "default_model_filename": targets[setting.target].filename} if setting.target else config
        )


class FakeFleet:
    """A `Fleet` in memory; `change` is what a supervisor would do."""

    def __init__(self, *servers: Server) -> None:
        self.known = list(servers)
        self.notes: dict[ServerId, str] = {}
        self.listeners: list[Callable[[], None]] = []
        self.restarts: list[tuple[ServerId, str]] = []
        self.restarting: Callable[[ServerId], None] | None = None
        self.ours = True
        self.memory: dict[ServerId, int] = {}
        self.wrong: tuple[str, ...] = ()
        self.leaving: dict[ServerId, str] = {}

    def has(self, server: ServerId) -> bool:
        return any(it.id == server for it in self.known)

    def problems(self) -> tuple[str, ...]:
        return self.wrong

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

    async def register(self, server: Server) -> bool:
        if any(it.id == server.id and it.source is not Source.REGISTERED for it in self.known):
            return False
        self.known = [*(it for it in self.known if it.id != server.id), server]
        self.change()
        return True

    async def unregister(self, server: ServerId) -> bool:
        there = any(it.id == server and it.source is Source.REGISTERED for it in self.known)
        if not there:
            return False
        self.known = [it for it in self.known if it.id != server]
        self.change()
        return True

    async def restart(self, server: ServerId, reason: str) -> bool:
        self.restarts.append((server, reason))
        if self.restarting is not None:
            self.restarting(server)
        return self.ours

    def memory_used(self, server: ServerId) -> int | None:
        return self.memory.get(server)

    def retiring(self) -> Mapping[ServerId, str]:
        return self.leaving

    def owned(self) -> frozenset[ServerId]:
        return frozenset(it.id for it in self.known) if self.ours else frozenset()

    def change(self) -> None:
        for listener in tuple(self.listeners):
            listener()


class FakeStore:
    """A `DeploymentStore` in memory."""

    def __init__(self) -> None:
        self._deployments: dict[DeploymentName, Deployment] = {}
        self._records: dict[tuple[ServerId, ModelName], ActionRecord] = {}
        self._revisions: dict[DeploymentName, list[Deployment]] = {}
        self._marks: dict[ServerId, Mark] = {}
        self._servers: dict[ServerId, Server] = {}

    async def create(self, deployment: Deployment) -> bool:
        if deployment.name in self._deployments:
            return False
        self._keep(deployment)
        return True

    def _keep(self, deployment: Deployment) -> None:
        self._deployments[deployment.name] = deployment
        kept = self._revisions.setdefault(deployment.name, [])
        kept.insert(0, deployment)
        del kept[50:]

    async def replace(self, *deployments: Deployment) -> bool:
        before = [self._deployments.get(deployment.name) for deployment in deployments]
        for old, new in zip(before, deployments, strict=True):
            if old is None or old.revision != new.revision - 1:
                return False
        for deployment in deployments:
            self._keep(deployment)
        return True

    async def revisions(self, name: DeploymentName) -> tuple[Deployment, ...]:
        return tuple(self._revisions.get(name, ()))

    async def mark(self, mark: Mark) -> None:
        self._marks[mark.server] = mark

    async def unmark(self, server: ServerId) -> bool:
        return self._marks.pop(server, None) is not None

    async def marks(self) -> tuple[Mark, ...]:
        return tuple(self._marks[server] for server in sorted(self._marks))

    async def register(self, server: Server) -> None:
        self._servers[server.id] = server

    async def unregister(self, server: ServerId) -> bool:
        self._marks.pop(server, None)
        self._records = {key: record for key, record in self._records.items() if record.server != server}
        return self._servers.pop(server, None) is not None

    async def registered(self) -> tuple[Server, ...]:
        return tuple(self._servers[server] for server in sorted(self._servers))

    async def delete(self, name: DeploymentName) -> bool:
        self._revisions.pop(name, None)
        return self._deployments.pop(name, None) is not None

    async def get(self, name: DeploymentName) -> Deployment | None:
        return self._deployments.get(name)

    async def list(self) -> tuple[Deployment, ...]:
        return tuple(self._deployments[name] for name in sorted(self._deployments))

    async def record(self, record: ActionRecord) -> None:
        self._records[record.server, record.model] = record

    async def forget(self, models: frozenset[ModelName], server: ServerId | None = None) -> None:
        def stays(record: ActionRecord) -> bool:
            return record.model not in models or server not in (None, record.server)

        self._records = {key: record for key, record in self._records.items() if stays(record)}

    async def records(self) -> tuple[ActionRecord, ...]:
        return tuple(self._records[key] for key in sorted(self._records))
