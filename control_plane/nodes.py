"""What the control plane needs of a machine with GPUs: to see them, to have slices cut with a server on each.

`node` has the one on this machine; an agent on another machine is reached by `adapters`. All calls are idempotent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from control_plane.mig.host import HostGpu
from control_plane.ports import ServerLog
from control_plane.slicing import Seat
from control_plane.state import Server, ServerId


@dataclass(frozen=True, slots=True)
class NodeSlice:
    """A slice that is wanted, and the id of the server that is to run on it."""

    server: ServerId
    seat: Seat


@dataclass(frozen=True)
class NodeView:
    """What a node has: its GPUs, and the servers that run on their slices.

    `pattern` is the server that it would start on a slice, without ports. `simulated` are GPUs that run nothing: the
    servers on their slices run on the CPU. `triton_version` is that of the servers which it starts. One that
    `takes_versions` has a folder of its own, which versions are copied to.
    """

    gpus: tuple[HostGpu, ...]
    pattern: Server
    servers: Mapping[ServerId, Server] = field(default_factory=dict)
    zone: str = ""
    simulated: bool = False
    triton_version: str = ""
    takes_versions: bool = False


class GpuNode(Protocol):
    """One machine with GPUs."""

    @property
    def name(self) -> str:
        """What it is called; unique in the fleet."""

    async def look(self) -> NodeView:
        """Read the GPUs and what runs on them. Raises GpuError, ControlPlaneError where the node does not answer."""

    async def create(self, wanted: NodeSlice) -> Server:
        """Cut a slice where it is not there, run a server on it where none does, and wait until that answers.

        Raises PlacementTakenError while something is in its place, GpuError, ServerStartError.
        """

    async def destroy(self, left: NodeSlice) -> None:
        """Stop the server of a slice, if one runs, and give the slice's room back, if it is there.

        Raises InstanceInUseError while a process uses it, GpuError.
        """

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Kill a slice's server and start it again; False where there is none. Raises ControlPlaneError."""

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return a server's log, or None where it cannot be read from here."""

    def note(self, server: ServerId) -> str:
        """Say what is known of a server's process; empty where nothing is."""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called in the event loop when a server changes state. Call the result to end that."""
