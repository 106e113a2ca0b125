"""The README's tour as a user takes it, each command a process of its own, and what is left after Ctrl-C: nothing."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from builders.digests import tree_digests
from control_plane.embedded.command import RUN_VARIABLE
from control_plane.embedded.reaper import processes_of
from tests.command_line import DEADLINE_S, Ended, command_line, environment, run_apart
from tests.embedded_triton import seconds_until

GONE_WITHIN_S = 15.0


@dataclass(slots=True)
class Running:
    """A command that goes on, as the leader of a process group, with its output in files."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def temporary(self) -> Path:
        """What it has for its temporary files."""
        return self.folder / "tmp"

    def started(self) -> list[psutil.Process]:
        """Return the processes that it started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_for(self, what: str, text: str) -> None:
        """Wait until it printed `text` to `what` (out or err)."""
        seconds_until(lambda: text in (self.folder / what).read_text() or self.process.poll() is not None, DEADLINE_S)
        assert self.process.poll() is None, f"{self.process.returncode}: {self.out}{self.err}"

    def wait_for_server(self) -> None:
        """Wait until a tritonserver and everything around it has begun."""

        def is_there() -> bool:
            assert self.process.poll() is None, f"{self.process.returncode}: {self.out}{self.err}"
            return any(_name_of(it) == "tritonserver" for it in self.started())

        seconds_until(is_there, DEADLINE_S)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Running]:
    """Run a command in the background, temporary files in a folder of its own; killed afterwards if it still runs."""
    (folder / "tmp").mkdir(parents=True)
    with ExitStack() as stack:
        out, err = (stack.enter_context((folder / name).open("w")) for name in ("out", "err"))
        process = stack.enter_context(
            subprocess.Popen(
                command_line(*arguments),
                env=environment(TMPDIR=str(folder / "tmp")),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        yield Running(process, folder)


def ends_clean(command: Running, number: signal.Signals, code: int) -> None:
    """Send a signal to its group, as a terminal does, and see that it ends with `code` and leaves nothing."""
    started = command.started()
    marks = {mark for mark in map(_run_of, started) if mark}
    assert marks, "no server was running"
    os.killpg(command.process.pid, number)
    assert command.process.wait(DEADLINE_S) == code, command.err
    nothing_is_left(command, started, marks)


def nothing_is_left(command: Running, started: list[psutil.Process], marks: set[str]) -> None:
    _, alive = psutil.wait_procs(started, timeout=GONE_WITHIN_S)
    assert alive == []
    assert [pid for mark in marks for pid in processes_of(f"{RUN_VARIABLE}={mark}")] == []
    assert list(command.temporary.iterdir()) == []
    assert "Traceback" not in command.err


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _run_of(process: psutil.Process) -> str:
    """Return the mark that every process around one tritonserver carries; empty for the others."""
    try:
        return process.environ().get(RUN_VARIABLE, "")
    except psutil.Error:
        return ""


def free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(it.getsockname()[1]) for it in taken]


@contextmanager
def serving(folder: Path, repository: Path, state: Path) -> Iterator[tuple[Running, str]]:
    """Run `serve` on free ports; yields it and its URL."""
    http, grpc, metrics = free_ports(3)
    ports = ("--port", "0", "--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    with running(folder, "serve", "-r", str(repository), "--state", str(state), *ports) as command:
        command.wait_for("out", "next, in another terminal:")
        found = re.search(r"control plane: (http://127\.0\.0\.1:\d+)", command.out)
        assert found is not None, command.out
        assert f"127.0.0.1:{http}" in command.out
        yield command, found.group(1)


def cli(url: str, *arguments: str) -> Ended:
    ended = run_apart(*arguments, TRITONFLEET_URL=url)
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err
    return ended


def embedding(ended: Ended) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    (output,) = ended.data["outputs"]
    assert (output["shape"], output["datatype"]) == ([1, 384], "float32")
    return np.asarray(output["data"])


def test_the_tour_and_the_same_deployments_after_a_restart(built_repository: Path, tmp_path: Path) -> None:
    state = tmp_path / "state" / "state.db"
    built = run_apart("build", "text_embedding", "-r", str(built_repository), "--json")
    assert [(it["package"], it["version"], it["built"]) for it in built.data] == [
        (name, 1, False) for name in ("sentence_encoder", "text_guard", "text_tokenizer", "text_embedding")
    ]
    text = "The cat sat on the mat."
    with serving(tmp_path / "first", built_repository, state) as (serve, url):
        assert "text_embedding" in cli(url, "status").out
        deployed = cli(url, "deploy", "text_embedding")
        assert "text_embedding: serving" in deployed.out
        assert "text_embedding serving" in cli(url, "status").flat
        status = cli(url, "status", "--json").data
        assert [it["condition"] for it in status["servers"]] == ["healthy"]
        assert [it["status"]["state"] for it in status["deployments"]] == ["serving"]
        assert "embedding float32 1x384" in cli(url, "infer", "text_embedding", text).flat
        over_grpc = embedding(cli(url, "infer", "text_embedding", text, "--json"))
        over_http = embedding(cli(url, "infer", "text_embedding", text, "--json", "--protocol", "http"))
        np.testing.assert_allclose(over_grpc, over_http, atol=1e-5)
        assert abs(np.linalg.norm(over_grpc) - 1) < 1e-5
        tokens = ("-i", "input_ids=[[101, 7592, 102]]", "-i", "token_count=[[3]]")
        embedding(cli(url, "infer", "sentence_encoder", *tokens, "--json"))
        (tmp_path / "long.json").write_text(json.dumps([["a" * 131_073]]))
        refused = run_apart("infer", "text_embedding", "-i", f"text=@{tmp_path / 'long.json'}", "--url", url)
        assert (refused.code, refused.out) == (1, "")
        assert "131073 characters" in refused.flat
        ends_clean(serve, signal.SIGTERM, 0)
        assert serve.err.endswith("stopped\n")
    with serving(tmp_path / "second", built_repository, state) as (serve, url):
        seconds_until(
            lambda: cli(url, "status", "text_embedding", "--json").data["status"]["state"] == "serving", DEADLINE_S
        )
        again = embedding(cli(url, "infer", "text_embedding", text, "--json"))
        np.testing.assert_allclose(over_grpc, again, atol=1e-5)
        assert cli(url, "undeploy", "text_embedding").out == "text_embedding is gone\n"
        status = cli(url, "status", "--json").data
        assert status["deployments"] == []
        assert [row for it in status["servers"] for row in it["models"] if row["state"] == "READY"] == []
        nowhere = run_apart("infer", "text_embedding", text, "--url", url)
        assert nowhere.code == 1
        assert "Deploy it: tritonfleet deploy text_embedding" in nowhere.flat
        ends_clean(serve, signal.SIGINT, 0)


def test_ctrl_c_while_serve_is_still_starting_leaves_nothing(built_repository: Path, tmp_path: Path) -> None:
    arguments = ("serve", "-r", str(built_repository), "--state", str(tmp_path / "state.db"), "--port", "0")
    ports = zip(("--http-port", "--grpc-port", "--metrics-port"), free_ports(3), strict=True)
    with running(tmp_path / "run", *arguments, *(word for pair in ports for word in pair)) as command:
        command.wait_for_server()
        ends_clean(command, signal.SIGINT, 0)
        assert "control plane:" not in command.out


def test_a_demo_shows_figures_and_leaves_nothing(built_repository: Path, tmp_path: Path) -> None:
    before = tree_digests(built_repository)
    with running(tmp_path / "run", "demo", "-r", str(built_repository), "--seconds", "1", "--json") as command:
        command.wait_for_server()
        started = command.started()
        marks = {mark for mark in map(_run_of, started) if mark}
        assert command.process.wait(DEADLINE_S) == 0, command.err
        nothing_is_left(command, started, marks)
        report = Ended(0, command.out, command.err).data
    assert tree_digests(built_repository) == before
    assert all(report[figure] > 0 for figure in ("requests", "requests_per_s", "p50_ms", "p99_ms"))
    assert report["p99_ms"] >= report["p50_ms"]
    assert report["grpc_http_difference"] < 1e-5
    assert {row["sentence"]: row["nearest"] for row in report["neighbours"]}["A cat sleeps on the sofa."] == (
        "The kitten naps on the couch."
    )
    assert [it["package"] for it in report["built"]] == [
        "sentence_encoder",
        "text_guard",
        "text_tokenizer",
        "text_embedding",
    ]


def test_a_demo_for_people_fits_a_screen(built_repository: Path, tmp_path: Path) -> None:
    ended = run_apart("demo", "-r", str(built_repository), "--seconds", "0.5", TMPDIR=str(tmp_path))
    assert ended.code == 0, ended
    assert len(ended.out.splitlines()) <= 30
    for part in ("cosine at least ", "deployed through REST", "kitten", "requests/s, p50", "gRPC and HTTP agree"):
        assert part in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_interrupted_leaves_nothing(
    built_repository: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with running(tmp_path / "run", "demo", "-r", str(built_repository), "--seconds", "100", "--json") as command:
        command.wait_for_server()
        ends_clean(command, number, code)
        assert command.out == ""
