"""The REST API over fakes, without a network: what it does and shows."""

import asyncio
from dataclasses import replace

import httpx

from control_plane.state import ModelName, ServerId, Source
from tests.fakes.calls import PROBLEM, problem, run
from tests.fakes.rig import Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_built, a_config, a_package, a_server, a_target, with_targets


def test_create_and_wait_until_it_serves() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "e"})
        body = response.json()
        assert response.status_code == 201
        assert response.headers["location"] == "/v1/deployments/d"
        assert body["pins"] == [
            {"model": "a", "version": 2},
            {"model": "b", "version": 1},
            {"model": "e", "version": 1},
        ]
        assert (body["version"], body["revision"], body["status"]["state"]) == (None, 1, "serving")
        (server,) = body["status"]["servers"]
        assert (server["server"], server["state"], server["reason"]) == ("s0", "serving", "")
        assert server["models"][0] == {"model": "a", "version": 2, "state": "READY", "reason": "", "target": ""}
        assert (await client.get("/v1/deployments/d")).json() == body
        assert (await client.get("/v1/deployments")).json() == {"deployments": [body], "next": None}

    run(scenario)


def test_create_without_waiting_answers_at_once() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/deployments", json={"name": "d", "model": "e"})
        assert response.status_code == 201
        assert response.json()["status"]["state"] in ("pending", "progressing")

    run(scenario)


def test_a_wait_that_runs_out_is_202_and_the_deployment_goes_on() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        rig.triton.gate = asyncio.Event()
        response = await client.post("/v1/deployments?wait=0.05", json={"name": "d", "model": "b"})
        assert response.status_code == 202
        assert response.headers["location"] == "/v1/deployments/d"
        rig.triton.gate.set()
        while rig.ready() != {"b:1"}:
            await rig.loop.pass_ended()

    run(scenario)


def test_a_load_that_fails_ends_the_wait_with_tritons_reason() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        rig.triton.published["b"] = FakeModel(broken="ModuleNotFoundError: No module named 'nothing'")
        response = await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "b"})
        assert response.status_code == 201
        status = response.json()["status"]
        assert status["state"] == "failed"
        assert "No module named 'nothing'" in status["servers"][0]["reason"]

    run(scenario)


def test_what_cannot_be_served_is_refused_with_every_cause() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        response = await client.post("/v1/deployments", json={"name": "d", "model": "unbuilt"})
        body = problem(response, 422, "cannot-be-served")
        assert body["causes"] == ["Model 'unbuilt' has no built version: run `tritonfleet build unbuilt`."]
        assert (await client.get("/v1/deployments")).json() == {"deployments": [], "next": None}

    run(scenario)


def test_two_deployments_of_different_versions_of_one_model_are_refused() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/deployments", json={"name": "d", "model": "e"})).status_code == 201
        response = await client.post("/v1/deployments", json={"name": "old", "model": "a", "version": 1})
        assert "'d' pins model 'a' at version 2" in problem(response, 422, "cannot-be-served")["detail"]

    run(scenario)


def test_a_name_that_is_taken() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments", json={"name": "d", "model": "b"})
        response = await client.post("/v1/deployments", json={"name": "d", "model": "a"})
        assert "POST /v1/deployments/d/redeploy" in problem(response, 409, "name-taken")["next_step"]

    run(scenario)


def test_delete_and_wait_until_it_is_gone() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "e"})
        await client.post("/v1/deployments?wait=10", json={"name": "keep", "model": "b"})
        response = await client.delete("/v1/deployments/d?wait=10")
        assert (response.status_code, response.content) == (204, b"")
        assert rig.ready() == {"b:1"}
        problem(await client.get("/v1/deployments/d"), 404, "not-found")
        problem(await client.delete("/v1/deployments/d"), 404, "not-found")

    run(scenario)


def test_redeploy_takes_the_newest_version() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "b"})
        rig.triton.published["b"] = FakeModel((1, 2))
        package = next(it for it in rig.catalogue.read() if it.name == "b")
        rig.catalogue.published[package.name] = replace(package, versions=(1, 2))
        body = (await client.post("/v1/deployments/d/redeploy?wait=10")).json()
        assert (body["revision"], body["pins"], body["status"]["state"]) == (
            2,
            [{"model": "b", "version": 2}],
            "serving",
        )
        problem(await client.post("/v1/deployments/none/redeploy"), 404, "not-found")

    run(scenario)


def test_deployments_that_share_a_model_are_redeployed_together() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        for name, model in (("d", "e"), ("other", "b")):
            await client.post("/v1/deployments?wait=10", json={"name": name, "model": model})
        rig.triton.published["b"] = FakeModel((1, 2))
        rig.catalogue.published[ModelName("b")] = a_package("b", (1, 2))
        refused = problem(await client.post("/v1/deployments/other/redeploy"), 409, "moves-others")
        assert "Redeploy it and 'd' at once: POST /v1/deployments/other/redeploy?together=true" in refused["next_step"]
        body = (await client.post("/v1/deployments/other/redeploy?together=true&wait=10")).json()
        assert (body["revision"], body["status"]["state"]) == (2, "serving")
        assert (await client.get("/v1/deployments/d")).json()["revision"] == 2
        await rig.loop.pass_ended()
        assert rig.ready() == {"a:2", "b:2", "e:1"}

    run(scenario)


