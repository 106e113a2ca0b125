"""Reconfiguring a whole fleet: the optimiser against its own bound, and against two simple ways, on the same fleets.

    python -m tests.bench reconfiguration [--gpus 8 16 32 64 256 1000] [--seconds 10] [--seed 1]

GPUs with 3 to 4 live instances each, cut in any legal way; then demand changes: 15% leave, others come until 90% of the
compute slices are asked for, two GPUs fail. Every plan is one that can be carried out in its order, make before break,
and it is carried out on paper (`steps.after`) before its cost counts. The cost is that of `Weights` without
fragmentation.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from control_plane.mig import Rules, SliceKind, geometries, products
from control_plane.slicing import Choice, Fleet, FleetGpu, GpuId, ReplicaId, Slice, Wanted, Weights, after
from control_plane.slicing.arrival import Arrival, place_arrival
from control_plane.slicing.board import Board
from control_plane.slicing.planning import SlicePlan, plan_slices
from control_plane.slicing.whole import optimise

PRODUCT = products()["h100-80gb"]
PROFILES = ("1g", "1g.2x", "2g", "3g", "4g")
ASKED = (*PROFILES, "1g", "1g", "2g", "7g")
"""What newcomers ask for: small slices more often, and now and then a whole GPU."""
SIZES = (8, 16, 32, 64, 256, 1000)
WEIGHTS = Weights()


def a_replica(number: int, profile: str) -> Wanted:
    return Wanted(ReplicaId(f"r{number:05}"), (Choice(SliceKind(PRODUCT.name, profile)),))


def a_fleet(gpus: int, seed: int) -> tuple[Fleet, list[Wanted]]:
    """Return a fleet whose GPUs hold 3 to 4 instances each, cut in any legal way, and what is wanted now."""
    chance = random.Random(seed)
    shapes = [it for it in geometries(PRODUCT, Rules(frozenset(PROFILES))) if len(it) in {3, 4}]
    living: list[Wanted] = []
    cut: list[FleetGpu] = []
    for number in range(gpus):
        slices = []
        for placement in chance.choice(shapes):
            living.append(a_replica(len(living), placement.profile))
            slices.append(Slice(placement, living[-1].id))
        cut.append(FleetGpu(GpuId(f"GPU-{number:04}"), PRODUCT, tuple(slices)))
    wanted = chance.sample(living, round(len(living) * 0.85))
    number, taken = len(living), sum(_compute_slices(it) for it in wanted)
    while taken < 0.9 * PRODUCT.compute_slices * (gpus - 2):
        wanted.append(a_replica(number, chance.choice(ASKED)))
        number, taken = number + 1, taken + _compute_slices(wanted[-1])
    broken = {gpu.id for gpu in chance.sample(cut, 2)}
    return Fleet.of(replace(gpu, usable=gpu.id not in broken) for gpu in cut), wanted


def _compute_slices(it: Wanted) -> int:
    return PRODUCT.profiles[it.choices[0].kind.profile].g


def repacked(fleet: Fleet, wanted: Sequence[Wanted]) -> float:
    """Return what packing everything anew costs, the largest first, whoever has to move; nobody could carry it out."""
    bare = Fleet.of(replace(gpu, slices=()) for gpu in fleet.gpus)
    board = Board(bare, {})
    by_size = sorted(wanted, key=lambda it: (-PRODUCT.profiles[it.choices[0].kind.profile].memory_slices, it.id))
    rejected = sum(not isinstance(place_arrival(board, it, WEIGHTS, 0), Arrival) for it in by_size)
    before = {it: seats[0] for it, seats in fleet.seats.items() if fleet.by_id[seats[0].gpu].usable}
    moved = sum(before[it] != seat for it, seat in board.seats.items() if it in before)
    used = len({seat.gpu for seat in board.seats.values()})
    return WEIGHTS.rejection * rejected + WEIGHTS.gpu * used + WEIGHTS.move * moved


def weighed(plan: SlicePlan) -> float:
    return plan.cost.total - plan.cost.fragmentation


def one(gpus: int, seconds: float, seed: int) -> list[str]:
    fleet, wanted = a_fleet(gpus, seed)
    begun = time.monotonic()
    best = optimise(fleet, wanted, WEIGHTS, seconds)
    took = time.monotonic() - begun
    done = after(fleet, best.plan.steps)
    assert {seats[0] for it, seats in done.seats.items() if it in best.plan.seats} == set(best.plan.seats.values())
    arrivals = plan_slices(fleet, wanted, WEIGHTS, 0)
    fast = plan_slices(fleet, wanted, WEIGHTS)
    return [
        f"{gpus}",
        f"{len(wanted)}",
        f"{best.cost:.0f}",
        f"{best.bound:.1f}",
        f"{best.gap:.2%}",
        f"{len(best.plan.moved) + best.detours}",
        f"{len(best.plan.rejected)}",
        f"{len(best.plan.steps)}",
        f"{len(best.given_up)}",
        f"{took:.1f}",
        f"{weighed(fast):.0f} ({len(fast.rejected)})",
        f"{weighed(arrivals):.0f} ({len(arrivals.rejected)})",
        f"{repacked(fleet, wanted):.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=None, help="for each (default: 10, and 60 for 1000)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    heads = ["GPUs", "wanted", "cost", "bound", "gap", "moves", "rejected", "steps", "given up", "s"]
    heads += ["fast path (rejected)", "no moves (rejected)", "repacked"]
    print("  ".join(f"{it:>9}" for it in heads))
    for gpus in given.gpus:
        seconds = given.seconds or (60.0 if gpus > 256 else 10.0)
        print(
            "  ".join(
                f"{it:>{max(9, len(head))}}" for it, head in zip(one(gpus, seconds, given.seed), heads, strict=True)
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
