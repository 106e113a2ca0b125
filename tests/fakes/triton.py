"""A Triton that is a dictionary: behaves as the real one does towards `TritonControl`, proven by the contract suite."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from control_plane.errors import AdminKeyRefusedError, DeadlineExceededError, LoadFailedError, ServerUnreachableError
from control_plane.state import (
    GENERATION,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Probe,
    ProbeResult,
    Server,
    ServerCondition,
    ServerId,
)
from tests.fakes.world import BACKENDS


@dataclass
class FakeModel:
    """A published model.

    `broken` is why its code fails, `invalid` why its config does. One that `hangs` never loads; one that
    `vanishes` does not stay. Once loaded, one that is `wrong` answers golden requests wrongly, one that is `slow`
    answers none in time, and one that `refuses` answers each with that error of its own. It needs `backend`.
    """

    versions: tuple[int, ...] = (1,)
    members: tuple[str, ...] = ()
    broken: str = ""
    invalid: str = ""
    hangs: bool = False
    vanishes: bool = False
    wrong: bool = False
    slow: bool = False
    refuses: str = ""
    backend: str = "python"


@dataclass
class FakeProcess:
    """One server: its key, whether it answers, which Triton it is, what its index says, and what models run with.

    What a test puts in `dead` stays READY and answers nothing, until a load changes more than its instances. `failed`
    and `succeeded` are what its requests came to: of probes, only those that fail are counted by themselves.
    """

    key: str | None = None
    up: bool = True
    version: str = "2.51.0"
    has: frozenset[str] = BACKENDS
    rows: dict[tuple[str, int], tuple[ModelState, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    instances: dict[str, int] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    succeeded: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, model: str, config: dict[str, Any], *, scales: bool) -> None:
        """Have a loaded model run with `config`. More than another number of instances begins its life anew."""
        before, groups = self.configs.get(model, {}), config.get("instance_group", [])
        if {**config, "instance_group": []} != {**before, "instance_group": []}:
            self.begin_anew(model)
        self.configs[model] = config
        self.files[model] = config.get("default_model_filename", "")
        self.instances[model] = (
            (sum(int(it["count"]) * len(it.get("gpus", [0])) for it in groups) or 1) if scales else 0
        )
        self.generations[model] = int(config.get("parameters", {}).get(GENERATION, {}).get("string_value", 0))

    def begin_anew(self, model: str) -> None:
        """Have new processes for a model, with nothing counted."""
        self.dead.discard(model)
        self.configs.pop(model, None)
        self.succeeded.pop(model, None)
        self.failed.pop(model, None)


class FakeTriton:
    """`TritonControl` over `published`. `calls` is what was asked, in order: ("load", server, model, version)."""

    def __init__(self, published: dict[str, FakeModel]) -> None:
        self.published = published
        self.processes: dict[ServerId, FakeProcess] = {}
        self.calls: list[tuple[str, ServerId, str, int]] = []
        self.load_deadline_s = 120.0
        self.gate: asyncio.Event | None = None

    def start(self, server: Server) -> FakeProcess:
        """Begin a new, empty life of `server`."""
        self.processes[server.id] = FakeProcess(server.admin_key)
        return self.processes[server.id]

    async def observe(self, server: Server) -> ObservedServer:
        """Return the index."""
        await asyncio.sleep(0)
        try:
            process = self._process(server)
        except ServerUnreachableError as error:
            return ObservedServer(server, ServerCondition.UNREACHABLE, detail=str(error))
        except AdminKeyRefusedError as error:
            return ObservedServer(server, ServerCondition.DEGRADED, detail=str(error))
        rows = tuple(
            ObservedModel(
                ModelName(name),
                version,
                state,
                reason,
                process.files.get(name, ""),
                process.instances.get(name, 0),
                process.generations.get(name, 0),
                process.succeeded.get(name, 0),
                process.failed.get(name, 0),
                self.published[name].backend,
            )
            if state == "READY"
            else ObservedModel(ModelName(name), version, state, reason)
            for (name, version), (state, reason) in sorted(process.rows.items())
        )
        return ObservedServer(server, ServerCondition.HEALTHY, rows, triton_version=process.version)

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load the versions that `config` names; an ensemble's missing members come along at their newest."""
        process = self._process(server)
        given = json.loads(config)
        versions = given["version_policy"]["specific"]["versions"]
        self.calls.append(("load", server.id, model, int(versions[0])))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self._process(server)
        for member in self.published.get(model, FakeModel()).members:
            if not any(name == member and row[0] is ModelState.READY for (name, _), row in process.rows.items()):
                self._load(process, member, max(self.published[member].versions))
        self._load(process, model, int(versions[0]))
        process.run(model, given, scales=not self.published[model].members)

    async def probe(self, server: Server, probe: Probe) -> ProbeResult:
        """Answer as the model would."""
        await asyncio.sleep(0)
        try:
            process = self._process(server)
        except (ServerUnreachableError, AdminKeyRefusedError) as error:
            return ProbeResult(probe, unsure=str(error))
        if process.rows.get((probe.model, probe.version), (None, ""))[0] is not ModelState.READY:
            return ProbeResult(probe, unsure="unknown model")
        published, name = self.published[probe.model], str(probe.model)
        broken = ""
        if name in process.dead:
            broken = f"Stub process '{name}_0_0' is not healthy."
        elif published.slow:
            broken = "it did not answer within 5 s"
        elif published.refuses and probe.outputs:
            broken = f"it refuses a golden request: {published.refuses}"
        elif published.wrong and probe.outputs:
            broken = "it answers a golden request wrongly: output 'Y' is off by up to 1"
        if name in process.dead or published.refuses:
            process.failed[name] = process.failed.get(name, 0) + 1
        return ProbeResult(probe, broken=broken)

    async def unload(self, server: Server, model: ModelName) -> None:
        """Unload every version."""
        process = self._process(server)
        self.calls.append(("unload", server.id, model, 0))
        await asyncio.sleep(0)
        for name, version in process.rows:
            if name == model:
                process.rows[name, version] = (ModelState.UNAVAILABLE, "unloaded")
        process.begin_anew(model)

    def forget_others(self, servers: frozenset[ServerId]) -> None:
        """Nothing is open."""

    async def close(self) -> None:
        """Nothing is open."""

    def _process(self, server: Server) -> FakeProcess:
        process = self.processes.get(server.id)
        if process is None or not process.up:
            raise ServerUnreachableError(f"server '{server.id}' did not answer: Connection refused")
        if process.key != server.admin_key:
            raise AdminKeyRefusedError(f"server '{server.id}' refused: its admin key is another one")
        return process

    def _load(self, process: FakeProcess, model: str, version: int) -> None:
        published = self.published.get(model)
        if published is None:
            raise LoadFailedError("model not found in any model repository.")
        if published.invalid:
            raise LoadFailedError(published.invalid)
        if version not in published.versions:
            raise LoadFailedError(
                f"load failed for model '{model}': at least one version must be available under the version policy"
            )
        if published.hangs:
            process.rows[model, version] = (ModelState.LOADING, "")
            raise DeadlineExceededError(f"model '{model}' did not load within {self.load_deadline_s:g} s.")
        broken = published.broken
        if published.backend not in process.has:
            broken = (
                f"Invalid argument: unable to find backend library for backend '{published.backend}', try specifying"
            )
        if broken:
            process.rows[model, version] = (ModelState.UNAVAILABLE, broken)
            raise LoadFailedError(
                f"load failed for model '{model}': version {version} is at UNAVAILABLE state: {broken}"
            )
        for name, other in process.rows:
            if name == model:
                process.rows[name, other] = (ModelState.UNAVAILABLE, "unloaded")
        if published.vanishes:
            process.rows[model, version] = (ModelState.UNAVAILABLE, "unloaded")
        else:
            process.rows[model, version] = (ModelState.READY, "")
