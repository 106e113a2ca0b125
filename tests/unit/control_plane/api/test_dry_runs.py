"""Dry runs: every change answers with just the plan that it would come to, and touches nothing."""

import asyncio
from typing import Any

import httpx
import pytest

from control_plane.state import ModelName
from tests.fakes.calls import problem
from tests.fakes.rig import PACKAGES, Rig
from tests.fakes.triton import FakeModel
from tests.fakes.world import a_package, a_server

CHANGES = [
    pytest.param("POST", "/v1/deployments", {"name": "new", "model": "b"}, {"load"}, id="create"),
    pytest.param("PATCH", "/v1/deployments/d", {"versions": [{"version": 1, "share": 100}]}, {"reload"}, id="patch"),
    pytest.param("POST", "/v1/deployments/d/scale", {"replicas": 2}, {"load"}, id="scale"),
    pytest.param("POST", "/v1/deployments/d/redeploy", None, {"reload"}, id="redeploy"),
    pytest.param("POST", "/v1/deployments/d/rollback", None, {"load"}, id="rollback"),
    pytest.param("DELETE", "/v1/deployments/d", None, {"unload"}, id="delete"),
    pytest.param("POST", "/v1/servers/s0/drain", {"reason": "mend it"}, {"load"}, id="drain"),
]


async def _settled() -> tuple[Rig, httpx.AsyncClient]:
    """Have deployment d of model a serve on s0 alone, at its second revision, and version 3 published since.

    The loop runs no pass by itself.
    """
    rig = Rig(a_server("s0"), a_server("s1"), packages=PACKAGES)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(rig.app()), base_url="http://127.0.0.1:8700")
    assert (
        await client.post("/v1/deployments", json={"name": "d", "model": "a", "replicas": {"min": 2}})
    ).status_code == 201
    await rig.settle()
    assert (await client.post("/v1/deployments/d/scale", json={"replicas": 1})).is_success
    await rig.settle()
    rig.clock.move(60)
    await rig.settle()
    assert [rig.ready(server) for server in rig.servers] == [{"a:2"}, set()]
    rig.catalogue.published[ModelName("a")] = a_package("a", (1, 2, 3))
    rig.triton.published["a"] = FakeModel((1, 2, 3))
    return rig, client


async def _everything(rig: Rig, client: httpx.AsyncClient) -> list[Any]:
    """Return whatever a change could change."""
    told = [(await client.get(f"/v1/{what}")).json() for what in ("deployments", "operations", "plan")]
    revisions = (await client.get("/v1/deployments/d/revisions")).json()
    return [*told, revisions, await rig.store.marks(), await rig.store.records(), [rig.ready(it) for it in rig.servers]]


@pytest.mark.parametrize(("method", "path", "body", "kinds"), CHANGES)
def test_a_dry_run_tells_what_the_change_then_comes_to(
    method: str, path: str, body: dict[str, Any] | None, kinds: set[str]
) -> None:
    async def scenario() -> None:
        rig, client = await _settled()
        before = await _everything(rig, client)
        key = {"Idempotency-Key": "once"}
        rehearsed = await client.request(method, path, json=body, params={"dry_run": "true"}, headers=key)
        told = rehearsed.json()
        assert (rehearsed.status_code, told["dry_run"]) == (200, True)
        assert {step["kind"] for step in told["plan"]["actions"]} == kinds
        assert await _everything(rig, client) == before
        changed = await client.request(method, path, json=body, headers=key)
        assert changed.is_success
        assert "Idempotency-Replayed" not in changed.headers
        assert told["plan"] == (await client.get("/v1/plan")).json()
        if told["deployment"] is not None:
            assert told["deployment"] == {name: changed.json()[name] for name in told["deployment"]}

    asyncio.run(scenario())


def test_a_dry_run_is_refused_like_the_change() -> None:
    async def scenario() -> None:
        _, client = await _settled()
        dry = {"dry_run": "true"}
        new = {"name": "x", "model": "a", "version": 9}
        problem(await client.post("/v1/deployments", json=new, params=dry), 422, "cannot-be-served")
        taken = {"name": "d", "model": "a"}
        problem(await client.post("/v1/deployments", json=taken, params=dry), 409, "name-taken")
        stale = {"If-Match": '"1"'}
        problem(await client.post("/v1/deployments/d/rollback", params=dry, headers=stale), 412, "outdated")
        problem(await client.delete("/v1/deployments/x", params=dry), 404, "not-found")
        problem(await client.post("/v1/servers/x/drain", params=dry), 404, "not-found")

    asyncio.run(scenario())


def test_a_dry_run_of_a_change_that_ends_a_quarantine_tells_the_load() -> None:
    async def scenario() -> None:
        rig, client = await _settled()
        rig.triton.published["b"] = FakeModel(broken="no such thing")
        assert (
            await client.post("/v1/deployments", json={"name": "b", "model": "b", "replicas": {"min": 1}})
        ).is_success
        for _ in range(20):
            await rig.loop.run_pass()
            await rig.loop.executions_ended()
            rig.clock.move(100)
        assert not (await client.get("/v1/plan")).json()["actions"]
        dry = await client.post("/v1/deployments/b/redeploy", params={"dry_run": "true"})
        assert [step["model"] for step in dry.json()["plan"]["actions"]] == ["b"]

    asyncio.run(scenario())
