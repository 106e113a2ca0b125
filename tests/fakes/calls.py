"""Calling the API of a rig without a network, and checking that an error is a whole problem."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from control_plane.api import Access
from tests.fakes.rig import Rig

Scenario = Callable[[Rig, httpx.AsyncClient], Awaitable[None]]
PROBLEM = "application/problem+json"


def run(scenario: Scenario, access: Access | None = None, rig: Rig | None = None, host: str = "127.0.0.1:8700") -> None:
    """Run `scenario` with the loop running beside the API."""

    async def body() -> None:
        used = rig or Rig()
        loop = asyncio.create_task(used.loop.run())
        transport = httpx.ASGITransport(used.app(access), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            await scenario(used, client)
        loop.cancel()
        await asyncio.wait({loop})

    asyncio.run(body())


def problem(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that the answer is this problem, whole; returns it."""
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == PROBLEM
    assert body["type"] == f"tag:tritonfleet,2026:problem/{kind}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["causes"]
    assert body["next_step"]
    return body
