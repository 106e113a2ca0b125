"""What the shell offers for values, asked as the shell does; without a control plane nothing, and no word of it."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.state import ModelName
from tests.command_line import run_apart, run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_package, a_server
from tests.scripted_http import scripted_server


def offered(line: str, **more: str) -> list[str]:
    """Return what is offered for the last word of a command line; nothing may be said beside that."""
    words = line.split(" ")
    ended = run_apart(_TRITONFLEET_COMPLETE="complete_bash", COMP_CWORD=str(len(words) - 1), COMP_WORDS=line, **more)
    assert (ended.code, ended.err) == (0, ""), ended
    return ended.out.split()


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
        ("deploy b --precision f", ["fp16", "fp32", "fp8"]),
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


def test_what_is_quarantined_on_the_server_that_was_named() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/servers/s0", {"quarantined": {"m": "why", "n": "why"}})
        assert offered("tritonfleet server release s0 ", TRITONFLEET_URL=server.url) == ["m", "n"]


def test_packages_come_from_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.toml").touch()
    assert offered(f"tritonfleet verify -r {tmp_path} ") == ["mine"]
    assert offered(f"tritonfleet build -r {tmp_path / 'nothing'} ") == []


def test_without_an_answer_nothing_is_offered_soon() -> None:
    assert offered("tritonfleet scale ", TRITONFLEET_URL="http://127.0.0.1:1") == []
    assert offered("tritonfleet scale ", TRITONFLEET_URL="no address") == []
    with scripted_server() as server:
        server.answer("GET /v1/deployments", {"deployments": "what"})
        assert offered("tritonfleet scale ", TRITONFLEET_URL=server.url) == []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert offered("tritonfleet scale ", TRITONFLEET_URL=f"http://127.0.0.1:{silent.getsockname()[1]}") == []
        assert time.monotonic() - begun < 15
