"""`server ...`: against the real REST API over fakes, and against servers that drain slowly or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_named, a_server
from tests.scripted_http import Answer, scripted_server

ADDRESSES = ("--grpc", "h:2", "--http", "h:1", "--metrics", "h:3")


def a_body(condition: str = "draining", *models: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Return a server as the API has it, with these models and their states."""
    rows = [{"name": name, "version": 1, "state": state, "reason": "", "instances": 2} for name, state in models]
    where = {"http": "h:1", "grpc": "h:2", "metrics": "h:3"}
    device = {"uuid": "GPU-1", "product": "L4", "compute_capability": "8.9", "memory_bytes": 24 * 10**9}
    rest = {
        "triton_version": "2.51.0",
        "labels": {"zone": "a"},
        "devices": [{**device, "mig_profile": ""}],
        "memory_bytes": 10**9,
    }
    since = "2026-01-01T00:00:00Z"
    body = {"id": "s0", "condition": condition, "detail": "", "since": since, "pool": "gpu", "source": "file"}
    used = {"memory_used_bytes": 700 * 2**20, "memory_missing_bytes": 300 * 2**20}
    return {**body, **rest, **used, "endpoints": where, "models": rows, "quarantined": {}, **more}


@pytest.fixture
def rig() -> Rig:
    return Rig(a_server("s0"), a_server("s1"))


@pytest.fixture
def url(rig: Rig) -> Iterator[str]:
    with answering(rig) as address:
        assert run_here("deploy", "b", "--url", address).code == 0
        yield address


def test_servers_are_listed_and_shown(url: str) -> None:
    listed = run_here("server", "list", "--url", url)
    assert "s0 default registered healthy" in listed.flat
    assert [it["id"] for it in run_here("server", "list", "--json", "--url", url).data["servers"]] == ["s0", "s1"]
    shown = run_here("server", "show", "s1", "--url", url)
    assert shown.out.startswith("s1 (pool default, registered): healthy")
    assert "b 1 READY" in shown.flat
    assert run_here("server", "show", "s1", "--json", "--url", url).data["id"] == "s1"


def test_a_server_is_shown_with_its_devices_and_what_is_quarantined() -> None:
    body = a_body("unreachable", detail="No [answer].", quarantined={"m": "It failed 5 times."})
    with scripted_server() as server:
        server.answer("GET /v1/servers/s0", body)
        server.answer("GET /v1/servers", {"servers": [body]})
        server.answer("GET /v1/deployments", {"deployments": []})
        server.answer("GET /v1/models", {"models": []})
        shown = run_here("server", "show", "s0", "--url", server.url)
        status = run_here("status", "--url", server.url)
    for said in (
        "s0 (pool gpu, file): unreachable since ",
        "No [answer].",
        "Triton 2.51.0, 1.0 GB for models, 734.0 MB used, 314.6 MB of it did not come back",
        "labels: zone=a",
        "device GPU-1 L4 8.9 24.0 GB",
        "it holds nothing",
        "m is quarantined: It failed 5 times.",
    ):
        assert said in shown.flat
    assert "s0 gpu file unreachable 20" in status.flat
    assert "s0 m quarantined It failed 5 times." in status.flat


def test_what_is_wrong_with_finding_servers_stands_below_their_table(rig: Rig, url: str) -> None:
    rig.fleet.wrong = ("Name 'x' cannot be [resolved].",)
    for command in (("server", "list"), ("status",)):
        assert "problem: Name 'x' cannot be [resolved]." in run_here(*command, "--url", url).out
    assert run_here("status", "--json", "--url", url).data["problems"] == ["Name 'x' cannot be [resolved]."]


def test_a_server_that_is_not_registered_is_refused_with_its_source() -> None:
    with answering(Rig(a_named("s0", 2).server)) as address:
        ended = run_here("server", "remove", "s0", "--url", address)
    assert ended.code == 1
    assert "the servers file names it (file)" in ended.flat
    assert "Take it out of the file" in ended.flat


def test_a_server_is_added_drained_resumed_restarted_and_removed(rig: Rig, url: str) -> None:
    assert run_here("server", "restart", "s0", "--url", url).out == "s0 is being restarted\n"
    assert [server for server, _ in rig.fleet.restarts] == ["s0"]
    drained = run_here("server", "drain", "s0", "--reason", "a new disk", "--json", "--url", url)
    assert (drained.code, drained.data["id"]) == (0, "s0")
    assert run_here("server", "resume", "s0", "--url", url).out == "s0 is placed on again\n"
    assert run_here("server", "release", "s0", "b", "--url", url).out == "b is tried again on s0\n"
    added = run_here("server", "add", "gpu-7", *ADDRESSES, "--json", "--url", url)
    assert (added.code, added.data["condition"]) == (0, "unreachable")
    assert run_here("server", "remove", "gpu-7", "--url", url).out == "gpu-7 is forgotten\n"


