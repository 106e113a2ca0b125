"""Putting a control plane together: the only place where adapters are made.

`serve` is what `tritonfleet serve` runs; the demo and the tests use `running_control_plane` in their own event loop.
What is begun is ended in reverse order, however the end comes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn, Self

from fastapi import FastAPI

from control_plane.adapters.agent_node import AgentNode
from control_plane.adapters.agent_placer import AgentPlacer, RoutedPlacer
from control_plane.adapters.dns import SystemResolver
from control_plane.adapters.local_fleet import LocalFleet
from control_plane.adapters.operation_store import SqlOperationStore
from control_plane.adapters.registered_fleet import RegisteredFleet, open_fleet
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.server_repository import ServerRepository
from control_plane.adapters.servers_file import ServersFile
from control_plane.adapters.signatures import SignatureCheck, open_signature_check
from control_plane.adapters.simulated_host import SimulatedHost
from control_plane.adapters.slice_fleet import SliceFleet, agent_location
from control_plane.adapters.slice_store import SqlSliceStore
from control_plane.adapters.store import SqlStore
from control_plane.adapters.transactions import Transactions, open_transactions
from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.answering import answer, listen, until_signalled, url_of
from control_plane.api import Access, Parts, create_app
from control_plane.deployments import Deployments, FleetView
from control_plane.discovery import Discovery, DiscoveryTiming
from control_plane.distribution import Distribution
from control_plane.embedded import EmbeddedFleet, ServerSpec
from control_plane.embedded.facts import host_facts
from control_plane.embedded.facts import memory_bytes as host_memory_bytes
from control_plane.errors import ControlPlaneError
from control_plane.executor import Executor
from control_plane.fleet_view import fleet_view as fleet_view_of
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.mig.products import gpu_counts
from control_plane.node import LocalNode, NodePlan
from control_plane.nodes import GpuNode
from control_plane.ports import Catalogue, Fleet, VersionPlacer
from control_plane.reconciler import Reconciler, Timing, World
from control_plane.settings import ENV_PREFIX, Settings
from control_plane.slicer import Slicer, SlicerParts, SliceServers
from control_plane.slicing.demand import POOL
from control_plane.state import Deployment, Published, ServerId
from control_plane.tidying import Tidier
from control_plane.tls import client_context

_PORTS_PER_SERVER = 3


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A control plane whose loop runs."""

    app: FastAPI
    deployments: Deployments
    reconciler: Reconciler
    metrics: Metrics
    loop: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class RunningControlPlane:
    """A control plane that answers at `url`, over embedded servers."""

    url: str
    fleet: EmbeddedFleet
    control: ControlPlane
    api: asyncio.Task[None]


@asynccontextmanager
async def build_control_plane(settings: Settings, fleet: Fleet) -> AsyncIterator[ControlPlane]:
    """Open the state file and run the loop over `fleet`.

    Raises StateFileLockedError, StateFileError, SettingsError, MissingExtraError.
    """
    signatures = _checked(settings)
    async with open_transactions(settings.state_path) as transactions:
        stores = _Stores.of(transactions)
        whole = await open_fleet(fleet, stores.deployments)
        async with _run_loop(settings, whole, stores, signatures) as control:
            yield control


@asynccontextmanager
async def running_control_plane(settings: Settings) -> AsyncIterator[RunningControlPlane]:
    """Run everything on this machine: embedded servers, the loop, and the API at its address.

    The address and the state file are taken before anything is started, so a second control plane starts nothing.
    Raises SettingsError, PortTakenError, StateFileLockedError, StateFileError, ServerStartError, MissingExtraError.
    """
    settings.validate_binding()
    signatures = _checked(settings)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listen(settings.host, settings.port, f"{ENV_PREFIX}PORT"))
        transactions = await stack.enter_async_context(open_transactions(settings.state_path))
        fleet = await stack.enter_async_context(EmbeddedFleet(_specs(settings)))
        nodes = await stack.enter_async_context(_nodes(settings))
        started = SliceFleet(nodes) if nodes else LocalFleet(fleet.servers())
        placer = stack.enter_context(_placer(settings))
        stores = replace(_Stores.of(transactions, nodes, started), placer=placer)
        whole = await open_fleet(started, stores.deployments)
        control = await stack.enter_async_context(_run_loop(settings, whole, stores, signatures))
        api = await stack.enter_async_context(answer(control.app, listener))
        yield RunningControlPlane(url_of("http", settings.host, listener), fleet, control, api)


