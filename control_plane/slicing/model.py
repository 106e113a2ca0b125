"""The words of live placement: GPUs that are cut and what holds their slices, replicas that are wanted, and weights.

Pure. A replica is one deployment's version on one slice, which it has for itself: what two models on one slice do to
each other's latency is not measured. Which slices can hold it (memory, engine, latency) is settled before, as choices.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NewType

from control_plane.mig import Geometry, Placement, Product, SliceKind
from control_plane.wanted import Domain

GpuId = NewType("GpuId", str)
"""The UUID that the driver gives a GPU."""
ReplicaId = NewType("ReplicaId", str)


@dataclass(frozen=True, slots=True)
class Choice:
    """A kind of slice that can hold a replica.

    `risk` is that of its tail latency there, 0 to 1: the measured p99 as a part of the objective, say.
    """

    kind: SliceKind
    risk: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A replica that is to have a slice.

    `group` are those that `spread` keeps apart. `value` weighs its rejection, `move_cost` its move: 0 is a slice kept
    warm, which holds nothing that would have to be loaded.
    """

    id: ReplicaId
    choices: tuple[Choice, ...]
    group: str = ""
    spread: Domain = Domain.NONE
    value: float = 1.0
    move_cost: float = 1.0

    def choice_of(self, kind: SliceKind) -> Choice | None:
        """Return its choice of this kind of slice; None where that cannot hold it."""
        return next((it for it in self.choices if it.kind == kind), None)


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """A GPU instance that is there, and the replica on it; None where nothing is."""

    placement: Placement
    replica: ReplicaId | None = None


@dataclass(frozen=True)
class FleetGpu:
    """A GPU and its slices, by start.

    What is on one that is not `usable` is lost; one that is `cordoned` keeps what it has, and gets nothing new.
    """

    id: GpuId
    product: Product
    slices: tuple[Slice, ...] = ()
    node: str = ""
    zone: str = ""
    usable: bool = True
    cordoned: bool = False

    @property
    def geometry(self) -> Geometry:
        """Its placements, by start."""
        return tuple(it.placement for it in self.slices)

    def domain(self, kind: Domain) -> str:
        """Return the name of what it fails together with; empty for none."""
        match kind:
            case Domain.NONE:
                return ""
            case Domain.GPU:
                return self.id
            case Domain.NODE:
                return self.node
            case Domain.ZONE:
                return self.zone


@dataclass(frozen=True, slots=True, order=True)
class Seat:
    """A slice, by where it is."""

    gpu: GpuId
    placement: Placement


@dataclass(frozen=True)
class Fleet:
    """The GPUs, by id."""

    gpus: tuple[FleetGpu, ...] = ()

    @classmethod
    def of(cls, gpus: Iterable[FleetGpu]) -> "Fleet":
        """Return a fleet in canonical order."""
        return cls(tuple(sorted(gpus, key=lambda it: it.id)))

    @cached_property
    def by_id(self) -> Mapping[GpuId, FleetGpu]:
        """The GPUs, by id."""
        return {gpu.id: gpu for gpu in self.gpus}

    @cached_property
    def seats(self) -> Mapping[ReplicaId, tuple[Seat, ...]]:
        """Where each replica is: on one slice, or on two while it moves."""
        found: dict[ReplicaId, list[Seat]] = {}
        for seat, replica in self.taken():
            found.setdefault(replica, []).append(seat)
        return {replica: tuple(seats) for replica, seats in found.items()}

    def taken(self) -> Iterator[tuple[Seat, ReplicaId]]:
        """Yield every slice that holds a replica."""
        for gpu in self.gpus:
            for it in gpu.slices:
                if it.replica is not None:
                    yield Seat(gpu.id, it.placement), it.replica


@dataclass(frozen=True, slots=True)
class Weights:
    """What is bad, by how much: what is planned is the least of the sum.

    `rejection` is of each replica without a slice, times its value; `gpu` of each GPU that holds any; `move` of each
    replica that changes its slice, times its move cost; `risk` times that of each choice; `fragmentation` of the places
    that no longer fit (`openness`), as a part of those of an empty GPU.
    """

    rejection: float = 1000.0
    gpu: float = 10.0
    move: float = 1.0
    risk: float = 1.0
    fragmentation: float = 0.1


@dataclass(frozen=True, slots=True)
class Rejection:
    """A replica that got no slice, why, and the smallest change that would give it one."""

    replica: ReplicaId
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an assignment comes to, by what it is made of; each already weighed."""

    rejection: float = 0.0
    gpus: float = 0.0
    moves: float = 0.0
    risk: float = 0.0
    fragmentation: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.rejection + self.gpus + self.moves + self.risk + self.fragmentation


NO_SEATS: Mapping[ReplicaId, Seat] = {}


@dataclass(frozen=True)
class Target:
    """Which replica is to be where in the end, those without a place, and the least that any answer can cost.

    `bound` is None where nobody looked for one.
    """

    seats: Mapping[ReplicaId, Seat] = field(default_factory=dict)
    rejected: tuple[Rejection, ...] = ()
    bound: float | None = None
