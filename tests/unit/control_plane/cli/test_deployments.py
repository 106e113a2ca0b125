"""`deploy`, `undeploy` and `status` against the real REST API over fakes."""

from collections.abc import Iterator

import pytest

from control_plane.api import Access
from control_plane.state import ModelName
from tests.command_line import run_here
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_package, with_targets
from tests.scripted_http import Answer, scripted_server

TOKEN = "one two three"  # noqa: S105 - it guards fakes
BODY = {
    "name": "d",
    "model": "m",
    "version": None,
    "pins": [{"model": "m", "version": 1}],
    "precisions": [],
    "allow_unproven": False,
    "others": [],
    "revision": 1,
    "status": {"state": "progressing", "reasons": [], "servers": []},
}


def body(state: str, reason: str = "", model_state: str | None = "LOADING") -> dict[str, object]:
    """Return a deployment in `state` on one server."""
    row = {"model": "m", "version": 1, "state": model_state, "reason": "", "target": ""}
    server = {"server": "s0", "state": state, "reason": reason, "models": [row]}
    return {**BODY, "status": {"state": state, "reasons": [], "servers": [server]}}


@pytest.fixture
def url() -> Iterator[str]:
    with answering(Rig()) as address:
        yield address


def test_deploy_waits_and_shows_what_serves_where(url: str) -> None:
    ended = run_here("deploy", "e", "--url", url)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].strip() == "e: serving (model e, revision 1)"
    rows = [line.split() for line in ended.out.splitlines()[2:]]
    assert rows == [["s0", "a", "2", "READY"], ["s0", "b", "1", "READY"], ["s0", "e", "1", "READY"]]


def test_deploy_as_json_is_the_apis_body(url: str) -> None:
    ended = run_here("deploy", "e", "--name", "first", "--version", "1", "--json", "--url", url)
    assert (ended.code, ended.err) == (0, "")
    assert (ended.data["name"], ended.data["version"], ended.data["status"]["state"]) == ("first", 1, "serving")
    assert run_here("status", "first", "--json", "--url", url).data == ended.data