def test_servers_show_what_they_hold_and_never_their_key() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "b"})
        response = await client.get("/v1/servers/s0")
        body = response.json()
        assert (body["condition"], body["endpoints"]["grpc"]) == ("healthy", "127.0.0.1:2")
        assert body["models"] == [{"name": "b", "version": 1, "state": "READY", "reason": "", "instances": 1}]
        listed = await client.get("/v1/servers")
        assert listed.json()["servers"] == [body]
        assert rig.servers[0].admin_key is not None
        assert rig.servers[0].admin_key not in listed.text + response.text
        assert "There are: s0." in problem(await client.get("/v1/servers/none"), 404, "not-found")["next_step"]

    run(scenario, rig=Rig(a_server("s0", "the-admin-key")))


def test_models_show_versions_members_problems_and_where_they_are_ready() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "e"})
        body = (await client.get("/v1/models/e")).json()
        assert (body["backend"], body["versions"], body["members"]) == ("ensemble", [1], ["a", "b"])
        assert (body["ready_on"], body["deployments"]) == ([{"server": "s0", "version": 1, "target": ""}], ["d"])
        names = [it["name"] for it in (await client.get("/v1/models")).json()["models"]]
        assert names == ["a", "b", "e", "unbuilt"]
        problem(await client.get("/v1/models/none"), 404, "not-found")

    run(scenario)


def test_a_model_shows_the_config_of_what_is_deployed_and_what_is_wrong_with_its_draft() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/models/f")).json()["members"] == []
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "f", "version": 1})
        body = (await client.get("/v1/models/f")).json()
        assert (body["members"], body["problems"]) == (["a"], ["config.pbtxt:3: no."])

    draft = a_config("f", problems=("config.pbtxt:3: no.",))
    run(scenario, rig=Rig(packages=(a_package("a"), a_built("f", ("a",), (), draft=draft))))


def test_the_plan_is_shown_without_touching_anything() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        rig.triton.gate = asyncio.Event()
        await client.post("/v1/deployments", json={"name": "d", "model": "b"})
        body = (await client.get("/v1/plan")).json()
        assert body["actions"] == [
            {
                "kind": "load",
                "server": "s0",
                "model": "b",
                "version": 1,
                "target": "",
                "stage": 0,
                "reason": "Not loaded, needed by 'd'.",
            }
        ]
        assert (body["waiting"], body["infeasible"]) == ([], [])

    run(scenario)


def test_health_and_metrics() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "b"})
        body = (await client.get("/v1/health")).json()
        assert (body["ready"], body["reason"], body["last_error"]) == (True, "", "")
        assert body["servers"] == {"healthy": 1, "degraded": 0, "unreachable": 0, "draining": 0}
        text = (await client.get("/metrics")).text
        assert 'tritonfleet_deployments{state="serving"} 1.0' in text
        assert 'tritonfleet_actions_total{action="load",outcome="loaded"} 1.0' in text
        assert 'tritonfleet_load_seconds_count{outcome="loaded"} 1.0' in text
        rig.clock.move(60)
        stale = await client.get("/v1/health")
        assert stale.status_code == 503
        assert stale.json()["reason"].startswith("The last look at the servers began 60 s ago")
        assert (await client.get("/v1/health/live")).json() == {"live": True}

    run(scenario)


def test_servers_tell_where_they_come_from_and_only_a_registered_one_can_be_forgotten() -> None:
    servers = tuple(replace(a_server(source.value), source=source) for source in Source)

    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        while rig.loop.passes < 1:
            await rig.loop.pass_ended()
        listed = (await client.get("/v1/servers")).json()["servers"]
        assert {it["id"]: it["source"] for it in listed} == {source.value: source.value for source in Source}
        for source, said in (
            ("embedded", "this control plane started it"),
            ("file", "the servers file names it"),
            ("discovered", "a DNS name in the servers file has its address"),
        ):
            refused = problem(await client.delete(f"/v1/servers/{source}"), 409, "not-registered")
            assert said in refused["detail"] + str(refused["causes"])
            new = {"id": source, "grpc": "h:2", "http": "h:1", "metrics": "h:3"}
            taken = problem(await client.post("/v1/servers", json=new), 409, "name-taken")
            assert said in taken["detail"] + str(taken["causes"])
        assert (await client.delete("/v1/servers/registered")).status_code == 204
        problem(await client.delete("/v1/servers/none"), 404, "not-found")

    run(scenario, rig=Rig(*servers))


def test_what_is_wrong_with_finding_servers_is_told_and_leaves_the_loop_healthy() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        while rig.loop.passes < 1:
            await rig.loop.pass_ended()
        assert (await client.get("/v1/health")).json()["problems"] == []
        rig.fleet.wrong = ("Name 'x' cannot be resolved.",)
        health = (await client.get("/v1/health")).json()
        assert (health["ready"], health["problems"]) == (True, ["Name 'x' cannot be resolved."])
        assert (await client.get("/v1/servers")).json()["problems"] == ["Name 'x' cannot be resolved."]

    run(scenario, rig=Rig())


