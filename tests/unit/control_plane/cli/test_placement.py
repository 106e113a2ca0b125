"""`placement size`: CSV in, a table, JSON or a drawing out."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.command_line import run_here

DATA = Path(__file__).parents[3] / "data" / "parvagpu"
ASKED = ("placement", "size", "--product", "a100-80gb", "--profiles", str(DATA / "prof_data"))
HEAD = "scenario,model,slo_latency_ms,request_rate_per_s\n"


def test_every_scenario_is_answered_in_json() -> None:
    ended = run_here(*ASKED, "--scenarios", str(DATA / "scenarios.csv"), "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [(it["scenario"], it["gpus"], it["bound"]) for it in ended.data] == [
        ("S1", 2, 2.0),
        ("S2", 3, 3.0),
        ("S3", 5, 5.0),
        ("S4", 7, 7.0),
    ]
    assert sum(it["count"] for it in ended.data[3]["geometries"]) == 7
    assert {it["gpu"] for it in ended.data[3]["assignments"]} == set(range(7))
    assert all(set(it) >= {"scenario", "gpus", "geometries", "assignments", "bound", "seconds"} for it in ended.data)


def test_a_scenario_is_shown_and_drawn(tmp_path: Path) -> None:
    drawing = tmp_path / "gpus.svg"
    asked = ("--scenarios", str(DATA / "scenarios.csv"), "--scenario", "S4", "--any-start", "--svg", str(drawing))
    ended = run_here(*ASKED, *asked)
    assert "S4: 7 x a100-80gb, proved to be the least" in ended.flat
    assert "3g" in ended.out
    texts = [it.text for it in ET.parse(drawing).iter() if it.tag.endswith("text")]  # noqa: S314 - our own drawing
    assert texts[0] == "S4 on a100-80gb"
    assert "bert" in texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scenario,model\n", ":1: there is no column slo_latency_ms, request_rate_per_s"),
        (f"{HEAD}S,bert,x,1\n", ":2: slo_latency_ms is 'x', and no number"),
        (f"{HEAD}S,bert,1,-1\n", ":2: request_rate_per_s is -1; it must be above 0"),
        (f"{HEAD}S,bert,nan,1\n", "it must be above 0"),
        (f"{HEAD}S,bert,1\n", ":2: it has not as many values as there are columns"),
        (f"{HEAD}S,bert,1,1\n", "the best latency of 'bert' is 13 ms"),
        (f"{HEAD}S,berta,1000,1\n", "nothing was measured of model 'berta'"),
    ],
)
def test_bad_input_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "scenarios.csv"
    path.write_text(text)
    ended = run_here(*ASKED, "--scenarios", str(path))
    assert ended.code == 1
    assert said in ended.flat


def test_other_mistakes(tmp_path: Path) -> None:
    scenarios = ("--scenarios", str(DATA / "scenarios.csv"))
    wrong = run_here("placement", "size", "--product", "a100-80", *scenarios, "--profiles", str(DATA / "prof_data"))
    assert (wrong.code, "did you mean 'a100-80gb'" in wrong.flat) == (2, True)
    none = run_here("placement", "size", "--product", "a100-80gb", *scenarios, "--profiles", str(tmp_path / "x"))
    assert (none.code, "no such folder" in none.flat) == (1, True)
    unknown = run_here(*ASKED, *scenarios, "--scenario", "S9")
    assert (unknown.code, "there is no scenario S9; there are S1, S2, S3, S4" in unknown.flat) == (2, True)