def test_a_taken_name_is_told_with_the_commands_that_help(url: str) -> None:
    assert run_here("deploy", "e", "--url", url).code == 0
    again = run_here("deploy", "e", "--json", "--url", url)
    assert (again.code, again.out) == (1, "")
    assert "There is a deployment 'e' already (model 'e')." in again.flat
    assert "tritonfleet deploy e --name e --redeploy" in again.flat
    redeployed = run_here("deploy", "e", "--name", "e", "--redeploy", "--json", "--url", url)
    assert (redeployed.code, redeployed.data["revision"]) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deploy", "unbuilt"), "tritonfleet build unbuilt"),
        (("deploy", "nowhere"), "Model 'nowhere' is not in the model repository."),
        (("deploy", "e", "--version", "9"), "9"),
        (("deploy", "e", "--name", "No Such Name"), "String should match pattern"),
        (("deploy", "e", "--redeploy"), "There is no deployment 'e'"),
        (("deploy", "[/x]"), "String should match pattern"),
        (("undeploy", "d"), "There is no deployment at all yet."),
        (("undeploy", "../models"), "error: "),
        (("undeploy", "[/x]?a#b"), "error: "),
        (("status", "d"), "There is no deployment 'd'"),
        (("status", "\udcff"), "error: "),
    ],
)
def test_what_is_refused_ends_with_1_its_causes_and_the_next_step(
    url: str, arguments: tuple[str, ...], said: str
) -> None:
    ended = run_here(*arguments, "--url", url, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.flat
    assert "next: " in ended.err


def test_deployments_that_share_a_model_are_redeployed_together() -> None:
    rig = Rig()
    with answering(rig) as url:
        assert [run_here("deploy", model, "--url", url).code for model in ("e", "b")] == [0, 0]
        rig.triton.published["b"] = FakeModel((1, 2))
        rig.catalogue.published[ModelName("b")] = a_package("b", (1, 2))
        refused = run_here("deploy", "b", "--redeploy", "--url", url)
        assert (refused.code, refused.out) == (1, "")
        assert "Redeploy it and 'e' at once" in refused.flat
        assert "`tritonfleet deploy b --name b --redeploy --together`" in refused.flat
        moved = run_here("deploy", "b", "--name", "b", "--redeploy", "--together", "--json", "--url", url)
        assert (moved.code, moved.data["revision"]) == (0, 2)
        assert run_here("status", "e", "--json", "--url", url).data["revision"] == 2
    assert run_here("deploy", "b", "--together").code == 2


def test_a_token_is_asked_for_and_taken() -> None:
    with answering(Rig(), Access(token=TOKEN)) as url:
        refused = run_here("status", "--url", url)
        assert refused.code == 1
        assert "token" in refused.flat.lower()
        assert run_here("status", "--url", url, "--token", TOKEN).code == 0


def test_undeploy_ends_it(url: str) -> None:
    run_here("deploy", "e", "--url", url)
    assert run_here("undeploy", "e", "--json", "--url", url).data == {"name": "e", "still_loaded": []}
    assert run_here("status", "--json", "--url", url).data["deployments"] == []
    run_here("deploy", "b", "--url", url)
    assert run_here("undeploy", "b", "--url", url).out == "b is gone\n"


def test_undeploy_says_what_is_still_loaded() -> None:
    with scripted_server() as server:
        server.answer("DELETE /v1/deployments/d", Answer({"name": "d", "still_loaded": ["m"]}, 202))
        ended = run_here("undeploy", "d", "--wait", "3", "--url", server.url)
        as_json = run_here("undeploy", "d", "--json", "--url", server.url)
    assert (ended.code, ended.out) == (0, "d is gone; still being unloaded: m\n")
    assert as_json.data == {"name": "d", "still_loaded": ["m"]}
    assert [asked.path for asked in server.asked] == ["/v1/deployments/d?wait=3", "/v1/deployments/d?wait=60"]


def test_status_shows_servers_deployments_and_models(url: str) -> None:
    before = run_here("status", "--url", url)
    assert "no deployment yet: tritonfleet deploy <model>" in before.out
    assert "none: tritonfleet build unbuilt" in before.out
    run_here("deploy", "e", "--url", url)
    after = run_here("status", "--url", url)
    assert (after.code, after.err) == (0, "")
    assert "e serving a:2 b:1 e:1" in after.flat
    assert "s0 default registered healthy 127.0.0.1:1 127.0.0.1:2 3" in after.flat


def test_status_as_json_has_servers_deployments_and_models(url: str) -> None:
    run_here("deploy", "b", "--url", url)
    data = run_here("status", "--json", "--url", url).data
    assert [server["id"] for server in data["servers"]] == ["s0"]
    assert [it["name"] for it in data["deployments"]] == ["b"]
    assert [model["name"] for model in data["models"]] == ["a", "b", "e", "unbuilt"]


def test_deploy_follows_until_it_settles_and_asks_the_control_plane_to_wait_first() -> None:
    with scripted_server() as server:
        server.answer("POST /v1/deployments", Answer(body("progressing"), 202))
        server.answer("GET /v1/deployments/d", body("progressing"), body("serving", model_state="READY"))
        ended = run_here("deploy", "m", "--name", "d", "--json", "--url", server.url)
    assert (ended.code, ended.data["status"]["state"]) == (0, "serving")
    paths = [f"{asked.method} {asked.path}" for asked in server.asked]
    assert paths == ["POST /v1/deployments?wait=5", "GET /v1/deployments/d", "GET /v1/deployments/d"]


@pytest.mark.parametrize("state", ["failed", "degraded"])
def test_a_deployment_that_does_not_serve_ends_with_1_and_its_reasons(state: str) -> None:
    with scripted_server() as server:
        server.answer("POST /v1/deployments", Answer(body(state, "Model 'm': [torn] file [/x]", None), 201))
        ended = run_here("deploy", "m", "--name", "d", "--url", server.url)
        as_json = run_here("deploy", "m", "--name", "d", "--json", "--url", server.url)
    assert ended.code == as_json.code == 1
    assert "s0: Model 'm': [torn] file [/x]" in ended.out
    assert "not loaded" in ended.out
    assert ended.err == f"error: d is {state}\nnext: tritonfleet status d shows it; it goes on being tried\n"
    assert as_json.data["status"]["state"] == state


def test_a_wait_that_runs_out_ends_with_1_and_none_at_all_with_0() -> None:
    with scripted_server() as server:
        server.answer("POST /v1/deployments", Answer(body("progressing"), 202))
        server.answer("GET /v1/deployments/d", body("progressing"))
        late = run_here("deploy", "m", "--name", "d", "--wait", "0.3", "--json", "--url", server.url)
        at_once = run_here("deploy", "m", "--name", "d", "--wait", "0", "--json", "--url", server.url)
    assert late.code == 1
    assert "error: d is still progressing after 0.3 s" in late.err
    assert late.data["status"]["state"] == "progressing"
    assert (at_once.code, at_once.err) == (0, "")
    assert [asked.path for asked in server.asked][-1] == "/v1/deployments"


def test_precisions_and_what_is_allowed_are_sent_kept_and_withdrawn() -> None:
    package = with_targets(a_package("m"), "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8")
    with answering(Rig(packages=(package,))) as address:
        ended = run_here(
            "deploy", "m", "--precision", "fp16", "--precision", "int8", "--allow-unproven", "--url", address
        )
        assert (ended.code, ended.err) == (0, "")
        assert "in fp16 or int8" in ended.flat
        assert "unproven artifacts are allowed" in ended.flat
        assert "s0 m 1 onnxruntime-cpu-int8 READY" in ended.flat
        assert "s0:1 onnxruntime-cpu-int8" in run_here("status", "--url", address).flat
        kept = run_here("deploy", "m", "--redeploy", "--json", "--url", address).data
        assert (kept["precisions"], kept["allow_unproven"]) == (["fp16", "int8"], True)
        again = ("deploy", "m", "--redeploy", "--precision", "default", "--no-allow-unproven", "--url", address)
        back = run_here(*again, "--json").data
        assert (back["precisions"], back["allow_unproven"]) == ([], False)
        assert back["status"]["servers"][0]["models"][0]["target"] == "onnxruntime-cpu-fp32"
        both = run_here("deploy", "m", "--precision", "default", "--precision", "int8", "--url", address)
        assert (both.code, "stands alone" in both.err) == (2, True)
