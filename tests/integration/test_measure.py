"""`measure` as a user runs it: a table, a profile and curves from a real tritonserver, and Ctrl-C with nothing left."""

import os
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from builders.measure.profile import parse_profile
from control_plane.embedded.command import RUN_VARIABLE
from control_plane.embedded.reaper import processes_of
from tests.command_line import DEADLINE_S, command_line, environment, run_apart
from tests.embedded_triton import seconds_until
from tests.small_models import multiplier


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    multiplier(folder, "m", 2.0)
    (folder / "m" / "1" / "probes.json").write_text(
        '[{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [3]}]}]'
    )
    return folder


def test_a_sweep_ends_in_a_table_a_profile_and_curves(repository: Path, tmp_path: Path) -> None:
    svg = tmp_path / "drawn" / "curves.svg"
    grid = ("--batch-sizes", "1,9", "--instances", "1,2", "--concurrency", "1,2", "--seconds", "0.2")
    ended = run_apart(
        "measure", "m", "-r", str(repository), *grid, "--profiles", str(tmp_path / "p"), "--svg", str(svg)
    )
    assert ended.code == 0, ended
    (path,) = (tmp_path / "p").iterdir()
    assert f"kept in {path}" in ended.flat
    profile = parse_profile(path.read_bytes(), path=str(path))
    assert path.name == profile.filename
    assert (profile.model, profile.version, profile.complete) == ("m", 1, True)
    assert profile.requests == "from the version's probes: X float32 [1]"
    assert profile.software["triton"].startswith("2.")
    assert [(it.point.instances, it.point.concurrency) for it in profile.points] == [(1, 1), (1, 2), (2, 2)]
    assert all(it.samples and not it.failed and it.throughput > 0 for it in profile.points)
    assert all((it.host_bytes or 0) > 1_000_000 and it.load_seconds > 0 for it in profile.costs)
    assert [it.instances for it in profile.costs] == [1, 2]
    assert "the model takes batches of at most 8" in ended.out
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")  # noqa: S314 - written by the command under test


def test_ctrl_c_amid_a_run_keeps_what_was_measured_and_leaves_no_process(repository: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    grid = ("--batch-sizes", "1", "--instances", "1", "--concurrency", "1,2", "--seconds", "2")
    arguments = ("measure", "m", "-r", str(repository), *grid, "--output", str(profile), "--json")
    with subprocess.Popen(
        command_line(*arguments),
        env=environment(TMPDIR=str(temporary)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            generators: set[int] = set()

            def second_point_runs() -> bool:
                generators.update(_load_generators(process.pid))
                return len(generators) == 2 or process.poll() is not None

            seconds_until(second_point_runs, DEADLINE_S)
            started = psutil.Process(process.pid).children(recursive=True)
            marks = {mark for mark in map(_mark, started) if mark}
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopped early: what was measured until then is kept" in err
    assert marks
    _, alive = psutil.wait_procs(started, timeout=15)
    assert alive == []
    assert [pid for mark in marks for pid in processes_of(f"{RUN_VARIABLE}={mark}")] == []
    assert list(temporary.iterdir()) == []
    kept = parse_profile(profile.read_bytes(), path=str(profile))
    assert [it.point.concurrency for it in kept.points] == [1]
    assert not kept.complete
    assert kept == parse_profile(out, path="standard output")


def _load_generators(pid: int) -> set[int]:
    return {it.pid for it in psutil.Process(pid).children() if "load_generator.py" in " ".join(_words(it))}


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _mark(process: psutil.Process) -> str:
    try:
        return process.environ().get(RUN_VARIABLE, "")
    except psutil.Error:
        return ""
