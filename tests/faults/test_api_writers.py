"""Many writers at once, and bodies of every kind: nothing is lost, and nothing but a clear answer comes back."""

import asyncio
import json
import random
from typing import Any

import httpx

from tests.fakes.calls import run
from tests.fakes.rig import Rig

WRITERS = 50
BODIES = 10_000
_WORDS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 1.5, "", "a", "e", "b", "d", "config", "everywhere", "x" * 300,
    "\u0000", "\ud83d", "../..", [], {}, [1], [None], [[]], {"": ""}, {"min": 1}, {"min": 3, "max": 1}, "8.9", ["8.9"],
)  # fmt: skip
_FIELDS = (
    "name", "model", "version", "versions", "precisions", "allow_unproven", "replicas", "pools", "instances",
    "objectives", "requirements", "isolation", "priority", "owner", "drift", "revision", "reason", "id", "grpc", "http",
    "metrics", "admin_key", "backends", "devices", "memory_bytes", "pool", "labels", "repository", "share", "min",
    "max", "unknown",
)  # fmt: skip
_CALLS = (
    ("POST", "/v1/deployments"),
    ("PATCH", "/v1/deployments/d"),
    ("POST", "/v1/deployments/d/redeploy"),
    ("POST", "/v1/deployments/d/scale"),
    ("POST", "/v1/deployments/d/rollback"),
    ("POST", "/v1/servers"),
    ("POST", "/v1/servers/s0/drain"),
    ("POST", "/v1/operations/deploy-0a1b2c3d4e5f/cancel"),
)


def test_no_update_of_fifty_writers_is_lost() -> None:
    async def add_one(client: httpx.AsyncClient) -> int:
        tries = 0
        while True:
            tries += 1
            seen = await client.get("/v1/deployments/d")
            body = {"priority": seen.json()["needs"]["priority"] + 1}
            answer = await client.patch("/v1/deployments/d", json=body, headers={"If-Match": seen.headers["etag"]})
            if answer.status_code == 200:
                return tries
            assert answer.status_code == 412, answer.text

    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments", json={"name": "d", "model": "b"})
        tries = await asyncio.gather(*(add_one(client) for _ in range(WRITERS)))
        body = (await client.get("/v1/deployments/d")).json()
        assert (body["needs"]["priority"], body["revision"]) == (WRITERS, WRITERS + 1)
        assert sum(tries) > WRITERS, "they did get in each other's way"

    run(scenario)


def test_writers_without_a_precondition_change_different_things_and_all_of_it_stands() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        await client.post("/v1/deployments", json={"name": "d", "model": "b"})
        bodies: tuple[dict[str, object], ...] = (
            {"owner": "search"},
            {"priority": 7},
            {"instances": 3},
            {"drift": "report"},
            {"replicas": {"min": 1}},
        )
        answers = await asyncio.gather(*(client.patch("/v1/deployments/d", json=body) for body in bodies))
        assert [answer.status_code for answer in answers] == [200] * len(bodies)
        needs = (await client.get("/v1/deployments/d")).json()["needs"]
        assert (needs["owner"], needs["priority"], needs["instances"], needs["drift"]) == ("search", 7, 3, "report")
        assert needs["replicas"] == {"min": 1, "max": None}

    run(scenario)


def test_a_request_sent_again_with_its_key_is_carried_out_once() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        key = {"Idempotency-Key": "mine"}
        new = {"name": "d", "model": "b"}
        answers = await asyncio.gather(*(client.post("/v1/deployments", json=new, headers=key) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {201}
        assert sum(answer.headers.get("idempotency-replayed") == "true" for answer in answers) == 9
        other = await client.post("/v1/deployments", json={"name": "other", "model": "b"}, headers=key)
        assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (422, "key-reused")
        again = {"Idempotency-Key": "scaling"}
        for _time in range(3):
            answer = await client.post("/v1/deployments/d/scale", json={"instances": 2}, headers=again)
            assert answer.status_code == 200
        assert (await client.get("/v1/deployments/d")).json()["revision"] == 2

    run(scenario)


def garbage(dice: random.Random, depth: int = 0) -> Any:
    if depth < 3 and dice.random() < 0.25:
        return {dice.choice(_FIELDS): garbage(dice, depth + 1) for _ in range(dice.randrange(4))}
    return dice.choice(_WORDS)


def content_of(dice: random.Random) -> bytes:
    body: Any = {dice.choice(_FIELDS): garbage(dice) for _ in range(dice.randrange(5))}
    if dice.random() < 0.5:
        body |= {"name": dice.choice(["d", "n", garbage(dice)]), "model": dice.choice(["b", "e", garbage(dice)])}
    if dice.random() < 0.05:
        body = {"name": f"n{dice.randrange(20)}", "model": dice.choice("abe")}
    text = json.dumps(body).encode()
    if dice.random() < 0.1:
        cut = dice.randrange(len(text) + 1)
        text = text[:cut] + bytes(dice.randrange(256) for _ in range(dice.randrange(4))) + text[cut + 1 :]
    return text


def test_ten_thousand_fuzzed_bodies_and_no_answer_of_the_500s() -> None:
    async def scenario(_: Rig, client: httpx.AsyncClient) -> None:
        dice = random.Random(11)
        await client.post("/v1/deployments", json={"name": "d", "model": "b"})
        codes: dict[int, int] = {}
        for _number in range(BODIES):
            method, path = dice.choice(_CALLS)
            content = content_of(dice)
            headers = {"content-type": "application/json"}
            if dice.random() < 0.1:
                headers["If-Match"] = dice.choice(['"1"', "*", "W/", "x", '""'])
            answer = await client.request(method, path, content=content, headers=headers)
            assert answer.status_code < 500, (method, path, content, answer.text)
            if answer.status_code >= 400:
                problem = answer.json()
                assert problem["causes"], (method, path, content)
                assert problem["next_step"]
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
        assert {200, 201, 400, 404, 409, 422} <= set(codes), codes

    run(scenario)
