"""A whole control plane over fakes: what the tests of the loop and of the API drive."""

from collections.abc import Iterable

from fastapi import FastAPI

from control_plane.api import Access, Parts, create_app
from control_plane.deployments import Deployments, FleetView
from control_plane.executor import Executor
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.reconciler import Reconciler, Timing, World
from control_plane.state import Deployment, Published, PublishedModel, Server
from tests.fakes.operations import FakeOperationStore
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeClock, FakeFleet, FakeStore, a_package, a_server

PACKAGES = (a_package("a", (1, 2)), a_package("b"), a_package("e", members=("a", "b")), a_package("unbuilt", ()))


class Rig:
    """Servers that are up, a repository of a, b and the ensemble e, and a clock that stands still."""

    def __init__(self, *servers: Server, packages: tuple[PublishedModel, ...] = PACKAGES) -> None:
        self.servers = servers or (a_server(),)
        models = {it.name: FakeModel(it.versions, it.at(it.newest).members) for it in packages}
        self.triton = FakeTriton({str(name): model for name, model in models.items()})
        for server in self.servers:
            self.triton.start(server)
        self.catalogue, self.store, self.clock = FakeCatalogue(*packages), FakeStore(), FakeClock()
        self.fleet, self.metrics = FakeFleet(*self.servers), Metrics()
        self.operations = FakeOperationStore()
        self.journal = Journal(self.operations, self.clock)
        world = World(self.store, self.catalogue, self.fleet, self.triton, self.journal)
        timing = Timing(interval_s=5.0, now=self.clock, jitter=lambda: 0.0)
        self.loop = Reconciler(world, Executor(self.triton, self.catalogue, self.fleet), self.metrics, timing)
        self.deployments = Deployments(
            self.store, self.catalogue, self.clock, self.loop.wake, self._fleet_view, self.journal.announce
        )

    def _fleet_view(self, _deployments: Iterable[Deployment], _published: Published) -> FleetView:
        return FleetView(self.loop.view.observed, self.loop.view.plan.placement.places())

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
