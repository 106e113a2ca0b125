"""The bench of live placement: its rules on cases that can be told by hand, and one small run of it."""

import pytest

from control_plane.mig import Placement, illegality
from tests.bench.live_placement import MIXES, Optimum, main, methods, run, stream
from tests.bench.placement_rules import (
    PRODUCT,
    AllBalanced,
    BestFit,
    DriversPlace,
    FirstFit,
    LeastFragmentation,
    PreferredStarts,
    Rule,
    Templates,
)

HALF, SMALL = (Placement(0, "3g"),), (Placement(0, "1g"),)


@pytest.mark.parametrize(
    ("rule", "gpus", "profile", "place"),
    [
        (FirstFit(), [(), SMALL], "1g", (0, Placement(0, "1g"))),
        (BestFit(), [(), SMALL], "1g", (1, Placement(1, "1g"))),
        (DriversPlace(), [(), SMALL], "3g", (0, Placement(4, "3g"))),
        (AllBalanced(), [()], "1g.2x", (0, Placement(0, "2g"))),
        (AllBalanced(), [()], "4g", None),
        (Templates(), [SMALL], "2g", None),
        (Templates(), [SMALL, ()], "2g", (1, Placement(0, "2g"))),
        (LeastFragmentation(), [(), HALF], "3g", (1, Placement(4, "3g"))),
        (PreferredStarts(), [HALF], "3g", (0, Placement(4, "3g"))),
        (PreferredStarts(), [(Placement(4, "3g"),)], "3g", None),
    ],
)
def test_each_rule_takes_its_place(
    rule: Rule, gpus: list[tuple[Placement, ...]], profile: str, place: tuple[int, Placement] | None
) -> None:
    assert rule.choose(gpus, profile) == place


def test_nothing_beats_the_optimum_and_every_geometry_is_legal() -> None:
    for mix in MIXES.values():
        events = stream(mix, 1.0, 2, 25, 7)
        most = Optimum(2).accepted(events, by_slices=False)
        for method in methods(2, mix):
            score = run(method, events, mix, 0)
            assert score.accepted <= most + 1e-6
            assert all(not illegality(PRODUCT, gpu) for gpu in method.gpus)


def test_the_bench_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpus", "2", "--seeds", "1", "--arrivals", "10", "--loads", "100", "--small-streams", "1"]) == 0
    said = capsys.readouterr().out
    assert "uniform, load 100%" in said
    assert "Left out" in said
