"""The GPUs of one host as its driver tells them, and the port through which they are cut.

What the driver says wins over the data of this package: its profiles, their placements, memory and multiprocessors. All
calls of a `MigHost` block for as long as the driver takes: for a thread.
"""

from dataclasses import dataclass
from typing import Protocol

from control_plane.errors import ControlPlaneError, PermanentError, RetryableError
from control_plane.mig.geometry import Geometry, Placement
from control_plane.mig.products import Product


class GpuError(ControlPlaneError):
    """The driver could not do what was asked. `str()` names the GPU, and the driver's own word."""


class NoDriverError(PermanentError, GpuError):
    """There is no NVIDIA driver, or no library that speaks to it."""


class PlacementTakenError(PermanentError, GpuError):
    """A GPU instance does not fit there: something stands there already, or the GPU has no more of that kind."""


class InstanceInUseError(RetryableError, GpuError):
    """A process uses the instance, or the GPU; it goes once that has ended."""


class NoInstanceError(PermanentError, GpuError):
    """There is no such GPU or GPU instance any more."""


class DriverError(RetryableError, GpuError):
    """Any other trouble of the driver's."""


@dataclass(frozen=True, slots=True)
class GpuInstance:
    """A GPU instance that is there. `uuid` is its MIG device's, empty without a compute instance.

    `processes` are the pids that use it.
    """

    id: int
    placement: Placement
    memory_slices: int
    uuid: str = ""
    processes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostGpu:
    """One GPU: what it is by its driver, whether it is cut, and into what.

    `mig_pending` is the mode that it has after its next reset. `processes` use the whole card.
    """

    uuid: str
    name: str
    product: Product
    mig: bool = False
    mig_pending: bool = False
    instances: tuple[GpuInstance, ...] = ()
    processes: tuple[int, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """Its placements, by start."""
        return tuple(sorted(it.placement for it in self.instances))


class MigHost(Protocol):
    """The GPUs of this host."""

    def gpus(self) -> tuple[HostGpu, ...]:
        """Read every GPU, by index. Raises GpuError."""

    def create(self, gpu: str, placement: Placement) -> GpuInstance:
        """Cut a GPU instance, with one compute instance over all of it, on the GPU with this UUID.

        Raises PlacementTakenError where it does not fit, NoInstanceError, DriverError; then nothing of it is left.
        """

    def destroy(self, gpu: str, instance: int) -> None:
        """Remove a GPU instance with its compute instances. Raises InstanceInUseError, NoInstanceError, DriverError."""

    def set_mig(self, gpu: str, *, enabled: bool) -> bool:
        """Ask for MIG to be on or off; returns whether that holds now, and not only after a reset of the GPU.

        Raises InstanceInUseError while a process uses the GPU, or it has instances; DriverError.
        """
