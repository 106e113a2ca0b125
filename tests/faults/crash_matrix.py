"""`python -m tests.faults.crash_matrix`: the control plane killed -9 at every single step of operations on ten servers.

A control plane (`crash_lives`) is asked for an operation (`crash_cases`) and killed. A new one is built over the same
fakes and run to rest, and the end is compared with that of a run that nobody cut. Then the new one is killed too, while
it recovers, and a third one run to rest: all pairs of kills are some thousands for each operation, so a sample of them
is drawn by a seed, spread over the first kills. `--second-kills` says how many.
"""

import argparse
import asyncio
import logging
import pickle
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from control_plane.operations import Operation, OperationState, StepAction, StepState
from control_plane.planning import Infeasible
from control_plane.state import ServerId
from tests.faults.crash_cases import CASES, Case
from tests.faults.crash_lives import Control, Effect, Fakes, Kill, Life, kills

SEED, SECOND_KILLS = 20260101, 40
"""The sample: so many second kills of an operation, chosen by this seed."""

_UNLOADS = frozenset({StepAction.UNLOAD})
_LOADS = frozenset({StepAction.LOAD, StepAction.RELOAD, StepAction.SCALE})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended: the state, what it did, and what the journal says.

    `counted` are the calls of each of its lives, `cuts` those that a kill was at.
    """

    state: dict[str, object]
    effects: Counter[Effect]
    calls: Counter[tuple[str, ServerId, str, int]]
    operations: tuple[Operation, ...]
    counted: tuple[int, ...]
    cuts: tuple[str, ...]


@dataclass
class Tally:
    """What became of runs that were cut alike."""

    runs: int = 0
    converged: int = 0
    repeated: int = 0

    def __str__(self) -> str:
        return f"{self.runs:6} {self.converged:9} {self.repeated:8}"


@dataclass
class Row:
    """What the matrix says of one operation: killed once, killed twice, and of how many pairs of kills those are."""

    operation: str
    once: Tally = field(default_factory=Tally)
    twice: Tally = field(default_factory=Tally)
    pairs: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.operation:20} {self.once} {self.twice} {self.pairs:8}"


HEAD = f"""\
{"":20} {"killed once":25} {"killed again while it recovers":>34}
{"operation":20} {"runs":>6} converged repeated {"runs":>6} converged repeated {"of pairs":>8}
"""


class _Inline(ThreadPoolExecutor):
    """Runs at once what is given to a thread, so that one run is like the next one and call number k is the same."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run it."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            future.set_exception(error)
        return future


async def _prepared(case: Case) -> bytes:
    fakes = Fakes.new()
    await case.prepare(Control(fakes, Life()))
    fakes.clock.move(60)
    return pickle.dumps(fakes)


async def _lived(case: Case, before: bytes, reference: Run | None, *ends: Kill) -> Run:
    """Ask for the operation in a life that ends by the first of `ends`, recover in one that ends by the next, ..."""
    fakes: Fakes = pickle.loads(before)  # noqa: S301 - pickled above
    earlier = {it.id for it in await fakes.operations.list(limit=1000) if it.is_finished}
    fakes.triton.calls.clear()
    fakes.triton.effects.clear()

    async def told_in_time() -> None:
        """Check that an operation is done only once what it is for is there."""
        own = [it for it in await fakes.operations.list(limit=1000) if it.id not in earlier and it.kind is case.kind]
        if reference is not None and any(it.state is OperationState.DONE for it in own):
            assert fakes.ready() == reference.state["ready"], f"{case.kind} was told done too early"

    lives = [Life(end) for end in (*ends, None)]
    for life in lives:
        try:
            control = Control(fakes, life)
            await control.journal.recover()
            granted = await case.ask(control)  # who got no answer asks again
            assert life is not lives[0] or not isinstance(granted, Infeasible)
            await control.rest(told_in_time)
        except BaseException:
            if not life.dead:
                raise
            await life.buried()
            fakes.clock.move(1)
    assert all(life.dead for life in lives[:-1]), "it ended before it was killed"
    operations = tuple(it for it in await fakes.operations.list(limit=1000) if it.id not in earlier)
    effects, calls = Counter(fakes.triton.effects), Counter(fakes.triton.calls)
    counted, cuts = tuple(life.count for life in lives), tuple(life.cut for life in lives[:-1])
    return Run(await fakes.state(), effects, calls, operations, counted, cuts)