async def serve(settings: Settings, started: Callable[[RunningControlPlane], None]) -> None:
    """Run until SIGTERM or SIGINT; `started` is called once everything answers.

    Raises like `running_control_plane`, and ControlPlaneError when the loop or the API ends by itself: whoever runs
    this process can start it again, which is better than one that stays and does nothing.
    """

    async def run() -> None:
        async with running_control_plane(settings) as running:
            started(running)
            await until_one_ends(running.control.loop, running.api)

    await until_signalled(run)


async def until_one_ends(*tasks: asyncio.Task[None]) -> NoReturn:
    """Wait for the end of one of `tasks`, which should run for as long as the process; raises ControlPlaneError."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    task = min(ended, key=asyncio.Task.get_name)
    error = None if task.cancelled() else task.exception()
    why = f": {type(error).__name__}: {error}" if error is not None else ""
    raise ControlPlaneError(f"The {task.get_name()} ended unexpectedly{why}. Start the control plane again.") from error


@dataclass(frozen=True, slots=True)
class _Stores:
    """All that is kept in the state file, the nodes with what their servers are told to, and what copies versions."""

    deployments: SqlStore
    operations: SqlOperationStore
    slices: SqlSliceStore
    nodes: tuple[GpuNode, ...] = ()
    servers: SliceServers | None = None
    placer: VersionPlacer = field(default_factory=ServerRepository)

    @classmethod
    def of(cls, transactions: Transactions, nodes: tuple[GpuNode, ...] = (), started: Fleet | None = None) -> Self:
        servers = started if isinstance(started, SliceFleet) else None
        return cls(SqlStore(transactions), SqlOperationStore(transactions), SqlSliceStore(transactions), nodes, servers)


@asynccontextmanager
async def _nodes(settings: Settings) -> AsyncIterator[tuple[GpuNode, ...]]:
    """Yield the nodes whose GPUs are cut for deployments: a simulated one on this machine, and those with an agent."""
    async with AsyncExitStack() as stack:
        nodes: list[GpuNode] = []
        if settings.simulate is not None:
            plan = NodePlan("local", settings.model_repository, settings.state_path.parent / "slices", simulated=True)
            host = SimulatedHost(gpu_counts(settings.simulate))
            nodes.append(await stack.enter_async_context(LocalNode(host, plan)))
        if agents := settings.agent_urls:
            context = client_context(settings.agent_files())
            for name, url in agents.items():
                node = AgentNode(name, url, context)
                stack.push_async_callback(node.close)
                nodes.append(node)
        yield tuple(nodes)


@asynccontextmanager
async def _run_loop(
    settings: Settings,
    fleet: RegisteredFleet,
    stores: _Stores,
    signatures: SignatureCheck | None,
) -> AsyncIterator[ControlPlane]:
    store, operations = stores.deployments, stores.operations
    catalogue = RepositoryFolder(settings.model_repository, signatures, settings.profiles)
    triton = GrpcTritonControl(fleet.log_of, Deadlines(load_s=settings.load_deadline_s))
    metrics = Metrics()
    timing = Timing(interval_s=settings.reconcile_interval_s)
    journal = Journal(operations, timing.now)
    journal.listen(metrics.operation)
    await journal.recover()
    distribution = Distribution(settings.model_repository, stores.placer, timing.now)
    slicer = _slicer(settings, stores, catalogue, fleet, timing) if stores.nodes else None
    world = World(store, catalogue, fleet, triton, journal, distribution, slicer)
    reconciler = Reconciler(world, Executor(triton, catalogue, fleet, distribution), metrics, timing)

    def fleet_view(wanted: Iterable[Deployment], published: Published) -> FleetView:
        return fleet_view_of(reconciler.view, slicer, wanted, published)

    deployments = Deployments(
        store,
        catalogue,
        timing.now,
        reconciler.wake,
        fleet_view,
        journal.announce,
    )
    parts = Parts(
        deployments,
        reconciler,
        journal,
        catalogue,
        fleet,
        store,
        metrics,
        timing.now,
        settings.reconcile_interval_s,
        slicer,
    )
    async with _found_servers(settings, fleet, metrics), _tidying(settings, slicer, timing, reconciler):
        loop = asyncio.create_task(reconciler.run(), name="reconciler")
        try:
            yield ControlPlane(create_app(parts, _access(settings)), deployments, reconciler, metrics, loop)
        finally:
            loop.cancel()
            await asyncio.wait({loop})
            await triton.close()


@asynccontextmanager
async def _tidying(
    settings: Settings, slicer: Slicer | None, timing: Timing, reconciler: Reconciler
) -> AsyncIterator[None]:
    """Have replicas moved together in quiet times, where that is asked for."""
    if slicer is None or settings.defragment_after_s is None:
        yield
        return
    tidier = Tidier(slicer, settings.defragment_after_s, timing.now, reconciler.wake)
    tidying = asyncio.create_task(tidier.run(), name="tidying")
    try:
        yield
    finally:
        tidying.cancel()
        await asyncio.wait({tidying})


@asynccontextmanager
async def _found_servers(settings: Settings, fleet: RegisteredFleet, metrics: Metrics) -> AsyncIterator[None]:
    """Follow the servers file, where there is one; what it says now is in the fleet when this is entered."""
    if settings.servers_file is None:
        yield
        return
    timing = DiscoveryTiming(settings.discovery_interval_s, settings.discovery_grace_s)
    with closing(SystemResolver()) as resolver:
        discovery = Discovery(ServersFile(settings.servers_file), resolver, fleet, metrics, timing)
        await discovery.look()
        looking = asyncio.create_task(discovery.run(), name="discovery")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})


@contextmanager
def _placer(settings: Settings) -> Iterator[VersionPlacer]:
    """Yield what copies versions: on this machine, and to agents that take them."""
    here = ServerRepository()
    if not settings.agent_urls:
        yield here
        return
    context = client_context(settings.agent_files())
    with ExitStack() as stack:
        agents: dict[str, VersionPlacer] = {}
        for name, url in settings.agent_urls.items():
            agents[agent_location(name)] = stack.enter_context(closing(AgentPlacer(name, url, context)))
        yield RoutedPlacer(here, agents)


def _slicer(
    settings: Settings, stores: _Stores, catalogue: Catalogue, fleet: RegisteredFleet, timing: Timing
) -> Slicer:
    assert stores.servers is not None  # noqa: S101 - where there are nodes, their servers are told to somebody

    def alone() -> bool:
        return all(server.pool == POOL for server in fleet.servers())

    return Slicer(
        SlicerParts(
            stores.nodes,
            stores.slices,
            catalogue,
            stores.servers,
            timing.now,
            alone,
            settings.moves_per_hour,
            settings.warm_counts,
        )
    )


def _checked(settings: Settings) -> SignatureCheck | None:
    """Refuse a servers file that is wrong from the start, and return the check of signatures that the policy asks for.

    Raises SettingsError, MissingExtraError.
    """
    if settings.servers_file is not None:
        ServersFile(settings.servers_file).read()
    settings.validate_signatures()
    if settings.signature_policy == "off" or settings.public_key is None:
        return None
    return open_signature_check(settings.public_key, required=settings.signature_policy == "require")


def _access(settings: Settings) -> Access:
    token = settings.token.get_secret_value() if settings.token is not None else None
    return Access(token=token or None, loopback_only=settings.is_loopback)


def _specs(settings: Settings) -> list[ServerSpec]:
    def port(first: int | None, index: int) -> int | None:
        return None if first is None else first + _PORTS_PER_SERVER * index

    memory_bytes = settings.server_memory_bytes
    if memory_bytes is None:  # what GPUs have, nobody tells yet
        memory_bytes = (
            0 if host_facts(None).compute_capabilities else host_memory_bytes() // max(1, settings.embedded_servers)
        )
    return [
        ServerSpec(
            id=ServerId(f"triton-{index}"),
            model_repository=settings.model_repository.resolve(),
            http_port=port(settings.triton_http_port, index),
            grpc_port=port(settings.triton_grpc_port, index),
            metrics_port=port(settings.triton_metrics_port, index),
            memory_bytes=memory_bytes,
        )
        for index in range(settings.embedded_servers)
    ]
