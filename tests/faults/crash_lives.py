"""A control plane over fakes of its ports that ends at any one call: what `crash_matrix` kills.

All that a control plane does to the world goes through its ports, so a kill is modelled there: `Life` counts every call
that writes or acts, and ends just before or just after one of them took effect. From then on the ports refuse whatever
is left of that control plane; what was on its way to a server or a disk still arrives, as it would.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from control_plane.deployments import Deployments, FleetView
from control_plane.executor import Executor
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.reconciler import Reconciler, Timing, World
from control_plane.state import Deployment, ModelName, Published, Server, ServerId
from tests.fakes.operations import FakeOperationStore
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeClock, FakeFleet, FakeStore, a_package, a_server

if TYPE_CHECKING:
    from control_plane.operations import OperationStore
    from control_plane.ports import DeploymentStore, TritonControl

SERVERS = 10
_PASSES, _PASS_S = 60, 2.0
_WRITES = frozenset({"load", "unload", "record", "forget", "create", "replace", "delete", "mark", "unmark"})
_WRITES |= {"register", "unregister", "add", "save", "prune"}

T = TypeVar("T")


class Killed(BaseException):
    """The control plane is no more. Nothing that it is made of may catch this."""


@dataclass(frozen=True, slots=True, order=True)
class Kill:
    """How a life ends: at which of its calls that write or act, counted from 1, and whether that took effect before."""

    at: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.at}"


def kills(calls: int) -> tuple[Kill, ...]:
    """Return every end of a life of so many calls."""
    return tuple(Kill(at, after) for at in range(1, calls + 1) for after in (False, True))


class Life:
    """One life of a control plane, which ends by `kill`; None is an old age."""

    def __init__(self, kill: Kill | None = None) -> None:
        self.kill = kill
        self.count = 0
        self.dead = False
        self.cut = ""
        self._under_way: set[asyncio.Task[Any]] = set()

    async def call(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Carry out one call to a port, unless the end came before."""
        if self.dead:
            raise Killed
        if name.rpartition(".")[2] not in _WRITES:
            answer = await make()
            self._unless_dead()
            return answer
        self.count += 1
        last = self.kill is not None and self.count == self.kill.at
        if self.kill is not None and last:
            self.cut = name
            self.dead = not self.kill.after
        self._unless_dead()
        task = asyncio.create_task(make())
        self._under_way.add(task)
        answer = await asyncio.shield(task)
        self.dead = self.dead or last
        self._unless_dead()
        return answer

    def _unless_dead(self) -> None:
        if self.dead:
            raise Killed

    async def buried(self) -> None:
        """Let arrive what is on its way, and end every task of the dead control plane."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        rest = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task is not None}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


class _Port:
    """A port of one life: what `port` does, counted and cut by `life`."""

    def __init__(self, port: object, life: Life) -> None:
        self._port, self._life = port, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found
        word = f"{type(self._port).__name__}.{name}"

        async def call(*given: Any, **named: Any) -> Any:
            return await self._life.call(word, lambda: found(*given, **named))

        return call


@dataclass(frozen=True, slots=True, order=True)
class Effect:
    """Something that a load or an unload changed."""

    action: str
    server: ServerId
    model: str
    version: int


class CountingTriton(FakeTriton):
    """A Triton that notes what changed something: a model that is ready as asked already is left as it is."""

    def __init__(self, published: dict[str, FakeModel]) -> None:
        super().__init__(published)
        self.effects: list[Effect] = []

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load, and note what it did."""
        before, number = self.shape(server.id, model), len(self.calls)
        await super().load(server, model, config)
        version = next(it[3] for it in self.calls[number:] if it[:3] == ("load", server.id, model))
        self._note(Effect("load", server.id, model, version), before)

    async def unload(self, server: Server, model: ModelName) -> None:
        """Unload, and note what it did."""
        before = self.shape(server.id, model)
        await super().unload(server, model)
        self._note(Effect("unload", server.id, model, 0), before)

    def shape(self, server: ServerId, model: str) -> object:
        """Return what runs of a model on a server: its versions that are ready, and their config."""
        process = self.processes[server]
        ready = sorted(at for (name, at), (state, _) in process.rows.items() if name == model and state == "READY")
        return (ready, dict(process.configs.get(model, {}))) if ready else None

    def _note(self, effect: Effect, before: object) -> None:
        if self.shape(effect.server, effect.model) != before:
            self.effects.append(effect)


