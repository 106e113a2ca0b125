"""`python -m tests.faults.crash_matrix`: the control plane killed -9 at every single step of operations on ten servers.

All that a control plane does to the world goes through its ports, so a kill is modelled there: `Life` counts every call
that writes or acts, and ends just before or just after one of them took effect. From then on the ports refuse whatever
is left of that control plane; what was on its way to a server or a disk still arrives, as it would. A new control plane
is built over the same fakes and run to rest, and the end is compared with that of a run that nobody cut.

The recovery is cut too: after every `--again`-th kill the next control plane is killed as well, at a step of it
that is drawn by a seed, and a third one has to come to the same end.
"""

import argparse
import asyncio
import inspect
import logging
import pickle
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from control_plane.deployments import Changes, Deployments, FleetView
from control_plane.executor import Executor
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.operations import Operation, OperationKind, OperationState, OperationStore, StepAction, StepState
from control_plane.planning import Infeasible
from control_plane.reconciler import Reconciler, Timing, World
from control_plane.state import DeploymentName, Mark, ModelName, Server, ServerId
from control_plane.wanted import ANY_POOL, Needs, Replicas
from tests.fakes.operations import FakeOperationStore
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeClock, FakeFleet, FakeStore, a_package, a_server

if TYPE_CHECKING:
    from control_plane.ports import DeploymentStore, TritonControl

SERVERS = 10
E, SINGLE = DeploymentName("ensemble"), DeploymentName("single")
DRAINED = ServerId("s3")
_PASSES, _PASS_S = 60, 2.0
_WRITES = frozenset({"load", "unload", "record", "forget", "create", "replace", "delete", "mark", "unmark"})
_WRITES |= {"register", "unregister", "add", "save", "prune"}
_UNLOADS = frozenset({StepAction.UNLOAD})
_LOADS = frozenset({StepAction.LOAD, StepAction.RELOAD, StepAction.SCALE})

T = TypeVar("T")


class Killed(BaseException):
    """The control plane is no more. Nothing that it is made of may catch this."""


class Life:
    """One life of a control plane. It ends at the call number `kill_at` that writes or acts; None is an old age."""

    def __init__(self, kill_at: int | None = None, *, after: bool = False) -> None:
        self.kill_at, self.after = kill_at, after
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
        last = self.count == self.kill_at
        if last:
            self.cut = name
        self.dead = last and not self.after
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

    def _view(self) -> FleetView:
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


