"""What the REST API refuses, and how it says so."""

import json

import httpx
import pytest

from control_plane.api import Access
from tests.fakes.calls import problem, run
from tests.fakes.rig import Rig


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Upper", "model": "b"},
        {"name": "-x", "model": "b"},
        {"name": "x" * 64, "model": "b"},
        {"name": "d\n", "model": "b"},
        {"name": "d", "model": "../b"},
        {"name": "d", "model": "b", "version": 0},
        {"name": "d", "model": "b", "version": True},
        {"name": "d", "model": "b", "version": "1"},
        {"name": "d", "model": "b", "version": 2**40},
        {"name": "d", "model": "b", "extra": 1},
        {"name": "d"},
        {"name": "d", "model": "b", "\ud800": 1},
        {"name": "\ud800", "model": "b"},
        [],
        "text",
        None,
    ],
)
def test_bodies_that_are_not_valid(body: object) -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json"}
        response = await client.post("/v1/deployments", content=json.dumps(body), headers=headers)
        problem(response, 422, "invalid-request")

    run(scenario)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"name": "\xff"}'])
def test_bodies_that_cannot_be_decoded(content: bytes) -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json"}
        problem(await client.post("/v1/deployments", content=content, headers=headers), 400, "undecodable-body")

    run(scenario)


def test_a_body_without_end_is_cut_off() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        body = b'{"name": "' + b"x" * 2 * 1024 * 1024 + b'"}'
        response = await client.post("/v1/deployments", content=body, headers={"content-type": "application/json"})
        problem(response, 413, "request-entity-too-large")

    run(scenario)


@pytest.mark.parametrize("wait", ["-1", "601", "nan", "inf", "soon"])
def test_waits_that_are_out_of_bounds(wait: str) -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        response = await client.post(f"/v1/deployments?wait={wait}", json={"name": "d", "model": "b"})
        problem(response, 422, "invalid-request")

    run(scenario)


def test_paths_and_methods_that_are_not_there() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        problem(await client.get("/v1/nothing"), 404, "not-found")
        response = await client.put("/v1/deployments", json={})
        problem(response, 405, "method-not-allowed")
        assert "POST" in response.headers["allow"] or "GET" in response.headers["allow"]

    run(scenario)


def test_a_bug_is_a_problem_and_is_counted() -> None:
    async def scenario(rig: Rig, client: httpx.AsyncClient) -> None:
        rig.catalogue.fails = RuntimeError("boom")
        assert "RuntimeError: boom" in problem(await client.get("/v1/models"), 500, "bug")["detail"]
        assert 'tritonfleet_unexpected_errors_total{place="api"} 1.0' in rig.metrics.text().decode()

    run(scenario)


def test_a_token_is_asked_of_everything_but_liveness() -> None:
    access = Access("secret", loopback_only=False)
    assert "secret" not in repr(access)

    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        for path in ("/v1/servers", "/v1/health", "/metrics", "/docs", "/openapi.json", "/none"):
            response = await client.get(path)
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        problem(await client.get("/v1/servers", headers={"authorization": "Bearer wrong"}), 401, "unauthorized")
        problem(await client.get("/v1/servers", headers={"authorization": "Basic secret"}), 401, "unauthorized")
        problem(
            await client.get("/v1/servers", headers={b"authorization": "Bearer s\u00e9cret".encode()}),
            401,
            "unauthorized",
        )
        assert (await client.get("/v1/health/live")).status_code == 200
        assert (await client.get("/v1/servers", headers={"authorization": "Bearer secret"})).status_code == 200

    run(scenario, access, host="fleet.example:8700")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8700", True),
        ("localhost", True),
        ("[::1]:8700", True),
        ("LOCALHOST:1", True),
        ("evil.example:8700", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_this_machine_is_refused_on_loopback(host: str, allowed: bool) -> None:  # noqa: FBT001
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        response = await client.get("/v1/health/live", headers={"host": host})
        if allowed:
            assert response.status_code == 200
        else:
            problem(response, 421, "wrong-host")

    run(scenario)


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8700"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://127.0.0.1:8700"}, True),
        ({"origin": "https://127.0.0.1:8700"}, True),
        ({"origin": "HTTP://LOCALHOST", "host": "localhost:80"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil.example"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8700"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "http://127.0.0.1:8700.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
    ],
)
def test_a_web_page_of_another_site_can_change_nothing(sent: dict[str, str], allowed: bool) -> None:  # noqa: FBT001
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        headers = {"host": "127.0.0.1:8700", **sent}
        for response in (
            await client.post("/v1/deployments/d/redeploy", headers=headers),
            await client.delete("/v1/deployments/d", headers=headers),
        ):
            if allowed:
                problem(response, 404, "not-found")
            else:
                assert "command line" in problem(response, 403, "cross-site")["next_step"]
        assert (await client.get("/v1/deployments", headers=headers)).status_code == 200

    run(scenario)
