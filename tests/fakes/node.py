"""A `GpuNode` in memory: GPUs whose slices are legal by the data, with servers that `FakeTriton` starts."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from control_plane.errors import ServerUnreachableError
from control_plane.mig import Placement, illegality, products
from control_plane.mig.host import DriverError, GpuError, GpuInstance, HostGpu, PlacementTakenError
from control_plane.nodes import NodeSlice, NodeView
from control_plane.ports import ServerLog
from control_plane.slicing.records import SliceRecord
from control_plane.state import ModelState, Server, ServerId
from tests.fakes.triton import FakeTriton
from tests.fakes.world import a_server


class FakeNode:
    """GPUs of these products; what is cut lives on over control planes. `away` and `refuses` are switches."""

    def __init__(self, triton: FakeTriton, *gpus: str, name: str = "n") -> None:
        self.name, self._triton = name, triton
        self.gpus = [HostGpu(f"GPU-{name}-{number}", it, products()[it], mig=True) for number, it in enumerate(gpus)]
        self.servers: dict[ServerId, Server] = {}
        self.away = False
        self.refuses: set[str] = set()
        self.calls: list[str] = []

    async def look(self) -> NodeView:
        if self.away:
            raise ServerUnreachableError(f"{self.name} is off")
        return NodeView(tuple(self.gpus), a_server("", None), dict(self.servers), triton_version="2.51.0")

    async def create(self, wanted: NodeSlice) -> Server:
        index, gpu = self._gpu(wanted)
        placement = wanted.seat.placement
        if gpu.uuid in self.refuses:
            raise DriverError(f"{gpu.uuid} will not be cut")
        if placement not in gpu.geometry:
            if why := illegality(gpu.product, [*gpu.geometry, placement]):
                raise PlacementTakenError(why)
            number = max((it.id for it in gpu.instances), default=0) + 1
            made = GpuInstance(number, placement, 1, f"MIG-{gpu.uuid}-{placement.start}", (100 + number,))
            self.gpus[index] = replace(gpu, instances=(*gpu.instances, made))
        if wanted.server not in self.servers:
            self.calls.append(f"create {wanted.server}")
            self.servers[wanted.server] = a_server(wanted.server)
            self._triton.start(self.servers[wanted.server])
        return self.servers[wanted.server]

    async def destroy(self, left: NodeSlice) -> None:
        index, gpu = self._gpu(left)
        self.calls.append(f"destroy {left.server}")
        server = self.servers.pop(left.server, None)
        if server is not None:
            rows = self._triton.processes.pop(server.id).rows.values()
            assert all(state is not ModelState.READY for state, _ in rows), "a server in use was given up"
        there = tuple(it for it in gpu.instances if it.placement != left.seat.placement)
        self.gpus[index] = replace(gpu, instances=there)

    async def restart(self, server: ServerId, reason: str) -> bool:
        del reason
        return server in self.servers

    def log_of(self, server: ServerId) -> ServerLog | None:
        del server
        return None

    def note(self, server: ServerId) -> str:
        del server
        return ""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        del changed
        return lambda: None

    def cut(self, *placements: tuple[str, int], gpu: int = 0) -> None:
        """Cut slices by hand, with somebody on them."""
        made = tuple(
            GpuInstance(50 + number, Placement(start, profile), 1, f"MIG-by-hand-{number}", (4711,))
            for number, (profile, start) in enumerate(placements)
        )
        self.gpus[gpu] = replace(self.gpus[gpu], instances=made)

    def _gpu(self, wanted: NodeSlice) -> tuple[int, HostGpu]:
        for index, gpu in enumerate(self.gpus):
            if gpu.uuid == wanted.seat.gpu:
                return index, gpu
        raise GpuError(f"there is no GPU {wanted.seat.gpu}")


class FakeSliceStore:
    """A `SliceStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[ServerId, SliceRecord] = {}

    async def slices(self) -> tuple[SliceRecord, ...]:
        return tuple(it for _, it in sorted(self.kept.items()))

    async def write_slices(self, changed: Iterable[SliceRecord], dropped: Iterable[ServerId] = ()) -> None:
        for server in dropped:
            self.kept.pop(server, None)
        for it in changed:
            self.kept[it.server] = it