Ask = Callable[[Control], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Case:
    """An operation: what comes before, and how it is asked for. Asking again what was granted changes nothing."""

    ask: Ask
    kind: OperationKind
    prepare: Callable[[Control], Awaitable[None]]


def needs(replicas: int = SERVERS, instances: int | None = None) -> Needs:
    return Needs({ANY_POOL: Replicas(replicas)}, instances)


async def _nothing(control: Control) -> None:
    del control


async def _create(control: Control) -> object:
    return await control.deployments.create(E, ModelName("e"), changes=Changes(needs=needs()))


async def _deployed(control: Control, replicas: int = SERVERS) -> None:
    await control.deployments.create(E, ModelName("e"), changes=Changes(needs=needs(replicas)))
    await control.rest()


async def _published(control: Control) -> None:
    await _deployed(control)
    control.fakes.publish("a", 1, 2)


async def _redeploy(control: Control) -> object:
    return await control.deployments.change(E, lambda _: Changes(repin=True), expected=1)


async def _redeployed(control: Control) -> None:
    await _published(control)
    await _redeploy(control)
    await control.rest()


async def _shared(control: Control) -> None:
    await _deployed(control)
    await control.deployments.create(SINGLE, ModelName("b"), changes=Changes(needs=needs()))
    await control.rest()


async def _scale(control: Control) -> object:
    return await control.deployments.change(SINGLE, lambda _: Changes(needs=needs(instances=3)), expected=1)


async def _spare(control: Control) -> None:
    await _deployed(control, SERVERS - 1)


async def _drain(control: Control) -> object:
    await control.store.mark(Mark(DRAINED, "maintenance", control.fakes.clock()))
    return await control.journal.begin(OperationKind.DRAIN, server=DRAINED)


async def _rollback(control: Control) -> object:
    return await control.deployments.rollback(E, expected=2)


async def _undeploy(control: Control) -> object:
    return await control.deployments.delete(E)


async def _half_deployed(control: Control) -> None:
    """Have a deploy wait to try again a model that fails; then that model is well, and there is a newer version."""
    control.fakes.triton.published["b"] = FakeModel(broken="boom")
    await _create(control)
    for _ in range(2):
        await control.loop.run_pass()
        await control.loop.executions_ended()
    assert await control.fakes.operations.open()
    control.fakes.triton.published["b"] = FakeModel()
    control.fakes.publish("a", 1, 2)


CASES = {
    "deploy": Case(_create, OperationKind.DEPLOY, _nothing),
    "redeploy": Case(_redeploy, OperationKind.REDEPLOY, _published),
    "redeploy-under-way": Case(_redeploy, OperationKind.REDEPLOY, _half_deployed),
    "scale": Case(_scale, OperationKind.SCALE, _shared),
    "drain": Case(_drain, OperationKind.DRAIN, _spare),
    "rollback": Case(_rollback, OperationKind.ROLLBACK, _redeployed),
    "undeploy": Case(_undeploy, OperationKind.UNDEPLOY, _shared),
}


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended: the state, what it did, what the journal says, each life's calls, and how it was cut."""

    state: dict[str, object]
    effects: Counter[Effect]
    calls: Counter[tuple[str, ServerId, str, int]]
    operations: tuple[Operation, ...]
    counted: tuple[int, ...]
    cuts: tuple[str, ...] = ()


@dataclass
class Row:
    """What the matrix says of one operation."""

    operation: str
    kill_points: int = 0
    killed_again: int = 0
    converged: int = 0
    repeated: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        points = f"{self.kill_points:11} {self.killed_again:12}"
        return f"{self.operation:20} {points} {self.converged:9} {self.repeated:14}"


class _Inline(ThreadPoolExecutor):
    """Runs at once what is given to a thread, so that one run is like the next one and call number k is the same."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run it."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            future.set_exception(error)
        return future


async def _prepared(case: Case) -> bytes:
    fakes = Fakes.new()
    await case.prepare(Control(fakes, Life()))
    fakes.clock.move(60)
    return pickle.dumps(fakes)


async def _lived(case: Case, before: bytes, lives: Sequence[Life], reference: Run | None) -> Run:
    """Have one control plane after the other, until one is not cut; the last of `lives` must not be."""
    fakes: Fakes = pickle.loads(before)  # noqa: S301 - pickled above
    earlier = {it.id for it in await fakes.operations.list(limit=1000) if it.is_finished}
    fakes.triton.calls.clear()
    fakes.triton.effects.clear()

    async def told_in_time() -> None:
        """Check that an operation is done only once what it is for is there."""
        own = [it for it in await fakes.operations.list(limit=1000) if it.id not in earlier and it.kind is case.kind]
        if reference is not None and any(it.state is OperationState.DONE for it in own):
            assert fakes.ready() == reference.state["ready"], f"{case.kind} was told done too early"

    for number, life in enumerate(lives):
        try:
            control = Control(fakes, life)
            await control.journal.recover()
            answer = await case.ask(control)  # who got no answer asks again
            assert number or not isinstance(answer, Infeasible)
            await control.rest(told_in_time)
            break
        except BaseException:
            if not life.dead:
                raise
            await life.buried()
            fakes.clock.move(1)
    operations = tuple(it for it in await fakes.operations.list(limit=1000) if it.id not in earlier)
    effects, calls = Counter(fakes.triton.effects), Counter(fakes.triton.calls)
    counted, cuts = tuple(life.count for life in lives), tuple(life.cut for life in lives if life.cut)
    return Run(await fakes.state(), effects, calls, operations, counted, cuts)


def problems(run: Run, reference: Run) -> list[str]:
    """Return what is wrong with the end of a run that was cut, by that of one that was not."""
    found = [f"{what} differ: {run.state[what]}" for what, it in reference.state.items() if run.state[what] != it]
    again = run.calls - reference.calls
    kills = len(run.cuts)
    found += [f"{call} was repeated {times} times" for call, times in sorted(again.items()) if times > kills]
    found += [f"{it.id} is {it.state}" for it in run.operations if not it.is_finished]
    found += [f"{it.id} has failed: {it.cause}" for it in run.operations if it.state is OperationState.FAILED]
    steps = [step for operation in run.operations for step in operation.steps]
    for (action, server, model, version), times in run.calls.items():
        words = _LOADS if action == "load" else _UNLOADS
        own = {(model, version), ("e", 1)} if action == "load" else {(model, version)}  # a load of e loads its members
        attempts = sum(
            it.attempts for it in steps if it.server == server and it.action in words and (it.model, it.version) in own
        )
        if attempts < times:
            found.append(f"{action} {model}:{version} on {server}: {times} calls, {attempts} attempts in the journal")
    done = {
        Effect("load" if it.action in _LOADS else "unload", it.server, it.model, it.version)
        for it in steps
        if it.state is StepState.DONE
    }
    found += [f"{effect} is in no step that is done" for effect in sorted(set(run.effects) - done)]
    places = {(it.server, it.model, it.action) for it in (*run.effects, *reference.effects)}
    for place in sorted(places):
        mine, theirs = (
            sum(n for it, n in one.effects.items() if (it.server, it.model, it.action) == place)
            for one in (run, reference)
        )
        if mine != theirs:
            found.append(f"{place} took effect {mine} times, not {theirs}")
    return found


async def _row(name: str, again: int) -> Row:
    asyncio.get_running_loop().set_default_executor(_Inline())
    case, row = CASES[name], Row(name)
    before = await _prepared(case)
    reference = await _lived(case, before, [Life()], None)
    assert not problems(reference, reference), problems(reference, reference)
    points = [(number, after) for number in range(1, reference.counted[0] + 1) for after in (False, True)]
    dice = random.Random(name)
    for index, (number, after) in enumerate(points):
        row.kill_points += 1
        where = f"{name}, killed {'after' if after else 'before'} {number}"
        run = await _judged(row, where, (case, before, reference), [Life(number, after=after), Life()])
        if run is None or index % again or not run.counted[1]:
            continue
        row.killed_again += 1
        second, later = dice.randint(1, run.counted[1]), dice.random() < 0.5
        where += f" and again {'after' if later else 'before'} {second}"
        lives = [Life(number, after=after), Life(second, after=later), Life()]
        await _judged(row, where, (case, before, reference), lives)
    return row


async def _judged(row: Row, where: str, what: tuple[Case, bytes, Run], lives: Sequence[Life]) -> Run | None:
    """Note how a run ended in the row; None where it did not end."""
    case, before, reference = what
    try:
        run = await _lived(case, before, lives, reference)
    except AssertionError as error:
        row.problems.append(f"{where} ({[life.cut for life in lives]}): {error}")
        return None
    wrong = problems(run, reference)
    row.problems += [f"{where} ({run.cuts}): {problem}" for problem in wrong]
    row.converged += not wrong
    row.repeated += (run.calls - reference.calls).total()
    return run


def row(name: str, again: int = 8) -> Row:
    """Kill the control plane at every step of an operation, once before and once after it took effect.

    After every `again`-th of these kills the one that recovers is killed too.
    """
    return asyncio.run(_row(name, again))


def main() -> int:
    """Print the matrix, and whatever is wrong."""
    parser = argparse.ArgumentParser(prog="crash_matrix", description=__doc__)
    parser.add_argument("--again", type=int, default=1, help="after every how many kills there is a second one")
    again: int = parser.parse_args().again
    logging.disable(logging.WARNING)  # every kill leaves a few
    heads = f"{'kill points':>11} {'killed again':>12} {'converged':>9} {'repeated steps':>14}"
    sys.stdout.write(f"{'operation':20} {heads}\n")
    wrong: list[str] = []
    for name in CASES:
        found = row(name, again)
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        wrong += found.problems
    sys.stdout.writelines(f"{problem}\n" for problem in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
