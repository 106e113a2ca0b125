"""Every case of `onnx.backend.test` through a real tritonserver with this repository's `onnxruntime` backend.

`python -m tests.bench.onnx_conformance [--only TEXT] [--servers N] [--workers N]` prints a table of counts, lists every
case that differs, and exits with 1 if one does. Takes about ten minutes on two cores: each case is a model to load.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from control_plane.embedded import EmbeddedFleet, ServerSpec
from control_plane.state import Server, ServerId
from tests.onnx_cases import Case, Reference, Verdict, compare, node_cases, reference, wheel_cases

DEADLINE_S = 60.0

Outcome = tuple[str, Verdict, str]


def main() -> int:
    """Run the bench; the exit status is 1 if a case differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only the cases whose name holds this text")
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3, help="models loaded at the same time, all servers together")
    options = parser.parse_args()
    started = time.monotonic()
    cases = [case for case in chain(node_cases(), wheel_cases()) if options.only in case.name]
    print(f"{len(cases)} cases", flush=True)
    outcomes = asyncio.run(_run(cases, options.servers, options.workers))
    _report(outcomes, time.monotonic() - started)
    return int(any(verdict is Verdict.DIFFERENT for _, verdict, _ in outcomes))


async def _run(cases: Iterable[Case], servers: int, workers: int) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="onnx_conformance_") as folder:
        repository = Path(folder)
        specs = [
            ServerSpec(ServerId(f"conformance-{index}"), repository, extra_args=("--disable-auto-complete-config",))
            for index in range(servers)
        ]
        async with EmbeddedFleet(specs) as fleet:
            running = [server.server for server in fleet.servers()]
            return await asyncio.to_thread(_compare_all, cases, running, repository, workers)


def _compare_all(cases: Iterable[Case], servers: list[Server], repository: Path, workers: int) -> list[Outcome]:
    def one(index: int, ref: Reference) -> Outcome:
        verdict, detail = compare(servers[index % len(servers)], repository, f"case_{index}", ref, DEADLINE_S)
        if verdict is Verdict.DIFFERENT:
            print(f"different: {ref.case.name}: {detail}", flush=True)
        if index % 50 == 0:
            print(f"... {index}", flush=True)
        return ref.case.name, verdict, detail

    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(workers) as pool:
        pending = []
        for index, case in enumerate(cases):
            if not case.is_carried():
                outcomes.append((case.name, Verdict.NOT_CARRIED, ""))
            elif (ref := reference(case)) is None:
                outcomes.append((case.name, Verdict.PLAIN_FAILS, ""))
            else:
                pending.append(pool.submit(one, index, ref))
        outcomes += [future.result() for future in pending]
    return outcomes


def _report(outcomes: list[Outcome], seconds: float) -> None:
    counts = Counter(verdict for _, verdict, _ in outcomes)
    compared = len(outcomes) - counts[Verdict.NOT_CARRIED] - counts[Verdict.PLAIN_FAILS]
    rows = [("total", len(outcomes)), (Verdict.NOT_CARRIED, counts[Verdict.NOT_CARRIED])]
    rows += [(Verdict.PLAIN_FAILS, counts[Verdict.PLAIN_FAILS]), ("compared", compared)]
    rows += [(f"  {verdict}", counts[verdict]) for verdict in list(Verdict)[2:]]
    for label, count in rows:
        print(f"{label:<42}{count:>6}")
    for name, verdict, detail in sorted(outcomes):
        if verdict in {Verdict.DIFFERENT, Verdict.WITHIN_TOLERANCE, Verdict.RANDOM}:
            print(f"{verdict}: {name} {detail}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
