"""Live placement: which slice of which GPU holds which replica, and the steps from what is there to that.

`model` has the words, `steps` the changes and what each leaves behind. Pure, but for the solver.
"""

from control_plane.slicing.model import (
    Choice,
    Cost,
    Fleet,
    FleetGpu,
    GpuId,
    Rejection,
    ReplicaId,
    Seat,
    Slice,
    Target,
    Wanted,
    Weights,
)
from control_plane.slicing.steps import Create, Destroy, Place, Remove, Step, StepError, after
from control_plane.wanted import Domain

__all__ = [
    "Choice",
    "Cost",
    "Create",
    "Destroy",
    "Domain",
    "Fleet",
    "FleetGpu",
    "GpuId",
    "Place",
    "Rejection",
    "Remove",
    "ReplicaId",
    "Seat",
    "Slice",
    "Step",
    "StepError",
    "Target",
    "Wanted",
    "Weights",
    "after",
]
