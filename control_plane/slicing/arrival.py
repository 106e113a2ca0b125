"""One replica that needs a slice: the best free place, or the fewest moves that make one. The fast path. Pure.

Of the free places that one is taken which leaves the most room for what is asked for (`openness`). Where there is none,
replicas that stand in the way move first, each to a free place of its own before its old slice is given up; nobody is
ever without a slice in between.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from control_plane.mig import Geometry, Placement, SliceKind, illegality
from control_plane.slicing.board import Board, Candidate
from control_plane.slicing.model import Choice, Rejection, ReplicaId, Seat, Wanted, Weights
from control_plane.slicing.steps import Place, Remove, Step

MOST_MOVES = 2
"""How many replicas may move for one, where nobody says otherwise."""
_TRIES = 60
"""Ways to make room that are tried for one replica, the cheapest first: what keeps the fast path fast."""
_OF_A_CLASS = 2
"""GPUs that are looked at of those cut and used alike: their replicas differ, but mostly not in where they can go."""
_NESTED_TRIES = 8
"""The same for one that stands in the way and has no free place itself."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A replica has a slice: where, by which steps, and who had to move for it."""

    replica: ReplicaId
    seat: Seat
    choice: Choice
    steps: tuple[Step, ...]
    moved: tuple[ReplicaId, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """A place that replicas stand in the way of: who they are, and what their moves cost."""

    seat: Seat
    choice: Choice
    leaving: tuple[ReplicaId, ...]
    cost: float


def place_arrival(
    board: Board, wanted: Wanted, weights: Weights | None = None, most_moves: int = MOST_MOVES, why: str = ""
) -> Arrival | Rejection:
    """Give a replica a slice, moving at most so many others; the board has it then.

    One that is on the board already, and has to leave its slice, gets a second one and then leaves the first. Where it
    is rejected, the board is as it was.
    """
    given, reason = weights or Weights(), why or "Of the places that are free, this one leaves the most room."
    best = best_place(board, wanted, given)
    if best is not None:
        return Arrival(wanted.id, best.seat, best.choice, steps_to(board, wanted, best.seat, reason))
    for moves in range(1, most_moves + 1):  # those that need the fewest first
        for way in islice(ways(board, wanted, given, moves), _TRIES):
            with board.attempt() as keep:
                before = cleared(board, wanted, way, given, moves)
                if before is not None:
                    keep()
                    moved = tuple(dict.fromkeys(it.replica for it in before if isinstance(it, Place)))
                    steps = (*before, *steps_to(board, wanted, way.seat, reason))
                    return Arrival(wanted.id, way.seat, way.choice, steps, moved)
    return Rejection(wanted.id, why_not(board, wanted))


def best_place(
    board: Board, wanted: Wanted, weights: Weights, allowed: Callable[[Seat], bool] | None = None
) -> Candidate | None:
    """Return the free place of least cost: of equal ones one that is cut already, then the first by id."""

    def rank(it: Candidate) -> tuple[float, bool, Seat]:
        cost = weights.gpu * it.opens_gpu + weights.risk * it.choice.risk + weights.fragmentation * it.loss
        return round(cost, 9), not board.is_cut(it.seat), it.seat

    return min(board.candidates(wanted, allowed), key=rank, default=None)


def ways(board: Board, wanted: Wanted, weights: Weights, most_moves: int) -> list[Way]:
    """Return the places that could be cleared by at most so many moves, the least costly first."""
    kinds = {choice.kind for it in board.wanted.values() for choice in it.choices}
    movable = {it: any(True for _ in board.candidates(Wanted(wanted.id, (Choice(it),)))) for it in kinds}
    found: list[Way] = []
    for product, geometry, gpus in board.alike():
        allowed = [it for it in gpus if not board.forbids(wanted, it)][:_OF_A_CLASS]
        for choice in wanted.choices if allowed else ():
            if choice.kind.product != product.name:
                continue
            for start in product.profiles[choice.kind.profile].starts:
                placement = Placement(start, choice.kind.profile)
                blocking = board.shapes.in_the_way(product, geometry, placement, most_moves)
                for gpu in allowed if blocking else ():
                    found.extend(
                        _ways_on(board, wanted, (Seat(gpu, placement), choice), blocking, (movable, most_moves))
                    )
    cost = {it: it.cost * weights.move + weights.risk * it.choice.risk for it in found}
    return sorted(found, key=lambda it: (cost[it], it.seat))


def _ways_on(
    board: Board,
    wanted: Wanted,
    place: tuple[Seat, Choice],
    blocking: tuple[Geometry, ...],
    limits: tuple[Mapping[SliceKind, bool], int],
) -> Iterator[Way]:
    """Yield the ways to clear a place of each of these sets of slices whose replicas may find another one."""
    seat, choice = place
    movable, most_moves = limits
    residents = board.residents(seat.gpu)
    for leaving in blocking:
        replicas = tuple(residents[it] for it in leaving)
        if wanted.id not in replicas and _can_move(board, replicas, movable, most_moves):
            yield Way(seat, choice, replicas, sum(board.wanted[it].move_cost for it in replicas))


def _can_move(
    board: Board, replicas: tuple[ReplicaId, ...], movable: Mapping[SliceKind, bool], most_moves: int
) -> bool:
    """Whether each has a free place, or there are moves left to make one for each that has none."""
    stuck = sum(not any(movable.get(it.kind, False) for it in board.wanted[replica].choices) for replica in replicas)
    return len(replicas) + stuck <= most_moves


def why_not(board: Board, wanted: Wanted) -> str:
    """Say why a replica has no place: which slices could hold it, and that none of them is free."""
    if not wanted.choices:
        return "no slice of this fleet can hold it"
    there = {board.gpu(gpu).product.name: board.gpu(gpu).product for gpu in board.gpus()}
    products = sorted({it.kind.product for it in wanted.choices})
    if not any(it in there for it in products):
        return f"it needs a slice of {' or '.join(products)}, and no such GPU may be used"
    kinds = " or ".join(
        f"{there[it.kind.product].profiles[it.kind.profile].name} of {it.kind.product}"
        for it in wanted.choices
        if it.kind.product in there
    )
    forbidden = next((why for gpu in board.gpus() if (why := board.forbids(wanted, gpu))), "")
    return f"no {kinds} is free" + (f" where it may be ({forbidden})" if forbidden else "")


def steps_to(board: Board, wanted: Wanted, seat: Seat, reason: str) -> tuple[Step, ...]:
    """Put a replica on a free seat, and take it off its present one, if it has any, only then."""
    if wanted.id not in board.seats:
        return (*board.put(wanted, seat), Place(seat, wanted.id, reason))
    old, room = board.move(wanted.id, seat)
    return (*room, Place(seat, wanted.id, reason, moved=True), Remove(old, wanted.id, reason))


def cleared(
    board: Board,
    wanted: Wanted,
    way: Way,
    weights: Weights,
    most_moves: int,
    allowed: Callable[[Seat], bool] = lambda _: True,
) -> tuple[Step, ...] | None:
    """Move those in the way elsewhere, the largest first; None where one finds no place. Only within an `attempt`.

    One without a free place may have others move for it, as far as `most_moves` reaches. Seats that are not `allowed`
    are kept free.
    """
    steps: list[Step] = []
    product = board.gpu(way.seat.gpu).product
    leaving = set(way.leaving)
    spare = most_moves - len(leaving)

    def leaves_room(seat: Seat) -> bool:
        if seat.gpu != way.seat.gpu or not allowed(seat):
            return allowed(seat)
        staying = [it for it, replica in board.residents(seat.gpu).items() if replica not in leaving]
        return not illegality(product, [*staying, seat.placement, way.seat.placement])

    for replica in way.leaving:
        mover = board.wanted[replica]
        reason = f"It makes room for {wanted.id}."
        place = best_place(board, mover, weights, leaves_room)
        if place is not None:
            steps.extend(steps_to(board, mover, place.seat, reason))
        else:
            others = _made_room(board, mover, weights, spare, leaves_room) if spare > 0 else None
            if others is None:
                return None
            seat, before = others
            spare -= sum(isinstance(it, Place) for it in before)
            steps.extend((*before, *steps_to(board, mover, seat, reason)))
        leaving.discard(replica)
    return tuple(steps)


def _made_room(
    board: Board, mover: Wanted, weights: Weights, most_moves: int, allowed: Callable[[Seat], bool]
) -> tuple[Seat, tuple[Step, ...]] | None:
    """Clear an allowed seat for one that has to move; None where none can be."""
    for way in ways(board, mover, weights, most_moves)[:_NESTED_TRIES]:
        with board.attempt() as keep:
            before = cleared(board, mover, way, weights, most_moves, allowed)
            if before is not None and allowed(way.seat):
                keep()
                return way.seat, before
    return None
