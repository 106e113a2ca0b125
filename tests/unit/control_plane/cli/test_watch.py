"""`watch`: against streams that tests write, and against the real REST API over fakes."""

import json
import signal
import subprocess
from typing import Any

import pytest

from tests.command_line import command_line, environment, run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.scripted_http import Answer, scripted_server
from tests.unit.control_plane.cli.test_operations import a_step, an_operation

STREAM = "GET /v1/operations/events"
LIST = "GET /v1/operations"


def sent(*bodies: dict[str, Any]) -> bytes:
    """Return a stream of these operations, and of a comment."""
    events = [f"event: operation\nid: {body['id']}\ndata: {json.dumps(body)}\n\n" for body in bodies]
    return (": still here\n\n" + "".join(events)).encode()


def page(*bodies: dict[str, Any]) -> dict[str, Any]:
    return {"operations": list(bodies), "next": None}


def lines(text: str) -> list[str]:
    """Return lines without the date and the time that they begin with."""
    return [line.split(" ", 2)[2] for line in text.splitlines()]


def test_each_change_of_a_step_is_a_line_until_the_newest_operation_is_done() -> None:
    begun = an_operation("running", a_step(1, "running"), a_step(2, "queued"))
    failed = a_step(2, "waiting", attempts=2, cause="No [room]")
    with scripted_server() as server:
        server.answer(LIST, page(begun))
        between = an_operation("running", a_step(1, "done"), failed)
        done = an_operation("done", a_step(1, "done"), a_step(2, "done", attempts=3))
        server.answer(STREAM, sent(begun, between, between, done))
        ended = run_here("watch", "d", "--url", server.url)
        as_json = run_here("watch", "d", "--json", "--url", server.url)
    name = "deploy-0a1b2c3d4e5f"
    assert (ended.code, ended.err) == (0, "")
    assert lines(ended.out) == [
        f"{name} of d, revision 3: running",
        f"{name} load m:1 on s0: running (It is needed.)",
        f"{name} load m:2 on s0: queued (It is needed.)",
        f"{name} load m:1 on s0: done (It is needed.)",
        f"{name} load m:2 on s0: waiting (attempt 2) (No [room])",
        f"{name} load m:2 on s0: done (attempt 3) (It is needed.)",
        f"{name} of d, revision 3: done",
    ]
    assert [json.loads(line) for line in as_json.out.splitlines()] == [begun, between, done]


def test_an_end_that_the_stream_missed_is_looked_up_and_a_failure_ends_with_1() -> None:
    failed = an_operation("failed", a_step(1, "failed", cause="torn file"), cause="Step 1 failed.")
    with scripted_server() as server:
        server.answer(LIST, page(an_operation("running", a_step(1, "running"))), page(failed))
        server.answer(STREAM, b": still here\n\n")
        ended = run_here("watch", "d", "--url", server.url)
    assert ended.code == 1
    assert "error: deploy-0a1b2c3d4e5f is failed\n  Step 1 failed.\nnext: tritonfleet explain d" in ended.err


def test_a_newer_operation_is_followed_instead() -> None:
    newer = an_operation("done", id="scale-0a1b2c3d4e5f", created_at="2026-01-01T00:00:01Z")
    with scripted_server() as server:
        server.answer(LIST, page(an_operation("running")))
        server.answer(STREAM, sent(an_operation("cancelled", cause="superseded", created_at="2025-01-01T00:00:00Z")))
        server.answer(STREAM, sent(newer))
        ended = run_here("watch", "d", "--url", server.url)
    assert (ended.code, ended.err) == (0, "")


def test_a_stream_that_ends_is_begun_again_and_errors_of_it_are_told() -> None:
    problem = {"title": "Not now", "causes": ["It stops."], "next_step": "Later."}
    with scripted_server() as server:
        server.answer(STREAM, Answer(sent(an_operation("done"))), Answer(problem, 503))
        ended = run_here("watch", "--url", server.url)
        server.answer(STREAM, Answer(b"data: {torn\n\n"))
        torn = run_here("watch", "--url", server.url)
    assert (ended.code, ended.err) == (1, "error: Not now\n  It stops.\nnext: Later.\n")
    assert len(ended.out.splitlines()) == 1
    assert (torn.code, "is no JSON" in torn.err) == (1, True)


def test_a_deployment_that_has_settled_ends_at_once_and_an_unknown_one_is_told() -> None:
    with answering(Rig()) as url:
        assert run_here("deploy", "b", "--url", url).code == 0
        ended = run_here("watch", "b", "--url", url)
        unknown = run_here("watch", "x", "--url", url)
    assert (ended.code, ended.err) == (0, "")
    assert lines(ended.out)[-1].endswith("of b, revision 1: done")
    assert (unknown.code, "There is no deployment 'x'" in unknown.flat) == (1, True)


@pytest.mark.parametrize("command", [("watch",), ("endpoints", "m", "--watch", "--json")])
def test_ctrl_c_ends_a_stream_with_130_and_no_traceback(command: tuple[str, ...]) -> None:
    with scripted_server() as server:
        server.answer(STREAM, sent(an_operation("running")))
        server.answer("GET /v1/endpoints/events", b'data: {"model": "m", "endpoints": []}\n\n')
        following = command_line(*command, "--url", server.url)
        with subprocess.Popen(
            following, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
