"""What may be asked of a deployment: sent as the API takes it, kept by --redeploy, refused where it makes no sense."""

import json

import pytest

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_server
from tests.scripted_http import scripted_server

EVERY_OPTION = (
    *("--replicas", "1", "--max-replicas", "2", "--pool", "gpu=0", "--instances", "2", "--priority", "-5"),
    *("--owner", "search", "--isolation", "dedicated", "--drift", "report", "--require-capability", "8.9"),
    *("--require-capability", "9.0", "--require-memory", "8GiB", "--label", "zone=a", "--require-mig", "3g.40gb"),
    *("--spread", "node"),
)


def test_every_option_is_sent_and_those_given_again_are_changed() -> None:
    with answering(Rig()) as url:
        made = run_here("deploy", "b", *EVERY_OPTION, "--anyway", "--wait", "0", "--json", "--url", url)
        assert (made.code, made.err) == (0, "")
        needs = made.data["needs"]
        assert needs == {
            "replicas": {"min": 1, "max": 2},
            "pools": {"gpu": {"min": 0, "max": None}},
            "instances": 2,
            "objectives": {"p99_ms": None, "ttft_ms": None, "tbt_ms": None},
            "requirements": {
                "compute_capabilities": ["8.9", "9.0"],
                "memory_bytes": 8 * 2**30,
                "mig_profile": "3g.40gb",
                "labels": {"zone": "a"},
            },
            "isolation": "dedicated",
            "priority": -5,
            "owner": "search",
            "drift": "report",
            "spread": "node",
        }
        changed = run_here(
            *("deploy", "b", "--redeploy", "--max-replicas", "3", "--pool", "mig=1", "--require-capability", "any"),
            *("--instances", "config", "--label", "any", "--require-mig", "any", "--owner", "ads", "--anyway"),
            *("--wait", "0", "--json", "--url", url),
        )
    assert (changed.code, changed.err) == (0, "")
    assert changed.data["needs"] == {
        **needs,
        "replicas": {"min": 1, "max": 3},
        "pools": {"gpu": {"min": 0, "max": None}, "mig": {"min": 1, "max": None}},
        "requirements": {**needs["requirements"], "compute_capabilities": [], "mig_profile": "", "labels": {}},
        "instances": "config",
        "owner": "ads",
    }


def test_what_no_server_can_hold_is_refused_unless_anyway() -> None:
    with answering(Rig()) as url:
        assert run_here("deploy", "b", "--name", "first", "--url", url).code == 0  # the loop has looked by now
        refused = run_here("deploy", "b", "--require-memory", "8TiB", "--url", url, "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "error: The deployment cannot be served" in refused.err


def test_a_split_serves_several_versions_at_once_and_can_be_changed() -> None:
    with answering(Rig(a_server("s0"), a_server("s1"))) as url:
        made = run_here(
            *(
                "deploy",
                "a",
                "--replicas",
                "2",
                "--split",
                "1=70",
                "--split",
                "newest=30%",
                "--url",
                url,
                "--wait",
                "30",
            )
        )
        assert (made.code, made.err) == (0, "")
        assert "traffic: version 1 70 %, version 2 30 %" in made.flat
        again = ("deploy", "a", "--redeploy", "--split", "2=60", "--split", "1=40", "--json", "--url", url)
        changed = run_here(*again).data
    assert [(it["version"], it["share"]) for it in changed["others"]] == [(1, 40)]
    assert changed["version"] == 2


def test_a_change_made_around_the_present_revision_is_sent_with_that_revision() -> None:
    present = {"name": "d", "revision": 7, "needs": {"replicas": "everywhere", "pools": {}, "requirements": {}}}
    with scripted_server() as server:
        server.answer("GET /v1/deployments/d", present)
        run_here("deploy", "m", "--name", "d", "--redeploy", "--replicas", "2", "--url", server.url)
        bounded = run_here("deploy", "m", "--name", "d", "--redeploy", "--max-replicas", "2", "--url", server.url)
    posted = server.asked[1]
    assert (posted.path, posted.headers["if-match"]) == ("/v1/deployments/d/redeploy?wait=5", '"7"')
    assert json.loads(posted.body) == {"replicas": {"min": 2}}
    assert (bounded.code, "give both" in bounded.flat) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--replicas", "-1"), "--replicas"),
        (("--replicas", "3", "--max-replicas", "2"), "--max-replicas is below --replicas"),
        (("--pool", "gpu"), "two sides"),
        (("--pool", "gpu=many"), "whole number of 0 or more"),
        (("--pool", "gpu=1", "--pool", "gpu=2"), "gpu is named twice"),
        (("--instances", "0"), "--instances"),
        (("--instances", "few"), "--instances"),
        (("--priority", "high"), "--priority"),
        (("--isolation", "alone"), "--isolation"),
        (("--drift", "ignore"), "--drift"),
        (("--require-capability", "sm_89"), "such as 8.9"),
        (("--require-capability", "any", "--require-capability", "8.9"), "stands alone"),
        (("--require-memory", "lots"), "such as 8GiB"),
        (("--label", "zone"), "name=value"),
        (("--split", "1=50"), "add up to 50"),
        (("--split", "1=50", "--split", "1=50"), "1 is named twice"),
        (("--split", "0=100"), "whole number"),
        (("--split", "1=100", "--version", "1"), "leave --version out"),
    ],
)
def test_bad_values_end_with_2_before_anything_is_sent(arguments: tuple[str, ...], said: str) -> None:
    with scripted_server() as server:
        ended = run_here("deploy", "m", *arguments, "--url", server.url)
    assert (ended.code, ended.out, server.asked) == (2, "", [])
    assert said in ended.flat