def test_all_that_is_said_of_a_new_server_is_sent(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    with scripted_server() as server:
        server.answer("POST /v1/servers", Answer(a_body(), 201))
        ended = run_here(
            *("server", "add", "gpu-7", *ADDRESSES, "--pool", "gpu", "--label", "zone=a", "--backend", "python"),
            *("--device", "GPU-1,capability=8.9,memory=24GiB,mig=1g.10gb,product=L4", "--memory", "20GiB"),
            *("--model-repository", "/srv/models", "--admin-key-file", str(key), "--url", server.url),
        )
    device = {"uuid": "GPU-1", "compute_capability": "8.9", "memory_bytes": 24 * 2**30, "mig_profile": "1g.10gb"}
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(server.asked[0].body) == {
        "id": "gpu-7",
        "grpc": "h:2",
        "http": "h:1",
        "metrics": "h:3",
        "pool": "gpu",
        "labels": {"zone": "a"},
        "backends": ["python"],
        "devices": [{**device, "product": "L4"}],
        "memory_bytes": 20 * 2**30,
        "repository": "/srv/models",
        "admin_key": "secret",
    }


def test_a_drain_is_followed_and_one_that_does_not_end_ends_with_1() -> None:
    held, empty = a_body("draining", ("m", "READY")), a_body("draining", ("m", "UNAVAILABLE"))
    with scripted_server() as server:
        server.answer("POST /v1/servers/s0/drain", held)
        server.answer("GET /v1/servers/s0", held, empty)
        at_once = run_here("server", "drain", "s0", "--url", server.url)
        ended = run_here("server", "drain", "s0", "--wait", "9", "--url", server.url)
        server.answer("GET /v1/servers/s0", held)
        late = run_here("server", "drain", "s0", "--wait", "0.3", "--url", server.url)
        server.answer("GET /v1/servers/s0", a_body("unreachable", detail="No answer."))
        unknown = run_here("server", "drain", "s0", "--wait", "0.3", "--url", server.url)
    assert (at_once.code, ended.code, late.code, unknown.code) == (0, 0, 1, 1)
    assert "error: s0 still holds m:1 after 0.3 s\nnext: tritonfleet plan" in late.err
    assert "error: s0 is unreachable: what it holds is not known after 0.3 s\n  No answer." in unknown.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "Usage"),
        (("show", "x"), 1, "There is no server 'x'"),
        (("drain", "x"), 1, "There is no server 'x'"),
        (("drain", "s0", "--wait", "-1"), 2, "--wait"),
        (("resume", "x"), 1, "There is no server 'x'"),
        (("restart", "x"), 1, "There is no server 'x'"),
        (("remove", "x"), 1, "There is no server 'x'"),
        (("release", "x", "b"), 1, "There is no server 'x'"),
        (("release", "s0"), 2, "Missing argument"),
        (("release", "s0", "[/x]"), 1, "error: "),
        (("add", "gpu-7"), 2, "Missing option"),
        (("add", "gpu 7", *ADDRESSES), 1, "String should match pattern"),
        (("add", "g", "--grpc", "h", "--http", "h:1", "--metrics", "h:3"), 1, "String should match pattern"),
        (("add", "g", *ADDRESSES, "--label", "zone"), 2, "name=value"),
        (("add", "g", *ADDRESSES, "--memory", "lots"), 2, "such as 8GiB"),
        (("add", "g", *ADDRESSES, "--device", "capability=8.9"), 2, "begins with the device's UUID"),
        (("add", "g", *ADDRESSES, "--device", "GPU-1,power=9"), 2, "and not power"),
        (("add", "g", *ADDRESSES, "--device", "GPU-1,capability=x"), 2, "such as 8.9"),
        (("add", "g", *ADDRESSES, "--admin-key-file", "/nowhere/key"), 1, "/nowhere/key: cannot be read"),
    ],
)
def test_what_cannot_be_is_told(url: str, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = run_here("server", *arguments, *(("--url", url) if arguments else ()))
    assert ended.code == code
    assert said in ended.flat
