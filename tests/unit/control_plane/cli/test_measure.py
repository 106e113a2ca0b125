"""`measure` where it must not start a server: what is wrong with the options or the version, and what to do."""

import json
from pathlib import Path

import pytest

from tests.command_line import run_here
from tests.small_models import ensemble, multiplier


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    multiplier(tmp_path, "m", 2.0)
    ensemble(tmp_path, "over", "m")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("m", "--batch-sizes", "1,x"), "'1,x': expected numbers of at least 1, such as 1,8,32"),
        (("m", "--concurrency", "0"), "'0': expected numbers of at least 1"),
        (("m", "--instances", "1,-2"), "'1,-2': expected numbers of at least 1"),
        (("m", "--shape", "X"), "'X': expected NAME:DIM,DIM such as ids:128"),
        (("over", "--instances", "2"), "an ensemble has no instances of its own; measure its members for that"),
    ],
)
def test_options_that_make_no_sweep_are_wrong_usage(repository: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = run_here("measure", *arguments, "-r", str(repository))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.flat


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x",), "Model 'x' is not in the model repository."),
        (("m:7",), "Model 'm' has no version 7"),
        (("m:new",), "'m:new': expected MODEL or MODEL:VERSION"),
        (("m", "--target", "onnxruntime-cpu-int8"), "m/1 has no target onnxruntime-cpu-int8; there are: none"),
        (("m", "--requests", "nowhere.json"), "nowhere.json: no such file (requests to measure with)"),
    ],
)
def test_what_cannot_be_measured_is_told_before_a_server_starts(
    repository: Path, arguments: tuple[str, ...], said: str
) -> None:
    ended = run_here("measure", *arguments, "-r", str(repository))
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.flat


def test_requests_that_are_none_are_refused(repository: Path) -> None:
    (repository / "empty.json").write_text(json.dumps([]))
    ended = run_here("measure", "m", "-r", str(repository), "--requests", str(repository / "empty.json"))
    assert ended.code == 1
    assert "empty.json: holds no request" in ended.flat


def test_a_server_that_does_not_answer_ends_with_3(repository: Path) -> None:
    ended = run_here("measure", "m", "-r", str(repository), "--url", "127.0.0.1:1", "--profiles", str(repository / "p"))
    assert (ended.code, ended.out) == (3, "")
    assert "127.0.0.1:1 did not answer" in ended.flat
    assert not (repository / "p").exists()
