"""`plan` and `explain`: against the real REST API over fakes, and against answers that fakes seldom give."""

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.scripted_http import scripted_server

PLAN = {
    "actions": [
        {
            "kind": "load",
            "server": "s0",
            "model": "m",
            "version": 2,
            "target": "t",
            "stage": 1,
            "reason": "It is [red]needed.",
        },
        {
            "kind": "unload",
            "server": "s1",
            "model": "n",
            "version": None,
            "target": "",
            "stage": 0,
            "reason": "Nobody needs it.",
        },
    ],
    "waiting": [{"server": "s2", "model": "w", "reason": "It is tried again at 12."}],
    "infeasible": [{"deployment": "huge", "reasons": ["No server has 8 TiB.", "No pool."]}],
    "placement": [{"server": "s0", "deployment": "d", "reason": "It holds it already."}],
}
EXPLANATION = {
    "deployment": "d",
    "summary": "degraded: 1 of 2 replicas serve (3 asked for).",
    "replicas": [
        {"server": "s0", "version": 2, "why_here": "It holds it already.", "state": "serving", "reason": ""},
        {"server": "s1", "version": 2, "why_here": "It has room.", "state": "failed", "reason": "[torn] file"},
    ],
    "missing": ["One replica has no place."],
    "waiting": ["Server 's1', model 'm': later"],
}


def test_a_plan_shows_steps_what_waits_what_cannot_be_and_the_placement() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/plan", PLAN)
        shown = run_here("plan", "--url", server.url)
        as_json = run_here("plan", "--json", "--url", server.url)
    assert (shown.code, shown.err, as_json.data) == (0, "", PLAN)
    for row in (
        "1 load s0 m:2 t It is [red]needed.",
        "0 unload s1 n Nobody needs it.",
        "s2 w It is tried again at 12.",
        "huge infeasible No server has 8 TiB. No pool.",
        "d s0 It holds it already.",
    ):
        assert row in shown.flat


def test_a_fleet_at_rest_has_nothing_to_do_and_its_deployment_is_explained() -> None:
    with answering(Rig()) as url:
        assert run_here("deploy", "b", "--url", url).code == 0
        plan = run_here("plan", "--url", url)
        explained = run_here("explain", "b", "--url", url)
        unknown = run_here("explain", "x", "--url", url, "--json")
    assert (plan.code, plan.out.splitlines()[0].strip()) == (0, "nothing is to be done now")
    assert "b s0" in plan.flat
    assert explained.out.startswith("b: serving: 1 of 1 replicas serve (one on every server).\n")
    assert "s0, version 1: serving. Here because: " in explained.flat
    assert (unknown.code, unknown.out) == (1, "")
    assert "There is no deployment 'x'" in unknown.flat


def test_an_explanation_tells_what_is_missing_and_what_waits() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/deployments/d/explain", EXPLANATION)
        shown = run_here("explain", "d", "--url", server.url)
        as_json = run_here("explain", "d", "--json", "--url", server.url)
    assert as_json.data == EXPLANATION
    assert shown.out.splitlines() == [
        "d: degraded: 1 of 2 replicas serve (3 asked for).",
        "  s0, version 2: serving. Here because: It holds it already.",
        "  s1, version 2: failed ([torn] file). Here because: It has room.",
        "  missing: One replica has no place.",
        "  waiting: Server 's1', model 'm': later",
    ]
