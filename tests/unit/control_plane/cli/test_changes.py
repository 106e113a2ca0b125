"""`scale`, `rollback` and `revisions` against the real REST API over fakes."""

from collections.abc import Iterator

import pytest

from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig


@pytest.fixture
def url() -> Iterator[str]:
    with answering(Rig()) as address:
        assert run_here("deploy", "b", "--replicas", "1", "--url", address).code == 0
        yield address


def test_a_deployment_is_scaled_shown_and_rolled_back(url: str) -> None:
    scaled = run_here("scale", "b", "--instances", "3", "--wait", "30", "--url", url)
    assert (scaled.code, scaled.err) == (0, "")
    assert "b: serving (model b, revision 2)" in scaled.out
    rows = run_here("revisions", "b", "--url", url).flat
    assert rows.index("b:1 1 replicas, 3 instances") < rows.rindex("b:1 1 replicas")
    back = run_here("rollback", "b", "--to", "1", "--json", "--url", url)
    assert (back.code, back.data["revision"], back.data["needs"]["instances"]) == (0, 3, "config")
    assert run_here("rollback", "b", "--wait", "0", "--json", "--url", url).data["needs"]["instances"] == 3
    kept = run_here("revisions", "b", "--json", "--url", url).data["revisions"]
    assert [it["revision"] for it in kept] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scale", "b", "--instances", "3"), "0 scale s0 b:1 1 instance is running, 3 asked for."),
        (("deploy", "a", "--version", "1"), "0 load s0 a:1 Not loaded, needed by 'a'."),
        (("deploy", "b", "--redeploy"), "nothing is to be done now"),
        (("undeploy", "b"), "0 unload s0 b No deployment needs it."),
        (("server", "drain", "s0"), "Stays until deployment 'b' has another server"),
    ],
)
def test_a_dry_run_shows_the_plan_and_changes_nothing(url: str, arguments: tuple[str, ...], said: str) -> None:
    before = run_here("status", "--json", "--url", url).data
    tried = run_here(*arguments, "--dry-run", "--url", url)
    assert (tried.code, tried.err) == (0, "")
    assert said in tried.flat
    assert "dry run: nothing was changed" in tried.flat
    told = run_here(*arguments, "--dry-run", "--json", "--url", url).data
    assert told["dry_run"] is True
    assert run_here("status", "--json", "--url", url).data == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("scale", "b"), 2, "give --replicas, --instances or both"),
        (("scale", "b", "--replicas", "-1"), 2, "--replicas"),
        (("scale", "b", "--instances", "0"), 2, "--instances"),
        (("scale", "b", "--instances", "100000"), 1, "less than or equal to 256"),
        (("scale", "x", "--instances", "2"), 1, "There is no deployment 'x'"),
        (("rollback", "b"), 1, "is at revision 1"),
        (("rollback", "b", "--to", "9"), 1, "revision 9"),
        (("rollback", "b", "--to", "0"), 2, "--to"),
        (("rollback", "x"), 1, "There is no deployment 'x'"),
        (("revisions", "x"), 1, "There is no deployment 'x'"),
        (("revisions", "../servers"), 1, "error: "),
    ],
)
def test_what_cannot_be_is_told(url: str, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended = run_here(*arguments, "--url", url)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.flat
