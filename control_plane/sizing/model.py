"""The words of fleet sizing: what is asked for, what was measured, what may be used, and the answer. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NewType

from control_plane.mig import Placement, Product, Rules, SliceKind

Model = NewType("Model", str)


@dataclass(frozen=True, slots=True)
class Demand:
    """What must be served: requests per second of a model, each within `latency_s`, from so many GPUs at least."""

    name: str
    model: Model
    rate: float
    latency_s: float
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """How a slice was measured: with batches of this size and so many processes (or instances) of the model on it.

    `throughput` is requests per second of the whole slice, `latency_s` seconds for each request.
    """

    kind: SliceKind
    batch_size: int
    processes: int
    throughput: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """Which measured points may be used, and how GPUs may be cut.

    A point is admitted where its latency is below `latency_part` of the objective: a request that just missed a batch
    waits for one more, and queues need room. `rules` say which profiles may stand where.
    """

    latency_part: float = 0.45
    rules: Mapping[str, Rules] = field(default_factory=dict)

    def rules_of(self, product: Product) -> Rules:
        """Return how a product may be cut: by its plain profiles where nothing is said."""
        return self.rules.get(product.name, Rules(frozenset(product.plain)))


@dataclass(frozen=True, slots=True)
class Offer:
    """GPUs of a product that may be had, and what one costs, in whatever unit; the least cost is looked for."""

    product: Product
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class Replica:
    """A demand's share of the load on one slice, and the point to run it at."""

    demand: str
    model: Model
    placement: Placement
    point: OperatingPoint
    rate: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of the answer, with what runs on each of its slices, by start."""

    product: str
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A demand that nothing on offer can serve, and why."""

    demand: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sizing:
    """The answer: GPUs, what they cost, the least that any answer can cost, and what cannot be served at all."""

    gpus: tuple[Gpu, ...] = ()
    cost: float = 0.0
    bound: float = 0.0
    refused: tuple[Refused, ...] = ()

    @property
    def gap(self) -> float:
        """How far the cost may be above the least one, as a part of the bound; 0 is proved."""
        return (self.cost - self.bound) / self.bound if self.bound else 0.0


def best_points(
    demand: Demand, points: Iterable[OperatingPoint], admission: Admission, usable: Iterable[SliceKind]
) -> dict[SliceKind, OperatingPoint] | Refused:
    """Return the admitted point of most throughput for each kind of slice: of equal ones the faster, then the smaller.

    Refused where there is none: with the best latency that was measured.
    """
    kinds, limit = frozenset(usable), demand.latency_s * admission.latency_part
    found: dict[SliceKind, OperatingPoint] = {}
    measured = [it for it in points if it.kind in kinds and it.throughput > 0]
    for point in measured:
        if point.latency_s < limit and (point.kind not in found or _better(point, found[point.kind])):
            found[point.kind] = point
    if found:
        return dict(sorted(found.items()))
    if not measured:
        return Refused(demand.name, f"nothing was measured of model '{demand.model}' on any slice on offer")
    best = min(it.latency_s for it in measured)
    told = f"{limit * 1000:g} ms are allowed ({admission.latency_part:g} of its objective)"
    return Refused(demand.name, f"the best latency of '{demand.model}' is {best * 1000:g} ms; {told}")


def _better(one: OperatingPoint, other: OperatingPoint) -> bool:
    return _rank(one) > _rank(other)


def _rank(point: OperatingPoint) -> tuple[float, float, int, int]:
    return point.throughput, -point.latency_s, -point.processes, -point.batch_size
