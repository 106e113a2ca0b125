"""`python -m tests.bench sizing`: how few GPUs, how far from the bound, how long.

First the four scenarios that ParvaGPU published, by its own admission rule and measurements on slices of an A100-80GB;
the published plans use 2, 3, 5 and 7 GPUs, and the optimum is the same. Then many demands: models and objectives of
scenario S4 with rates from 2 % to three times those there, drawn by a seed, on A100s alone and on A100s, H100s and L4s
of different costs. Only the A100 was measured: the other two's figures are the A100's, scaled by multiprocessors and a
factor, so they show what the solver can do and nothing about these GPUs.
"""

import argparse
import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from control_plane.mig import SliceKind, product_named
from control_plane.sizing import Demand, Model, Offer, OperatingPoint, Sizing
from control_plane.sizing.solving import size
from control_plane.sizing.tables import parva_admission, read_profiles, read_scenarios

DATA = Path(__file__).parents[1] / "data" / "parvagpu"
A100, H100, L4 = (product_named(name) for name in ("a100-80gb", "h100-80gb", "l4-24gb"))
MIXED = (Offer(A100), Offer(H100, 1.6), Offer(L4, 0.35))
PER_SM = 1.5
L4_PART = 0.8

Measured = dict[Model, tuple[OperatingPoint, ...]]


def scaled(measured: Measured) -> Measured:
    """Return the measurements with made-up ones for H100 and L4 beside them."""

    def more(point: OperatingPoint) -> list[OperatingPoint]:
        key = point.kind.profile
        factor = PER_SM * H100.profiles[key].multiprocessors / A100.profiles[key].multiprocessors
        found = [_faster(point, SliceKind(H100.name, key), factor)]
        return [*found, _faster(point, SliceKind(L4.name, "full"), L4_PART)] if key == "4g" else found

    return {name: (*its, *(new for it in its for new in more(it))) for name, its in measured.items()}


def _faster(point: OperatingPoint, kind: SliceKind, factor: float) -> OperatingPoint:
    return replace(point, kind=kind, throughput=point.throughput * factor, latency_s=point.latency_s / factor)


def demands(count: int, base: Sequence[Demand], seed: int) -> list[Demand]:
    """Return so many demands like those of `base`."""
    dice = random.Random(seed)
    return [
        replace(it, name=f"d{number}", rate=it.rate * math.exp(dice.uniform(math.log(0.02), math.log(3))))
        for number, it in enumerate(dice.choice(base) for _ in range(count))
    ]


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    measured, scenarios = read_profiles(DATA / "prof_data", A100), read_scenarios(DATA / "scenarios.csv")
    table = Table("demands", "on", ">GPUs", ">cost", ">bound", ">gap", ">seconds")
    for heading in table.columns[2:]:
        heading.justify, heading.header = "right", str(heading.header).lstrip(">")
    for name, asked in scenarios.items():
        begun = time.perf_counter()
        found = size(asked, measured, [Offer(A100)], parva_admission(A100), options.seconds)
        table.add_row(f"{name} ({len(asked)})", "A100", *_figures(found, begun))
    both = scaled(measured)
    for count in options.counts:
        for seed in options.seeds:
            for label, offers in (("A100", MIXED[:1]), ("A100, H100, L4", MIXED)):
                many = demands(count, scenarios["S4"], seed)
                begun = time.perf_counter()
                found = size(many, both, offers, seconds=options.seconds)
                table.add_row(f"{count:,} (seed {seed})", label, *_figures(found, begun))
    Console().print(table)
    return 0


def _figures(found: Sizing, begun: float) -> tuple[str, ...]:
    seconds = time.perf_counter() - begun
    gap = "proved" if found.gap == 0 else f"{found.gap:.3%}"
    return f"{len(found.gpus):,}", f"{found.cost:,.2f}", f"{found.bound:,.2f}", gap, f"{seconds:.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
