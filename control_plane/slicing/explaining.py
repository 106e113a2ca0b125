"""Why a replica is where it is and not elsewhere, and what would give a rejected one a place. Pure; for people.

Asked of the fleet as it is, so the answer holds for what stands there now, and not for the moment of its placing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from control_plane.mig import Product
from control_plane.slicing.arrival import Way, cleared, ways
from control_plane.slicing.board import Board, kind_of
from control_plane.slicing.model import Fleet, FleetGpu, GpuId, Rejection, ReplicaId, Seat, Wanted, Weights
from control_plane.slicing.steps import Place

_MOVES_TRIED = 4
"""Moves that a remedy may need; one that needs more helps nobody."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A GPU that a replica is not on, and why."""

    gpu: GpuId
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a replica is (None: nowhere), why, why nowhere else, and what would give it a place if it has none."""

    replica: ReplicaId
    seat: Seat | None
    reason: str
    elsewhere: tuple[Elsewhere, ...] = ()
    remedy: str = ""


def explain(fleet: Fleet, wanted: Iterable[Wanted], replica: ReplicaId, weights: Weights | None = None) -> Explanation:
    """Explain one replica of those wanted. KeyError where it is not wanted."""
    asked = {it.id: it for it in wanted}
    given, board, it = weights or Weights(), Board(fleet, asked), asked[replica]
    seat = board.seats.get(replica)
    if seat is not None:
        board.take(replica)
    told = tuple(
        Elsewhere(gpu.id, _why_not_there(board, it, gpu, given, seat))
        for gpu in fleet.gpus
        if seat is None or gpu.id != seat.gpu
    )
    if seat is None:
        return Explanation(replica, None, "It has no slice.", told, remedy(board, it, given))
    gpu = board.gpu(seat.gpu)
    kind = kind_of(gpu, seat.placement)
    choice = it.choice_of(kind)
    if choice is None:
        why = f"It was placed there before; {name(gpu.product, seat.placement.profile)} can hold it no more."
        return Explanation(replica, seat, why, told)
    loss = board.shapes.loss(gpu.product, board.geometry(gpu.id), seat.placement)
    why = f"{name(gpu.product, kind.profile)} can hold it{_risk(choice.risk)}"
    return Explanation(replica, seat, f"{why}, and there it takes {loss:.0%} of its GPU's room for others.", told)


def remedy(board: Board, wanted: Wanted, weights: Weights) -> str:
    """Return the smallest change that would give a replica a place: moves, or what would have to be there."""
    for way in ways(board, wanted, weights, _MOVES_TRIED)[:50]:
        moves = _moves(board, wanted, way, weights)
        if moves is not None:
            what = name(board.gpu(way.seat.gpu).product, way.seat.placement.profile)
            return f"one {what} more, free by moving {' and '.join(moves)}"
    if not wanted.choices:
        return ""
    smallest = min(wanted.choices, key=lambda it: (it.risk, it.kind))
    gpus = [board.gpu(gpu) for gpu in board.gpus() if board.gpu(gpu).product.name == smallest.kind.product]
    apart = [gpu for gpu in gpus if board.forbids(wanted, gpu.id)]
    where = f" on another {wanted.spread}" if apart and len(apart) == len(gpus) else ""
    what = name(gpus[0].product, smallest.kind.profile) if gpus else smallest.kind.profile
    return f"one {what} of {smallest.kind.product} more{where}, which no moves can free"


def with_remedies(
    board: Board, rejected: Iterable[Rejection], wanted: Mapping[ReplicaId, Wanted], weights: Weights
) -> tuple[Rejection, ...]:
    """Return the rejections with what would help each; those that ask for the same are looked at once."""
    known: dict[object, str] = {}
    told = []
    for it in rejected:
        asked = wanted[it.replica]
        key = asked.choices, asked.spread, asked.group if asked.spread.value != "none" else ""
        if key not in known:
            known[key] = remedy(board, asked, weights)
        told.append(Rejection(it.replica, it.reason, known[key]))
    return tuple(told)


def name(product: Product, profile: str) -> str:
    """Return the published name of a profile ("2g.20gb")."""
    return product.profiles[profile].name if profile in product.profiles else profile


def _moves(board: Board, wanted: Wanted, way: Way, weights: Weights) -> list[str] | None:
    with board.attempt():
        steps = cleared(board, wanted, way, weights, _MOVES_TRIED)
        if steps is None:
            return None
        return [
            f"{it.replica} to {it.seat.gpu} ({name(board.gpu(it.seat.gpu).product, it.seat.placement.profile)})"
            for it in steps
            if isinstance(it, Place)
        ]


def _why_not_there(board: Board, wanted: Wanted, gpu: FleetGpu, weights: Weights, seat: Seat | None) -> str:
    if why := _barred(board, wanted, gpu):
        return why
    choices = [it for it in wanted.choices if it.kind.product == gpu.product.name]
    free = board.shapes.of(gpu.product, board.geometry(gpu.id)).free
    places = [(Seat(gpu.id, it), choice.risk) for choice in choices for it in free.get(choice.kind.profile, ())]
    if not places:
        kinds = sorted({name(gpu.product, it.kind.profile) for it in choices})
        return f"has no room for {' or '.join(kinds)}: holds {_holds(board, gpu)}"
    if seat is None:
        return "would take it now"
    chosen = board.gpu(seat.gpu)
    own = wanted.choice_of(kind_of(chosen, seat.placement))
    here = _cost(board, seat, own.risk if own is not None else 0.0, weights)
    there = min(_cost(board, place, risk, weights) for place, risk in places)
    if not board.residents(gpu.id) and board.residents(chosen.id):
        return "would take it, and is empty: one GPU more would be in use"
    if there > here:
        return f"would take it, and it would cost others more room or risk it latency ({there - here:+.3f})"
    return "would take it as well" if there == here else "would take it better by now, not worth a move"


def _barred(board: Board, wanted: Wanted, gpu: FleetGpu) -> str:
    """Why a GPU is out of the question, whatever is free on it; empty where it is not."""
    if not gpu.usable or gpu.cordoned:
        return "cannot be used" if not gpu.usable else "keeps what it has, and gets nothing new for now"
    products = sorted({it.kind.product for it in wanted.choices})
    if gpu.product.name not in products:
        return f"is a {gpu.product.name}; it needs {' or '.join(products)}" if products else "no slice can hold it"
    return board.forbids(wanted, gpu.id)


def _cost(board: Board, seat: Seat, risk: float, weights: Weights) -> float:
    """Return what a free place costs, as `arrival.best_place` weighs it."""
    geometry = board.geometry(seat.gpu)
    loss = board.shapes.loss(board.gpu(seat.gpu).product, geometry, seat.placement)
    return round(weights.gpu * (not geometry) + weights.risk * risk + weights.fragmentation * loss, 9)


def _holds(board: Board, gpu: FleetGpu) -> str:
    residents = sorted(board.residents(gpu.id).items())
    return ", ".join(f"{replica} on {name(gpu.product, it.profile)}" for it, replica in residents) or "nothing"


def _risk(risk: float) -> str:
    return f", at {risk:.0%} of its latency objective" if risk else ""