def problems(run: Run, reference: Run) -> list[str]:
    """Return what is wrong with the end of a run that was cut, by that of one that was not.

    What was under way at a kill may be tried once more after it, and no more than that.
    """
    found = [f"{what} differ: {run.state[what]}" for what, it in reference.state.items() if run.state[what] != it]
    again = run.calls - reference.calls
    found += [
        f"{call} was repeated {times} times" for call, times in sorted(again.items()) if times > max(1, len(run.cuts))
    ]
    found += [f"{it.id} is {it.state}" for it in run.operations if not it.is_finished]
    found += [f"{it.id} has failed: {it.cause}" for it in run.operations if it.state is OperationState.FAILED]
    steps = [step for operation in run.operations for step in operation.steps]
    for (action, server, model, version), times in run.calls.items():
        words = _LOADS if action == "load" else _UNLOADS
        own = {(model, version), ("e", 1)} if action == "load" else {(model, version)}  # a load of e loads its members
        attempts = sum(
            it.attempts for it in steps if it.server == server and it.action in words and (it.model, it.version) in own
        )
        if attempts < times:
            found.append(f"{action} {model}:{version} on {server}: {times} calls, {attempts} attempts in the journal")
    done = {
        Effect("load" if it.action in _LOADS else "unload", it.server, it.model, it.version)
        for it in steps
        if it.state is StepState.DONE
    }
    found += [f"{effect} is in no step that is done" for effect in sorted(set(run.effects) - done)]
    places = {(it.server, it.model, it.action) for it in (*run.effects, *reference.effects)}
    for place in sorted(places):
        mine, theirs = (
            sum(n for it, n in one.effects.items() if (it.server, it.model, it.action) == place)
            for one in (run, reference)
        )
        if mine != theirs:
            found.append(f"{place} took effect {mine} times, not {theirs}")
    return found


class _Operation:
    """An operation of the matrix: how it ends where nobody cuts it, and how where somebody does."""

    def __init__(self, case: Case, before: bytes, reference: Run) -> None:
        self._case, self._before, self.reference = case, before, reference

    @classmethod
    async def prepared(cls, case: Case) -> "_Operation":
        """Have all that comes before it, and run it once to its end."""
        before = await _prepared(case)
        reference = await _lived(case, before, None)
        assert not problems(reference, reference), problems(reference, reference)
        return cls(case, before, reference)

    async def cut(self, row: Row, tally: Tally, *ends: Kill) -> Run | None:
        """Run it with these kills, and note in `row` what became of it."""
        tally.runs += 1
        where = f"{row.operation}, killed {' and '.join(map(str, ends))}"
        try:
            run = await _lived(self._case, self._before, self.reference, *ends)
        except AssertionError as error:
            row.problems.append(f"{where}: {error}")
            return None
        wrong = problems(run, self.reference)
        row.problems += [f"{where} ({', '.join(run.cuts)}): {problem}" for problem in wrong]
        tally.converged += not wrong
        tally.repeated += (run.calls - self.reference.calls).total()
        return run


def sampled(recoveries: Mapping[Kill, int], number: int, seed: str) -> list[tuple[Kill, Kill]]:
    """Return `number` pairs of kills: every first one once, in an order drawn by `seed`, then every one again, ...

    `recoveries` says how many calls the recovery from each first kill made.
    """
    drawn = random.Random(seed)
    left = {first: list(kills(calls)) for first, calls in recoveries.items()}
    pairs: list[tuple[Kill, Kill]] = []
    while len(pairs) < number and any(left.values()):
        round_ = [first for first in left if left[first]]
        drawn.shuffle(round_)
        pairs += [(first, left[first].pop(drawn.randrange(len(left[first])))) for first in round_]
    return pairs[:number]


async def _row(name: str, second_kills: int) -> Row:
    asyncio.get_running_loop().set_default_executor(_Inline())
    row = Row(name)
    operation = await _Operation.prepared(CASES[name])
    recoveries: dict[Kill, int] = {}
    for first in kills(operation.reference.counted[0]):
        run = await operation.cut(row, row.once, first)
        if run is not None:
            recoveries[first] = run.counted[1]
    row.pairs = sum(len(kills(calls)) for calls in recoveries.values())
    for first, second in sampled(recoveries, second_kills, f"{SEED} {name}"):
        await operation.cut(row, row.twice, first, second)
    return row


def row(name: str, second_kills: int = SECOND_KILLS) -> Row:
    """Kill the control plane at every step of an operation, once before and once after it took effect.

    Then again while it recovers, at as many of the pairs as `second_kills` says.
    """
    return asyncio.run(_row(name, second_kills))


def main() -> int:
    """Print the matrix, and whatever is wrong."""
    parser = argparse.ArgumentParser(description="Kill the control plane at every step of operations.")
    parser.add_argument("--second-kills", type=int, default=SECOND_KILLS, help="pairs of kills for each operation")
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"of {', '.join(CASES)}; default: all")
    given = parser.parse_args()
    logging.getLogger("control_plane").setLevel(logging.CRITICAL)  # some of the cases begin with what fails
    sys.stdout.write(HEAD)
    wrong: list[str] = []
    for name in given.operations or CASES:
        found = row(name, given.second_kills)
        sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
        wrong += found.problems
    sys.stdout.write(f"The second kills are drawn by seed {SEED}.\n")
    sys.stdout.writelines(f"{problem}\n" for problem in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
