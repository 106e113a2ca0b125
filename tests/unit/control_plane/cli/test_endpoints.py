"""`endpoints`: where clients of a model are to go."""

import json

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_server
from tests.scripted_http import Answer, scripted_server


def test_servers_are_shown_with_their_part_of_the_traffic() -> None:
    with answering(Rig(a_server("s0"), a_server("s1"))) as url:
        nobody = run_here("endpoints", "b", "--url", url)
        assert run_here("deploy", "b", "--name", "d", "--url", url).code == 0
        shown = run_here("endpoints", "b", "--url", url)
        as_json = run_here("endpoints", "b", "--json", "--url", url)
        refused = run_here("endpoints", "[/x]", "--url", url)
    assert (nobody.code, nobody.out) == (0, "no server serves b now\n")
    assert "s0 127.0.0.1:1 127.0.0.1:2 d 1 50 % s1 127.0.0.1:1 127.0.0.1:2 d 1 50 %" in shown.flat
    assert [it["server"] for it in as_json.data["endpoints"]] == ["s0", "s1"]
    assert (refused.code, "String should match pattern" in refused.flat) == (1, True)
    assert run_here("endpoints").code == 2


def test_changes_are_followed_each_told_once() -> None:
    before = {"model": "m", "endpoints": []}
    row = {"server": "s0", "http": "h:1", "grpc": "h:2", "deployment": "d", "version": 2, "weight": 1.0}
    after = {"model": "m", "endpoints": [row]}
    streams = [Answer("".join(f"event: endpoints\ndata: {json.dumps(it)}\n\n" for it in (before, after)).encode())]
    streams += [Answer(f": still here\n\ndata: {json.dumps(after)}\n\n".encode()), Answer({}, 503)]
    with scripted_server() as server:
        server.answer("GET /v1/endpoints/events", *streams)
        shown = run_here("endpoints", "m", "--watch", "--url", server.url)
        server.answer("GET /v1/endpoints/events", *streams)
        as_json = run_here("endpoints", "m", "--watch", "--json", "--url", server.url)
    assert shown.code == as_json.code == 1
    assert shown.out.startswith("no server serves m now\n")
    assert shown.out.count("s0") == 1
    assert "h:1" in shown.out
    assert [json.loads(line) for line in as_json.out.splitlines()] == [before, after]
