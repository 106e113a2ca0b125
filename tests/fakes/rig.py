"""A whole control plane over fakes: what the tests of the loop and of the API drive."""

from collections.abc import Iterable, Mapping

from fastapi import FastAPI

from control_plane.adapters.slice_fleet import SliceFleet
from control_plane.api import Access, Parts, create_app
from control_plane.deployments import Deployments, FleetView
from control_plane.executor import Executor
from control_plane.fleet_view import fleet_view
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.reconciler import Reconciler, Timing, World
from control_plane.slicer import Slicer, SlicerParts
from control_plane.state import Deployment, Published, PublishedModel, Server
from tests.fakes.node import FakeNode, FakeSliceStore
from tests.fakes.operations import FakeOperationStore
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeClock, FakeFleet, FakeStore, a_package, a_server

PACKAGES = (a_package("a", (1, 2)), a_package("b"), a_package("e", members=("a", "b")), a_package("unbuilt", ()))


class Rig:
    """Servers that are up, a repository of a, b and the ensemble e, and a clock that stands still."""

    def __init__(
        self,
        *servers: Server,
        packages: tuple[PublishedModel, ...] = PACKAGES,
        gpus: tuple[str, ...] = (),
        warm: Mapping[str, int] | None = None,
    ) -> None:
        self.warm = dict(warm or {})
        self.servers = servers or (() if gpus else (a_server(),))
        models = {it.name: FakeModel(it.versions, it.at(it.newest).members) for it in packages}
        self.triton = FakeTriton({str(name): model for name, model in models.items()})
        for server in self.servers:
            self.triton.start(server)
        self.catalogue, self.store, self.clock = FakeCatalogue(*packages), FakeStore(), FakeClock()
        self.nodes = [FakeNode(self.triton, *it.split(","), name=f"n{number}") for number, it in enumerate(gpus)]
        self.slices, self.metrics = FakeSliceStore(), Metrics()
        self.fleet = FakeFleet(*self.servers)
        self.operations = FakeOperationStore()
        self.journal = Journal(self.operations, self.clock)
        self.begin()

    def begin(self) -> None:
        """Begin a life of the control plane over all that is there."""
        fleet: FakeFleet | SliceFleet = self.fleet
        self.slicer: Slicer | None = None
        if self.nodes:
            sliced = SliceFleet(self.nodes)
            parts = SlicerParts(
                tuple(self.nodes),
                self.slices,
                self.catalogue,
                sliced,
                self.clock,
                warm=self.warm,
                jitter=lambda: 0.0,
            )
            fleet, self.slicer = sliced, Slicer(parts)
        world = World(self.store, self.catalogue, fleet, self.triton, self.journal, None, self.slicer)
        timing = Timing(interval_s=0.1 if self.nodes else 5.0, now=self.clock, jitter=lambda: 0.0)
        self.loop = Reconciler(world, Executor(self.triton, self.catalogue, fleet), self.metrics, timing)
        self.deployments = Deployments(
            self.store, self.catalogue, self.clock, self.loop.wake, self._fleet_view, self.journal.announce
        )

    def _fleet_view(self, deployments: Iterable[Deployment], published: Published) -> FleetView:
        return fleet_view(self.loop.view, self.slicer, deployments, published)

    async def rest(self, passes: int = 30) -> None:
        """Run passes, with time going on, until slices are as they should be and there is nothing to do."""
        assert self.slicer is not None
        for _ in range(passes):
            plan = await self.loop.run_pass()
            await self.loop.executions_ended()
            await self.slicer.work_ended()
            self.clock.move(2)
            kept = self.slices.kept.values()
            there = {server for node in self.nodes for server in node.servers}
            settled = all(not it.leaving and it.server in there for it in kept)
            if settled and not plan.steps and not plan.waiting:
                return
        raise AssertionError("the slices do not come to rest")

    def app(self, access: Access | None = None) -> FastAPI:
        """Return the API over all this."""
        parts = Parts(
            deployments=self.deployments,
            reconciler=self.loop,
            journal=self.journal,
            catalogue=self.catalogue,
            fleet=self.fleet,
            store=self.store,
            metrics=self.metrics,
            now=self.clock,
            interval_s=5.0,
            slicer=self.slicer,
        )
        return create_app(parts, access or Access())

    async def settle(self, passes: int = 6) -> None:
        """Run passes, each carried out in full, until there is nothing to do."""
        for _ in range(passes):
            if not (await self.loop.run_pass()).steps:
                return
            await self.loop.executions_ended()
        raise AssertionError("the loop does not come to rest")

    def ready(self, server: Server | None = None) -> set[str]:
        """List what a server has ready, as model:version."""
        rows = self.triton.processes[(server or self.servers[0]).id].rows
        return {f"{name}:{version}" for (name, version), (state, _) in rows.items() if state == "READY"}
