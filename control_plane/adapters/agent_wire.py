"""What an agent and the control plane say to each other: JSON of the words of `nodes`, and errors by their names.

`agent_node` asks, `node.agent` answers; both take every form from here.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from control_plane import errors
from control_plane.errors import ControlPlaneError, NoSpaceError, RetryableError
from control_plane.mig import Placement
from control_plane.mig import host as gpu_errors
from control_plane.nodes import NodeSlice, NodeView
from control_plane.planning.retention import Installed
from control_plane.slicing import GpuId, Seat
from control_plane.state import ModelName, Pin, Server, ServerId

VIEWS = TypeAdapter(NodeView)
SERVERS = TypeAdapter(Server)
INSTALLED = TypeAdapter(tuple[Installed, ...])


class AgentError(RetryableError):
    """An agent answered with what it should never answer, or with an error that has no name here."""


class SliceBody(BaseModel):
    """A slice: the GPU's UUID, the start in memory slices, and the key of its profile."""

    model_config = ConfigDict(extra="forbid")

    gpu: str
    start: int
    profile: str

    def of(self, server: str) -> NodeSlice:
        """Return the slice with its server."""
        return NodeSlice(ServerId(server), Seat(GpuId(self.gpu), Placement(self.start, self.profile)))

    @classmethod
    def to(cls, wanted: NodeSlice) -> "SliceBody":
        """Return the body that says which slice is meant."""
        return cls(gpu=wanted.seat.gpu, start=wanted.seat.placement.start, profile=wanted.seat.placement.profile)


class PinBody(BaseModel):
    """A version."""

    model_config = ConfigDict(extra="forbid")

    model: str
    version: int

    @property
    def pin(self) -> Pin:
        """Return it."""
        return Pin(ModelName(self.model), self.version)


class NeededBody(BaseModel):
    """Versions that are needed now."""

    model_config = ConfigDict(extra="forbid")

    pins: list[PinBody]


class HeldBody(PinBody):
    """A version with the digest of each of its files, by their path in the package."""

    files: dict[str, str]


class RestartBody(BaseModel):
    """Why a server is started again."""

    model_config = ConfigDict(extra="forbid")

    reason: str


class ErrorBody(BaseModel):
    """An error: the name of its class, and the sentence."""

    error: str
    detail: str
    bytes_short: int = 0


def _named() -> dict[str, type[ControlPlaneError]]:
    found = (it for module in (errors, gpu_errors) for it in vars(module).values())
    return {it.__name__: it for it in found if isinstance(it, type) and issubclass(it, ControlPlaneError)}


_NAMED = _named()


def told(error: ControlPlaneError) -> ErrorBody:
    """Return an error as it is sent: under the name of the nearest class that the other side knows."""
    name = next(it.__name__ for it in type(error).__mro__ if it.__name__ in _NAMED)
    short = error.bytes_short if isinstance(error, NoSpaceError) else 0
    return ErrorBody(error=name, detail=str(error), bytes_short=short)


def heard(body: Any, where: str) -> ControlPlaneError:  # noqa: ANN401 - whatever the other side sent
    """Return the error that was sent."""
    try:
        said = ErrorBody.model_validate(body)
    except ValueError:
        return AgentError(f"{where} answered with something else than its API: is it a Tritonfleet agent?")
    if said.error == NoSpaceError.__name__:
        return NoSpaceError(said.detail, bytes_short=said.bytes_short)
    return _NAMED.get(said.error, AgentError)(said.detail)
