"""Finding, killing and sweeping what belongs to one run, and nothing else; and the script on a stand-in server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.embedded import reaper
from tests.embedded_triton import seconds_until

MARK = f"TRITONFLEET_TEST_RUN={os.getpid()}"
STRAY = "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"


@pytest.fixture
def marked() -> Iterator[subprocess.Popen[bytes]]:
    name, _, value = MARK.partition("=")
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, name: value}, start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    name, _, value = MARK.partition("=")
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, name: value + "0"}) as process:
        yield process
        process.kill()


def test_start_times_tell_processes_apart(marked: subprocess.Popen[bytes]) -> None:
    assert reaper.start_time_of(marked.pid) is not None
    marked.kill()
    os.waitid(os.P_PID, marked.pid, os.WEXITED | os.WNOWAIT)
    assert reaper.start_time_of(marked.pid) is None  # a zombie is gone
    assert reaper.start_time_of(2**22 + 1) is None


def test_a_run_is_killed_and_its_bystanders_are_not(
    marked: subprocess.Popen[bytes], bystander: subprocess.Popen[bytes]
) -> None:
    # Its environment shows a moment after Popen returns, which is why `kill_run` looks twice.
    seconds_until(lambda: list(reaper.processes_of(MARK)) == [marked.pid], deadline_s=5)
    assert reaper.kill_run(MARK) == []
    assert marked.wait(5) == -signal.SIGKILL
    assert bystander.poll() is None


def test_only_the_runs_own_shared_memory_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "SHARED_MEMORY", tmp_path)
    for name in ("tritonfleet_r1_a", "tritonfleet_r1_b", "tritonfleet_r10_a", "triton_python_backend_shm_region_x"):
        (tmp_path / name).write_text("")
    assert reaper.sweep_shared_memory("tritonfleet_r1_") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "triton_python_backend_shm_region_x",
        "tritonfleet_r10_a",
    ]


def config(folder: Path, code: str, **more: Any) -> dict[str, Any]:
    """Make a reaper's config for a stand-in server that runs `code`."""
    name, _, value = MARK.partition("=")
    return {
        "argv": [sys.executable, "-c", code],
        "env": {"PATH": os.environ["PATH"], name: value},
        "cpus": None,
        "mark": MARK,
        "shared_memory_prefix": f"tritonfleet_test_{os.getpid()}_",
        "supervisor": {"pid": os.getpid(), "start_time": reaper.start_time_of(os.getpid())},
        "grace_s": 0.3,
        "log": str(folder / "server.log"),
        "log_bytes": 10_000,
        "record": {"run": "r1"},
        "record_path": str(folder / "server.json"),
        "leftovers": [],
        "remove_if_empty": [],
    } | more


def run_reaper(configuration: dict[str, Any]) -> int:
    argv = [sys.executable, "-I", "-S", reaper.__file__]
    return subprocess.run(argv, input=json.dumps(configuration).encode(), timeout=20, check=False).returncode


def test_the_servers_status_and_output_are_passed_on(tmp_path: Path) -> None:
    assert run_reaper(config(tmp_path, "import os, sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")) == 3
    log = (tmp_path / "server.log").read_text().splitlines()
    assert log[0] == "# tritonfleet log part 1"
    assert sorted(log[1:]) == ["err", "out"]
    assert not (tmp_path / "server.json").exists()


def test_a_signal_is_told_as_a_shell_tells_it(tmp_path: Path) -> None:
    assert run_reaper(config(tmp_path, "import os; os.kill(os.getpid(), 9)")) == 128 + 9


def test_strays_in_other_sessions_go_with_the_server(tmp_path: Path) -> None:
    assert run_reaper(config(tmp_path, STRAY)) == 0
    assert list(reaper.processes_of(MARK)) == []


def test_strays_that_dropped_their_environment_go_too(tmp_path: Path) -> None:
    stray = "subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})"
    told = f"import subprocess; print({stray}.pid)"
    assert run_reaper(config(tmp_path, told)) == 0
    assert reaper.start_time_of(int((tmp_path / "server.log").read_text().splitlines()[1])) is None


def test_a_server_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    assert run_reaper(config(tmp_path, "", argv=["/nowhere/tritonserver"])) == reaper.EXIT_NOT_RUN
    assert "cannot run /nowhere/tritonserver" in (tmp_path / "server.log").read_text()


def test_without_its_supervisor_nothing_is_started(tmp_path: Path) -> None:
    somebody_else = {"pid": os.getpid(), "start_time": 1}
    assert run_reaper(config(tmp_path, "print('ran')", supervisor=somebody_else)) == reaper.EXIT_NOT_RUN
    assert "ran" not in (tmp_path / "server.log").read_text()


def test_the_server_is_pinned(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    run_reaper(config(tmp_path, "import os; print(os.sched_getaffinity(0))", cpus=[core]))
    assert f"{{{core}}}" in (tmp_path / "server.log").read_text()


@pytest.mark.parametrize(("code", "status"), [("", 128 + 15), ("signal.signal(15, signal.SIG_IGN);", 128 + 9)])
def test_sigterm_is_passed_on_and_force_follows(tmp_path: Path, code: str, status: int) -> None:
    server = f"import signal, time; {code} print('up', flush=True); time.sleep(1000)"
    argv = [sys.executable, "-I", "-S", reaper.__file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(config(tmp_path, server)).encode())
        process.stdin.close()
        log = tmp_path / "server.log"
        while not (log.exists() and "up" in log.read_text()):
            assert process.poll() is None
        process.terminate()
        assert process.wait(10) == status
