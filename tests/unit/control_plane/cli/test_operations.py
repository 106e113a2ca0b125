"""`operations` and `cancel`: against the real REST API over fakes, and against operations that still run."""

from typing import Any

import pytest

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.scripted_http import Answer, scripted_server


def a_step(number: int, state: str, **more: Any) -> dict[str, Any]:
    """Return a step as the API has it."""
    step = {"number": number, "server": "s0", "model": "m", "version": number, "action": "load", "state": state}
    rest = {"reason": "It is needed.", "attempts": 1, "cause": "", "error_kind": None}
    return {**step, **rest, "started_at": None, "ended_at": None, "retry_at": None, **more}


def an_operation(state: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an operation as the API has it."""
    head = {"id": "deploy-0a1b2c3d4e5f", "kind": "deploy", "deployment": "d", "revision": 3, "server": ""}
    at = "2026-01-01T00:00:00Z"
    rest = {"cause": "", "cancel_asked": False, "created_at": at, "updated_at": at, "steps": list(steps)}
    return {**head, "state": state, **rest, **more}


def test_operations_are_listed_and_each_shows_its_steps() -> None:
    with answering(Rig()) as url:
        assert run_here("operations", "--url", url).out == "no such operation\n"
        assert run_here("deploy", "b", "--url", url).code == 0
        listed = run_here(
            "operations", "--deployment", "b", "--state", "done", "--server", "s0", "--json", "--url", url
        )
        (operation,) = listed.data["operations"]
        row = run_here("operations", "--url", url)
        shown = run_here("operations", operation["id"], "--url", url)
        as_json = run_here("operations", operation["id"], "--json", "--url", url)
        late = run_here("cancel", operation["id"], "--url", url)
    assert f"{operation['id']} done b 1/1 " in row.flat
    assert f"{operation['id']} of b, revision 1: done" in shown.out
    assert "1 load b:1 s0 done" in shown.flat
    assert as_json.data == operation
    assert (late.code, "It has ended" in late.err) == (1, True)


def test_filters_are_sent_and_older_ones_are_pointed_to() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/operations", {"operations": [an_operation("failed", cause="No [room]")], "next": "n"})
        ended = run_here("operations", "--state", "failed", "--state", "done", "--limit", "1", "--url", server.url)
    assert server.asked[0].path == "/v1/operations?limit=1&state=failed&state=done"
    assert "deploy-0a1b2c3d4e5f failed d 0/0 " in ended.flat
    assert "No [room]" in ended.out
    assert ended.err == "there are older ones: --limit shows more\n"


def test_a_cancelled_operation_tells_what_waits_and_why() -> None:
    waiting = a_step(1, "waiting", attempts=2, cause="No [room]", retry_at="2026-01-01T00:00:09Z")
    asked = an_operation("running", waiting, a_step(2, "running"), cancel_asked=True)
    with scripted_server() as server:
        server.answer("POST /v1/operations/deploy-0a1b2c3d4e5f/cancel", Answer(asked))
        ended = run_here("cancel", "deploy-0a1b2c3d4e5f", "--url", server.url)
        as_json = run_here("cancel", "deploy-0a1b2c3d4e5f", "--json", "--url", server.url)
    assert (ended.code, as_json.data) == (0, asked)
    assert "of d, revision 3: running (to be cancelled)" in ended.out
    assert "1 load m:1 s0 waiting (attempt 2) No [room]; again at " in ended.flat


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("operations", "--state", "over"), 2, "--state"),
        (("operations", "--limit", "0"), 2, "--limit"),
        (("operations", "--limit", "501"), 2, "--limit"),
        (("operations", "deploy-0a1b2c3d4e5f", "--limit", "5"), 2, "An ID is one operation"),
        (("operations", "deploy-0a1b2c3d4e5f"), 1, "There is no operation 'deploy-0a1b2c3d4e5f'"),
        (("operations", "[/x]"), 1, "error: "),
        (("cancel", "deploy-0a1b2c3d4e5f"), 1, "There is no operation 'deploy-0a1b2c3d4e5f'"),
        (("cancel",), 2, "Missing argument"),
    ],
)
def test_what_cannot_be_is_told(arguments: tuple[str, ...], code: int, said: str) -> None:
    with answering(Rig()) as url:
        ended = run_here(*arguments, "--url", url)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.flat