def test_the_openapi_document_tells_errors_examples_and_the_token() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        create = document["paths"]["/v1/deployments"]["post"]
        assert {"201", "202", "400", "401", "409", "421", "422", "500", "503"} <= set(create["responses"])
        for status in ("400", "409", "422"):
            content = create["responses"][status]["content"]
            assert content == {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
        assert document["components"]["schemas"]["NewDeployment"]["examples"]
        assert document["components"]["schemas"]["ProblemBody"]["examples"]
        assert document["paths"]["/v1/health/live"]["get"]["security"] == []
        assert create["security"] == [{"HTTPBearer": []}]

    run(scenario)


def test_an_unreachable_server_does_not_fail_the_wait_before_its_time() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        rig.triton.processes[ServerId("s0")].up = False
        response = await client.post("/v1/deployments?wait=0.05", json={"name": "d", "model": "b"})
        assert response.status_code == 202
        assert response.json()["status"]["state"] == "pending"

    run(scenario)


FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"


def test_a_wish_is_shown_and_reaches_the_server_and_stays_until_another_is_made() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        created = (await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "m"})).json()
        assert (created["precisions"], created["allow_unproven"]) == ([], False)
        assert created["status"]["servers"][0]["models"][0]["target"] == FP32
        redeploy = "/v1/deployments/d/redeploy?wait=10"
        moved = (await client.post(redeploy, json={"precisions": ["int8"], "allow_unproven": True})).json()
        assert (moved["precisions"], moved["allow_unproven"], moved["revision"]) == (["int8"], True, 2)
        assert moved["status"]["state"] == "serving"
        assert moved["status"]["servers"][0]["models"][0]["target"] == INT8
        assert rig.triton.processes[rig.servers[0].id].files == {"m": INT8}
        assert (await client.get("/v1/models/m")).json()["ready_on"][0]["target"] == INT8
        kept = (await client.post(redeploy)).json()
        assert (kept["precisions"], kept["allow_unproven"], kept["revision"]) == (["int8"], True, 3)
        back = (await client.post(redeploy, json={"precisions": []})).json()
        assert (back["precisions"], back["allow_unproven"]) == ([], True)
        assert rig.triton.processes[rig.servers[0].id].files == {"m": FP32}
        nothing = (await client.post(redeploy, json={"precisions": ["fp8"]})).json()
        assert nothing["status"]["state"] == "failed"
        reason = nothing["status"]["servers"][0]["reason"]
        assert f"Model 'm': version 1 is not loaded here: no target of the version fits the server: {FP32} is" in reason
        assert rig.ready() == {"m:1"}, "what serves is left alone"

    run(scenario, rig=Rig(packages=(with_targets(a_package("m"), FP32, INT8),)))


def test_wishes_that_contradict_each_other_are_refused() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments", json={"name": "d", "model": "m"})
        other = {"name": "other", "model": "m", "precisions": ["int8", "fp32"]}
        causes = problem(await client.post("/v1/deployments", json=other), 422, "cannot-be-served")["causes"]
        assert len(causes) == 1
        assert causes[0].startswith("Deployment 'd' wishes model 'm' in its most precise target, this one in int8 or")
        assert (await client.post("/v1/deployments", json={**other, "precisions": []})).status_code == 201
        answer = await client.post("/v1/deployments/d/redeploy?together=true", json={"precisions": ["int8"]})
        assert "'other' wishes model 'm'" in problem(answer, 422, "cannot-be-served")["causes"][0]
        for wrong in (["int4"], ["int8", "int8"], "int8"):
            answer = await client.post("/v1/deployments/d/redeploy", json={"precisions": wrong})
            assert answer.status_code == 422, wrong

    run(scenario, rig=Rig(packages=(with_targets(a_package("m"), FP32, INT8),)))


def test_what_is_wrong_with_a_signature_and_is_let_pass_is_shown() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        body = (await client.get("/v1/models/m")).json()
        assert (body["problems"], body["warnings"]) == ([], ["m/1 is not signed."])
        assert (await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "m"})).status_code == 201

    package = a_package("m")
    unsigned = replace(package, own={1: replace(package.draft, warnings=("m/1 is not signed.",))})
    run(scenario, rig=Rig(packages=(unsigned,)))


def test_an_unproven_target_is_loaded_where_it_is_allowed_only() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        refused = (await client.post("/v1/deployments?wait=10", json={"name": "d", "model": "m"})).json()
        assert refused["status"]["state"] == "failed"
        assert "is unproven (needs a GPU of sm_90), and the deployment does not allow that" in str(refused["status"])
        assert rig.triton.calls == []
        rig.clock.move(1)
        allowed = await client.post("/v1/deployments/d/redeploy?wait=10", json={"allow_unproven": True})
        assert allowed.json()["status"]["state"] == "serving"

    package = with_targets(a_package("m"), engine=a_target(FP32, "needs a GPU of sm_90"))
    run(scenario, rig=Rig(packages=(package,)))
