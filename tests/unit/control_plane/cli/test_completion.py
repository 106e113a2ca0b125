"""What the shell offers for values, asked as the shell does; without a control plane nothing, and no word of it."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from control_plane.cli.completion import BACKENDS, join_bash_words
from control_plane.state import ModelName
from tests.command_line import run_apart, run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_package, a_server
from tests.scripted_http import Answer, scripted_server


def in_bash(line: str) -> dict[str, str]:
    """Return what Typer's script for bash asks with: a word a line, and one for each ':' and '=' (COMP_WORDBREAKS)."""
    words = [piece for word in line.split(" ") for piece in re.findall(r"[^:=]+|[:=]+", word) or [""]]
    return {
        "_TRITONFLEET_COMPLETE": "complete_bash",
        "COMP_CWORD": str(len(words) - 1),
        "COMP_WORDS": "\n".join(words),
    }


def offered(line: str, **more: str) -> list[str]:
    """Return what is offered for the last word of a command line in bash; nothing may be said beside that."""
    ended = run_apart(**in_bash(line), **more)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out.split()


@contextmanager
def dripping() -> Iterator[str]:
    """Yield the address of a server that begins an answer and never ends it, nor is it silent."""
    ended = Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not ended.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=drip, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    rig = Rig(a_server("s0"), a_server("s1"))
    rig.catalogue.published[ModelName("bee")] = a_package("bee")
    with answering(rig) as address:
        assert run_here("deploy", "b", "--url", address).code == 0
        yield address


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("scale ", ["b"]),
        ("explain b", ["b"]),
        ("status x", []),
        ("undeploy ", ["b"]),
        ("deploy b", ["b", "bee"]),
        ("endpoints ", ["a", "b", "bee", "e", "unbuilt"]),
        ("server drain s", ["s0", "s1"]),
        ("server release s0 ", []),
        ("deploy b --pool ", ["default="]),
        ("deploy b --pool=d", ["default="]),
        ("deploy b --pool default=", []),
        ("deploy b --precision f", ["fp16", "fp32", "fp8"]),
        ("deploy b --precision=in", ["int8"]),
        ("server add s2 --backend o", ["onnxruntime", "openvino"]),
        ("server add s2 --pool d", ["default"]),
        ("operations --server s1", ["s1"]),
        ("cancel ", []),
    ],
)
def test_names_come_from_the_control_plane(url: str, line: str, names: list[str]) -> None:
    assert offered(f"tritonfleet {line}", TRITONFLEET_URL=url) == names


def test_operations_and_an_address_on_the_line(url: str) -> None:
    (operation,) = offered(f"tritonfleet operations --url {url} deploy")
    assert operation.startswith("deploy-")
    assert offered(f"tritonfleet server show --url={url} s1") == ["s1"]


def test_other_shells_give_words_whole_and_take_them_whole(url: str) -> None:
    line = {"_TYPER_COMPLETE_ARGS": f"tritonfleet deploy b --url {url} --pool d"}
    ended = run_apart(_TRITONFLEET_COMPLETE="complete_zsh", **line)
    assert (ended.code, ended.err, ended.out) == (0, "", "_arguments '*: :((\"default=\"))'\n")


def test_a_token_on_the_line_is_sent() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/deployments", {"deployments": [{"name": "d"}]})
        assert offered(f"tritonfleet scale --url {server.url} --token secret ") == ["d"]
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer secret"]


def test_what_is_quarantined_on_the_server_that_was_named() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/servers/s0", {"quarantined": {"m": "why", "n": "why"}})
        assert offered("tritonfleet server release s0 ", TRITONFLEET_URL=server.url) == ["m", "n"]


def test_packages_come_from_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.toml").touch()
    assert offered(f"tritonfleet verify -r {tmp_path} ") == ["mine"]
    assert offered(f"tritonfleet build -r {tmp_path / 'nothing'} ") == []
    assert offered(f"tritonfleet build -r {tmp_path / ('x' * 300)} ") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tf scale ", ["tf", "scale", ""]),
        ("tf --url http://h:1 s", ["tf", "--url", "http://h:1", "s"]),
        ("tf --url http://h:1 ", ["tf", "--url", "http://h:1", ""]),
        ("tf --url=http://[::1]:1/ --pool=", ["tf", "--url=http://[::1]:1/", "--pool="]),
        ("tf m:", ["tf", "m:"]),
    ],
)
def test_words_that_bash_broke_are_joined(line: str, words: list[str]) -> None:
    environ = in_bash(line)
    join_bash_words(environ)
    assert environ == in_bash("") | {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}


@pytest.mark.parametrize(
    "wrong",
    [{"COMP_CWORD": "x"}, {"COMP_CWORD": "99"}, {"COMP_CWORD": "-1"}, {"_TRITONFLEET_COMPLETE": "complete_zsh"}],
)
def test_what_is_no_question_of_bash_stays_as_it_is(wrong: dict[str, str]) -> None:
    environ = {**in_bash("tf m:"), **wrong}
    before = dict(environ)
    join_bash_words(environ)
    assert environ == before


def test_words_behind_the_cursor_do_not_count() -> None:
    environ = {**in_bash("tf --url a:1 --pool b"), "COMP_CWORD": "4"}
    join_bash_words(environ)
    assert (environ["COMP_WORDS"], environ["COMP_CWORD"]) == ("tf\n--url\na:1", "2")


def test_backends_are_sorted_and_each_once() -> None:
    assert sorted(set(BACKENDS)) == list(BACKENDS)


def test_without_an_answer_nothing_is_offered_soon() -> None:
    assert offered("tritonfleet scale ", TRITONFLEET_URL="http://127.0.0.1:1") == []
    assert offered("tritonfleet scale ", TRITONFLEET_URL="no address") == []
    with scripted_server() as server:
        server.answer("GET /v1/deployments", {"deployments": "what"})
        assert offered("tritonfleet scale ", TRITONFLEET_URL=server.url) == []
        server.answer("GET /v1/deployments", Answer(b"[" * 100_000))
        assert offered("tritonfleet scale ", TRITONFLEET_URL=server.url) == []
        odd = json.dumps({"deployments": [{"name": "\ud800"}, {"name": "a\nb"}, {"name": "\x1b[2J"}, {"name": "d"}]})
        server.answer("GET /v1/deployments", Answer(odd.encode()))
        assert offered("tritonfleet scale ", TRITONFLEET_URL=server.url) == ["d"]
    assert offered("tritonfleet scale --token \u00e9 ", TRITONFLEET_URL=server.url) == []
    with dripping() as url:
        assert offered("tritonfleet scale ", TRITONFLEET_URL=url) == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert offered("tritonfleet scale ", TRITONFLEET_URL=f"http://127.0.0.1:{silent.getsockname()[1]}") == []
        assert time.monotonic() - begun < 15
