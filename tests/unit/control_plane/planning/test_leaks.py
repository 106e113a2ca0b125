"""Memory that does not come back: what is judged, what is not, and that errors of measurement do not add up."""

import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from control_plane.planning.leaks import LEAST_BYTES, SETTLE, Held, Ledger, Look, leak, look_at
from control_plane.state import ModelName, ModelState
from tests.fakes.world import START, a_server, seen

MIB = 2**20


class Watched:
    """A server whose memory a test sets, looked at every five seconds."""

    def __init__(self) -> None:
        self.ledger, self.at = Ledger(), START
        self.held: set[str] = set()
        self.failed_at: datetime | None = None
        self.rest(1000)

    def rest(self, used_mib: float, looks: int = 4) -> int:
        """Look a few times; returns what is missing then, in MiB."""
        for _ in range(looks):
            self.at += timedelta(seconds=5)
            held: Held = frozenset((ModelName(name), 1, 1, 0) for name in self.held)
            self.ledger = self.ledger.after(Look(self.at, held, int(used_mib * MIB), self.failed_at))
        return self.ledger.missing_bytes // MIB

    def fail(self) -> None:
        self.failed_at = self.at


def test_what_an_unload_gives_back_is_not_missing() -> None:
    server = Watched()
    server.held = {"a"}
    assert server.rest(1400) == 0
    server.held = set()
    assert server.rest(1000) == 0


def test_what_an_unload_keeps_is_missing() -> None:
    server = Watched()
    server.held = {"a"}
    server.rest(1400)
    server.held = {"a", "b"}
    server.rest(1600)
    server.held = {"b"}
    assert server.rest(1500) == 300
    server.held = set()
    assert server.rest(1300) == 300


def test_what_a_failed_load_leaves_is_missing() -> None:
    server = Watched()
    for times in range(1, 4):
        server.fail()
        assert server.rest(1000 + 100 * times) == 100 * times


def test_memory_that_grows_with_traffic_is_not_missing() -> None:
    server = Watched()
    server.held = {"a"}
    server.rest(1400)
    for used in range(1400, 3000, 100):
        assert server.rest(used) == 0
    server.fail()
    assert server.rest(2900) == 0


def test_models_that_came_together_are_judged_once_all_are_gone() -> None:
    server = Watched()
    server.held = {"a", "b"}
    server.rest(1500)
    server.held = {"b"}
    assert server.rest(1490) == 0  # nobody knows which part of it was whose
    server.held = {"c", "d"}
    server.rest(1800)
    server.held = {"e"}
    assert server.rest(1800) == 0  # one came as others went
    other = Watched()
    other.held = {"a", "b"}
    other.rest(1500)
    other.held = set()
    assert other.rest(1400) == 400


def test_memory_that_comes_back_late_but_in_time_is_not_missing() -> None:
    server = Watched()
    server.held = {"a"}
    server.rest(1400)
    server.held = set()
    server.rest(1390, looks=1)
    assert server.rest(1000) == 0


def test_errors_of_measurement_do_not_add_up() -> None:
    server, noise = Watched(), random.Random(1)
    most = 0
    for _ in range(300):
        server.fail()
        most = max(most, server.rest(1000 + noise.uniform(-20, 20)))
    assert most < 100


@pytest.mark.parametrize(
    ("memory", "missing", "leaks"), [(0, 256, False), (0, 257, True), (80_000, 7999, False), (80_000, 8001, True)]
)
def test_when_enough_is_missing(memory: int, missing: int, *, leaks: bool) -> None:
    why = leak(replace(a_server(), memory_bytes=memory * MIB), missing * MIB)
    assert bool(why) is leaks
    assert not why or f"{missing:,} MiB of memory did not come back" in why
    assert LEAST_BYTES == 256 * MIB


def test_a_server_is_not_judged_while_something_is_on_its_way_or_nobody_tells() -> None:
    ready = replace(seen(("a", 1, ModelState.READY)), memory_used_bytes=7)
    look = look_at(ready, START, None)
    assert look == Look(START, frozenset({(ModelName("a"), 1, 0, 0)}), 7)
    assert look_at(replace(ready, memory_used_bytes=None), START, None) is None
    assert look_at(replace(seen(("a", 1, ModelState.LOADING)), memory_used_bytes=7), START, None) is None
    assert timedelta(seconds=5) < SETTLE
