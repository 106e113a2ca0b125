"""Steps: what each leaves behind, and which are refused."""

import pytest

from control_plane.mig import Placement, products
from control_plane.slicing import (
    Create,
    Destroy,
    Fleet,
    FleetGpu,
    GpuId,
    Place,
    Remove,
    ReplicaId,
    Seat,
    Slice,
    Step,
    StepError,
    after,
)

GPU = GpuId("GPU-a")
A, B = ReplicaId("a"), ReplicaId("b")
SMALL, HALF = Seat(GPU, Placement(0, "1g")), Seat(GPU, Placement(4, "3g"))


def fleet(*slices: Slice) -> Fleet:
    return Fleet.of([FleetGpu(GPU, products()["h100-80gb"], slices)])


def test_a_replica_moves_by_standing_twice_for_a_while() -> None:
    begun = fleet(Slice(SMALL.placement, A))
    moving = after(begun, [Create(HALF), Place(HALF, A)])
    assert moving.seats[A] == (SMALL, HALF)
    ended = after(moving, [Remove(SMALL, A), Destroy(SMALL)])
    assert ended == fleet(Slice(HALF.placement, A))


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Create(Seat(GPU, Placement(0, "3g"))), "cannot be created: 1g at 0 overlaps 3g at 0"),
        (Create(Seat(GpuId("GPU-b"), Placement(0, "3g"))), "there is no GPU GPU-b"),
        (Place(HALF, B), "is not there"),
        (Place(SMALL, B), "holds a already"),
        (Remove(SMALL, B), "does not hold b"),
        (Destroy(SMALL), "holds a"),
    ],
)
def test_a_step_that_cannot_be_done_is_refused(step: Step, why: str) -> None:
    with pytest.raises(StepError, match=why):
        after(fleet(Slice(SMALL.placement, A)), [step])