@dataclass
class Fakes:
    """What outlives a control plane: servers, disks and the time."""

    servers: tuple[Server, ...]
    triton: CountingTriton
    catalogue: FakeCatalogue
    store: FakeStore = field(default_factory=FakeStore)
    operations: FakeOperationStore = field(default_factory=FakeOperationStore)
    clock: FakeClock = field(default_factory=FakeClock)

    @classmethod
    def new(cls) -> "Fakes":
        """Return ten empty servers, and a repository of a, b and the ensemble e of both."""
        servers = tuple(a_server(f"s{number}") for number in range(SERVERS))
        published = {"a": FakeModel(), "b": FakeModel(), "e": FakeModel(members=("a", "b"))}
        fakes = cls(
            servers,
            CountingTriton(published),
            FakeCatalogue(a_package("a"), a_package("b"), a_package("e", members=("a", "b"))),
        )
        for server in servers:
            fakes.triton.start(server)
        return fakes

    def publish(self, model: str, *versions: int) -> None:
        """Have these versions of a model that calls none."""
        self.triton.published[model] = FakeModel(versions)
        self.catalogue.published[ModelName(model)] = a_package(model, versions)

    def ready(self) -> dict[tuple[ServerId, str], object]:
        """Return what runs where."""
        shapes = {
            (server.id, name): self.triton.shape(server.id, name)
            for server in self.servers
            for name in self.triton.published
        }
        return {place: shape for place, shape in shapes.items() if shape is not None}

    async def state(self) -> dict[str, object]:
        """Return all that two runs must agree on; only times may differ."""
        deployments = [(it.name, it.revision, it.all_pins, it.needs) for it in await self.store.list()]
        marks = [(it.server, it.reason) for it in await self.store.marks()]
        return {"ready": self.ready(), "deployments": deployments, "marks": marks}


class Control:
    """A control plane in one life, over fakes that outlive it."""

    def __init__(self, fakes: Fakes, life: Life) -> None:
        self.fakes = fakes
        triton = cast("TritonControl", _Port(fakes.triton, life))
        self.store = cast("DeploymentStore", _Port(fakes.store, life))
        self.journal = Journal(cast("OperationStore", _Port(fakes.operations, life)), fakes.clock)
        fleet = FakeFleet(*fakes.servers)
        world = World(self.store, fakes.catalogue, fleet, triton, self.journal)
        timing = Timing(now=fakes.clock, jitter=lambda: 0.0)
        self.loop = Reconciler(world, Executor(triton, fakes.catalogue, fleet), Metrics(), timing)
        self.deployments = Deployments(
            self.store, fakes.catalogue, fakes.clock, self.loop.wake, self._view, self.journal.announce
        )

    def _view(self, _deployments: Iterable[Deployment], _published: Published) -> FleetView:
        return FleetView(self.loop.view.observed, self.loop.view.plan.placement.places())

    async def rest(self, watch: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run passes, each carried out in full, until two in a row found nothing to do and no operation is open."""
        quiet = 0
        for _ in range(_PASSES):
            plan = await self.loop.run_pass()
            if watch is not None:
                await watch()
            await self.loop.executions_ended()
            self.fakes.clock.move(_PASS_S)
            busy = plan.steps or plan.waiting or await self.fakes.operations.open()
            quiet = 0 if busy else quiet + 1
            if quiet == 2:
                return
        raise AssertionError(f"no rest: {plan.steps or plan.waiting or await self.fakes.operations.open()}")
