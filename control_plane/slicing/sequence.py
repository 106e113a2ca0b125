"""The order of steps from what is there to a target: make before break, one after the other. Pure.

A replica stands on its new slice before it leaves the old one. Where moves wait for each other in a circle, one of them
makes a detour over a free place; where there is none, a move is given up and its replica stays where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from control_plane.mig import illegality
from control_plane.slicing.arrival import Arrival, best_place, place_arrival, steps_to
from control_plane.slicing.board import Board
from control_plane.slicing.explaining import with_remedies
from control_plane.slicing.model import Fleet, Rejection, ReplicaId, Seat, Target, Wanted, Weights
from control_plane.slicing.planning import SlicePlan, cost_of, departures


@dataclass(frozen=True)
class Sequence:
    """A plan that can be carried out in its order, and the moves to the target that could not be made."""

    plan: SlicePlan
    given_up: tuple[ReplicaId, ...] = ()
    detours: int = 0


def sequence(
    fleet: Fleet, target: Target, wanted: Mapping[ReplicaId, Wanted], weights: Weights, reason: str
) -> Sequence:
    """Return the steps to a target. Newcomers whose room is not made after all get another place, or are rejected."""
    work = _Work(fleet, target, wanted, weights, reason)
    while work.moves or work.arrivals:
        if work.go_on() or work.detour():
            continue
        if work.moves:
            work.give_up()
        else:
            work.seat_the_rest()
    return work.result()


class _Work:
    def __init__(
        self, fleet: Fleet, target: Target, wanted: Mapping[ReplicaId, Wanted], weights: Weights, reason: str
    ) -> None:
        self.wanted, self.weights, self.reason = wanted, weights, reason
        self.board = Board(fleet, wanted)
        self.before = dict(self.board.seats)
        self.steps = list(departures(fleet, wanted))
        goals = {it: seat for it, seat in sorted(target.seats.items()) if self.board.seats.get(it) != seat}
        self.moves = {it: seat for it, seat in goals.items() if it in self.board.seats}
        self.arrivals = {it: seat for it, seat in goals.items() if it not in self.board.seats}
        self.rejected = list(target.rejected)
        self.given_up: list[ReplicaId] = []
        self.went_round: set[ReplicaId] = set()

    def go_on(self) -> bool:
        """Do every move, then every arrival, that can be done now; tells whether there was any."""
        done = False
        for pending in (self.moves, self.arrivals):
            for replica, seat in list(pending.items()):
                if self._is_free(self.wanted[replica], seat):
                    self.steps.extend(steps_to(self.board, self.wanted[replica], seat, self.reason))
                    del pending[replica]
                    done = True
        return done

    def detour(self) -> bool:
        """Move one that others wait for, and that waits itself, to a free place in between; tells whether one was."""
        for replica in self.moves:
            if replica in self.went_round or not self._is_waited_for(replica):
                continue
            place = best_place(self.board, self.wanted[replica], self.weights, self._is_nobodys)
            if place is not None:
                why = "Others need its place, and its own new one is not free yet."
                self.steps.extend(steps_to(self.board, self.wanted[replica], place.seat, why))
                self.went_round.add(replica)
                return True
        return False

    def give_up(self) -> None:
        """Leave one where it is: the one whose move costs most; of equals the first."""
        replica = min(self.moves, key=lambda it: (-self.wanted[it].move_cost, it))
        del self.moves[replica]
        self.given_up.append(replica)

    def seat_the_rest(self) -> None:
        """Give newcomers whose place is taken another free one, or reject them."""
        for replica in list(self.arrivals):
            del self.arrivals[replica]
            answer = place_arrival(self.board, self.wanted[replica], self.weights, 0)
            if isinstance(answer, Arrival):
                self.steps.extend(answer.steps)
            else:
                self.rejected.append(answer)

    def result(self) -> Sequence:
        """Return all of it; what is cut and holds nothing goes."""
        board = self.board
        for it in sorted(self.given_up):
            seat = board.seats[it]
            kind_fits = self.wanted[it].choice_of(board.kind(seat)) is not None
            if not kind_fits:
                self.rejected.append(Rejection(it, "its slice can hold it no more, and it cannot move"))
        steps = (*self.steps, *(board.discard(seat) for seat in list(board.empties())))
        moved = tuple(sorted(it for it, seat in self.before.items() if board.seats.get(it) != seat))
        told = {it.replica: it for it in self.rejected}  # who stays where it may not be is told once
        rejected = with_remedies(board, [told[it] for it in sorted(told)], self.wanted, self.weights)
        cost = cost_of(board, self.before, rejected, self.weights)
        again = sum(self.wanted[it].move_cost for it in self.went_round)
        cost = replace(cost, moves=cost.moves + self.weights.move * again)
        plan = SlicePlan(steps, dict(sorted(board.seats.items())), rejected, moved, cost)
        return Sequence(plan, tuple(sorted(self.given_up)), len(self.went_round))

    def _is_free(self, wanted: Wanted, seat: Seat) -> bool:
        board = self.board
        product = board.gpu(seat.gpu).product
        fits = not illegality(product, [*board.geometry(seat.gpu), seat.placement])
        return fits and not board.forbids(wanted, seat.gpu)

    def _is_waited_for(self, replica: ReplicaId) -> bool:
        """Whether another one's new place is not free because this one stands where it does."""
        own = self.board.seats[replica]
        goals = [*self.moves.items(), *self.arrivals.items()]
        return any(seat.gpu == own.gpu and other != replica for other, seat in goals)

    def _is_nobodys(self, seat: Seat) -> bool:
        """Whether a place is in the way of no one's goal."""
        product = self.board.gpu(seat.gpu).product
        goals = (it for pending in (self.moves, self.arrivals) for it in pending.values() if it.gpu == seat.gpu)
        return all(not illegality(product, [seat.placement, it.placement]) for it in goals)
