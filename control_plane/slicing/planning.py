"""From the slices that are there and the replicas that are wanted to the steps in between, as few as may be.

Pure. What is placed stays; departures leave, those that must move (their slice can hold them no more, their GPU failed)
are seated first, then newcomers by value. Every step list can be carried out in its order (`steps.after`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from control_plane.slicing.arrival import Arrival, place_arrival
from control_plane.slicing.board import Board, kind_of
from control_plane.slicing.explaining import with_remedies
from control_plane.slicing.model import (
    Cost,
    Fleet,
    Rejection,
    ReplicaId,
    Seat,
    Wanted,
    Weights,
)
from control_plane.slicing.steps import Remove, Step
from control_plane.wanted import Domain


@dataclass(frozen=True)
class SlicePlan:
    """Steps in order, where every replica is in the end, and those that are nowhere.

    `moved` were on a slice that works and change it; `reasons` says of each replica that was seated why there.
    """

    steps: tuple[Step, ...] = ()
    seats: Mapping[ReplicaId, Seat] = field(default_factory=dict)
    rejected: tuple[Rejection, ...] = ()
    moved: tuple[ReplicaId, ...] = ()
    cost: Cost = field(default_factory=Cost)


def plan_slices(
    fleet: Fleet, wanted: Iterable[Wanted], weights: Weights | None = None, most_moves: int | None = None
) -> SlicePlan:
    """Return what should change. `most_moves` is what is left of the budget; None is no limit.

    The same input in any order gives the same plan; planned again once it is done, there is nothing left to do.
    """
    work = _Work(fleet, {it.id: it for it in sorted(wanted, key=lambda it: it.id)}, weights or Weights(), most_moves)
    for it in sorted(work.asked.values(), key=work.turn):
        work.seat(it)
    while work.try_again():
        pass
    return work.plan()


_NO_LIMIT = 10**9
_AT_MOST = 3
"""Moves for one newcomer on the fast path; the optimiser for the whole fleet has no such limit."""
_MUST = "Its slice can hold it no more."


class _Work:
    def __init__(
        self, fleet: Fleet, asked: Mapping[ReplicaId, Wanted], weights: Weights, most_moves: int | None
    ) -> None:
        self.asked, self.weights = asked, weights
        self.board = Board(fleet, asked)
        self.before = dict(self.board.seats)
        self.there = fleet.seats
        self.left = _NO_LIMIT if most_moves is None else most_moves
        self.steps: list[Step] = list(departures(fleet, asked))
        self.moved: list[ReplicaId] = []
        self.rejected: list[Rejection] = []
        self.refused: dict[tuple[object, ...], tuple[int, str]] = {}

    def turn(self, it: Wanted) -> tuple[bool, float, bool, ReplicaId]:
        """Those that stand somewhere first, then by value; of equals, those whose GPU failed before newcomers."""
        return it.id not in self.before, -it.value, it.id not in self.there, it.id

    def seat(self, it: Wanted) -> None:
        """Leave a replica where it may stay, or give it a slice, or say why it gets none."""
        seat = self.board.seats.get(it.id)
        if seat is None:
            self._take(it, self._placed(it, min(_AT_MOST, self.left)))
        elif it.choice_of(kind_of(self.board.gpu(seat.gpu), seat.placement)) is None:
            if self.left < 1:
                self.rejected.append(Rejection(it.id, f"{_MUST[:-1]}, and no move is left of the budget"))
            else:
                self._take(it, place_arrival(self.board, it, self.weights, min(_AT_MOST, self.left - 1), _MUST))

    def try_again(self) -> bool:
        """Seat those that were rejected, as what was done since may have made room; tells whether any was seated."""
        seats, before = dict(self.board.seats), self.rejected
        self.rejected = []
        for rejection in before:
            self.seat(self.asked[rejection.replica])
        told = {it.replica: it for it in before}
        self.rejected = [told.get(it.replica, it) for it in self.rejected]
        return self.board.seats != seats

    def _placed(self, it: Wanted, moves: int) -> Arrival | Rejection:
        """Place a newcomer; where there is no place, in that of a slice that is kept warm and is worth less."""
        alike = it.choices, it.value, it.group if it.spread is not Domain.NONE else ""
        at, known = self.refused.get(alike, (-1, ""))
        if at == self.board.changes:  # one like it was refused, and nothing has changed since
            return Rejection(it.id, known)
        answer = place_arrival(self.board, it, self.weights, moves)
        if isinstance(answer, Arrival):
            return answer
        for warm in sorted(self.board.seats):
            kept_warm = self.asked[warm]
            if kept_warm.move_cost or kept_warm.value >= it.value:
                continue
            with self.board.attempt() as keep:
                why = f"It is given up for {it.id}."
                freed = Remove(self.board.take(warm), warm, why)
                instead = place_arrival(self.board, it, self.weights, moves)
                if isinstance(instead, Arrival):
                    keep()
                    self.rejected.append(Rejection(warm, f"its room is needed for {it.id}"))
                    return replace(instead, steps=(freed, *instead.steps))
        self.refused[alike] = self.board.changes, answer.reason
        return answer

    def _take(self, it: Wanted, answer: Arrival | Rejection) -> None:
        if isinstance(answer, Rejection):
            self.rejected.append(answer)
            return
        self.steps.extend(answer.steps)
        gone = [*answer.moved, *([it.id] if it.id in self.before else [])]
        self.left -= sum(self.asked[replica].move_cost > 0 for replica in gone)
        self.moved.extend(gone)

    def plan(self) -> SlicePlan:
        """Return all of it; what is cut and holds nothing goes."""
        board = self.board
        self.steps.extend(board.discard(seat) for seat in list(board.empties()))
        moved = tuple(dict.fromkeys(it for it in self.moved if board.seats.get(it) != self.before.get(it)))
        cost = cost_of(board, self.before, self.rejected, self.weights)
        rejected = with_remedies(board, self.rejected, self.asked, self.weights)
        return SlicePlan(tuple(self.steps), dict(sorted(board.seats.items())), rejected, moved, cost)


def cost_of(board: Board, before: Mapping[ReplicaId, Seat], rejected: Iterable[Rejection], weights: Weights) -> Cost:
    """Return what a board comes to, beside what it was before."""
    used = sorted({seat.gpu for seat in board.seats.values()})
    choices = (board.wanted[it].choice_of(kind_of(board.gpu(s.gpu), s.placement)) for it, s in board.seats.items())
    moved = [it for it, seat in before.items() if board.seats.get(it, seat) != seat]
    open_parts = [board.shapes.of(board.gpu(gpu).product, board.geometry(gpu)).openness for gpu in used]
    return Cost(
        rejection=weights.rejection * sum(board.wanted[it.replica].value for it in rejected),
        gpus=weights.gpu * len(used),
        moves=weights.move * sum(board.wanted[it].move_cost for it in moved),
        risk=weights.risk * sum(it.risk for it in choices if it is not None),
        fragmentation=weights.fragmentation * sum(1 - it for it in open_parts),
    )


def departures(fleet: Fleet, asked: Mapping[ReplicaId, Wanted]) -> Iterable[Step]:
    """Yield the removal of what is wanted no more, and of what is left twice by a move that was cut short."""
    seen: set[ReplicaId] = set()
    for gpu in fleet.gpus:
        for it in gpu.slices:
            if it.replica is None:
                continue
            seat = Seat(gpu.id, it.placement)
            if it.replica not in asked:
                yield Remove(seat, it.replica, "It is wanted no more.")
            elif not gpu.usable:
                yield Remove(seat, it.replica, "Its GPU cannot be used any more.")
            elif it.replica in seen:
                yield Remove(seat, it.replica, "It has another slice already.")
            else:
                seen.add(it.replica)
