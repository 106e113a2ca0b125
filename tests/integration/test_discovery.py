"""Servers that come and go: a servers file edited under a running control plane over two real tritonservers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.bootstrap import running_control_plane
from control_plane.embedded import EmbeddedFleet, ServerSpec
from control_plane.errors import SettingsError
from control_plane.settings import Settings
from control_plane.state import Server, ServerId
from tests.small_models import answer, multiplier

DEADLINE_S = 60.0
GRACE_S = 1.0


class Case:
    """Two tritonservers that run by themselves, the file that names them, and the control plane's REST API."""

    def __init__(self, first: Server, second: Server, path: Path, rest: httpx.AsyncClient) -> None:
        self.first, self.second, self._path, self._rest = first, second, path, rest

    def write(self, *entries: dict[str, Any]) -> None:
        """Put a new file in place of the old one."""
        self.write_text(json.dumps(entries))

    def write_text(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(text)
        new.replace(self._path)

    async def get(self, path: str) -> Any:
        return (await self._rest.get(path)).json()

    async def sources(self) -> dict[str, str]:
        """Return where each server that answers comes from."""
        found = (await self.get("/v1/servers"))["servers"]
        return {it["id"]: it["source"] for it in found if it["condition"] == "healthy"}

    async def problems(self) -> list[str]:
        found: list[str] = (await self.get("/v1/health"))["problems"]
        return found

    async def serving(self) -> set[str]:
        """Return the servers that clients of `double` are sent to."""
        found = await self.get("/v1/endpoints?model=double")
        return {it["server"] for it in found["endpoints"]}

    async def until(self, look: Callable[[], Awaitable[object]], expected: object) -> None:
        found: object = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    found = await look()
                    if found == expected:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{found} is not {expected}") from None


def entry(name: str, server: Server, **more: Any) -> dict[str, Any]:
    where = server.endpoints
    endpoints = {"http": where.http, "grpc": where.grpc, "metrics": where.metrics}
    return {"id": name, "endpoints": endpoints, "admin_key": server.admin_key, **more}


def by_name(name: str, dns: str, server: Server) -> dict[str, Any]:
    where = server.endpoints
    ports = {
        f"{kind}_port": int(address.rpartition(":")[2])
        for kind, address in (("http", where.http), ("grpc", where.grpc), ("metrics", where.metrics))
    }
    return {"id": name, "discover": {"dns": dns, "family": "ipv4", **ports}, "admin_key": server.admin_key}


@asynccontextmanager
async def running(folder: Path, entries: Callable[[Server, Server], list[dict[str, Any]]]) -> AsyncIterator[Case]:
    repository, path = folder / "repository", folder / "servers.json"
    multiplier(repository, "double", 2.0)
    async with EmbeddedFleet([ServerSpec(ServerId(name), repository) for name in ("x", "y")]) as fleet:
        first, second = (it.server for it in fleet.servers())
        path.write_text(json.dumps(entries(first, second)))
        settings = Settings(
            port=0,
            model_repository=repository,
            state_path=folder / "state.db",
            servers=0,
            servers_file=path,
            reconcile_interval_s=0.5,
            discovery_interval_s=0.1,
            discovery_grace_s=GRACE_S,
        )
        async with (
            running_control_plane(settings) as control,
            httpx.AsyncClient(base_url=control.url, timeout=DEADLINE_S, trust_env=False) as rest,
        ):
            made = await rest.post("/v1/deployments?wait=60", json={"name": "d", "model": "double"})
            assert made.json()["status"]["state"] == "serving", made.text
            yield Case(first, second, path, rest)


def test_an_edited_file_adds_replaces_and_removes_servers_and_a_bad_edit_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, lambda first, _: [entry("a", first)]) as case:
            assert await case.sources() == {"a": "file"}
            case.write(entry("a", case.first), entry("b", case.second, pool="other"))
            await case.until(case.serving, {"a", "b"})
            assert (await case.get("/v1/servers/b"))["pool"] == "other"
            assert await asyncio.to_thread(answer, case.second, "double") == 2.0

            case.write_text('[{"id": "a"}, ')
            await case.until(lambda: has_any(case.problems), expected=True)
            assert "Invalid JSON" in (await case.problems())[0]
            assert await case.serving() == {"a", "b"}

            case.write(entry("b", case.first, pool="other"))  # b is at the other server now, a is nowhere
            await case.until(case.sources, {"b": "file"})
            await case.until(case.serving, {"b"})
            assert await case.problems() == []
            where = (await case.get("/v1/servers/b"))["endpoints"]
            assert where["grpc"] == case.first.endpoints.grpc

            case.write(entry("b", case.first), entry("a", case.second))
            await case.until(case.serving, {"a", "b"})

    asyncio.run(scenario())


def test_the_addresses_of_localhost_are_servers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, lambda first, _: [by_name("d", "localhost", first)]) as case:
            assert await case.sources() == {"d-127.0.0.1": "discovered"}
            assert await case.serving() == {"d-127.0.0.1"}

            nowhere = by_name("n", "no-such-name.invalid", case.second)
            case.write(by_name("d", "localhost", case.first), by_name("e", "localhost", case.second), nowhere)
            await case.until(case.serving, {"d-127.0.0.1", "e-127.0.0.1"})
            (problem,) = await case.problems()
            assert "no-such-name.invalid" in problem

            case.write(by_name("e", "localhost", case.second), entry("again", case.second))
            await case.until(case.sources, {"e-127.0.0.1": "discovered"})
            await case.until(case.serving, {"e-127.0.0.1"})
            await case.until(lambda: has_any(case.problems), expected=True)
            assert "Server 'again' is left out" in (await case.problems())[0]

    asyncio.run(scenario())


def test_a_config_map_is_followed(tmp_path: Path) -> None:
    """As the kubelet does it: the file is a link into ..data, and ..data is a link that is renamed over."""

    async def scenario() -> None:
        async with running(tmp_path, lambda first, _: [entry("a", first)]) as case:
            path = tmp_path / "servers.json"
            for name, entries in (("1", [entry("a", case.first)]), ("2", [entry("b", case.second)])):
                (tmp_path / f"..{name}").mkdir()
                (tmp_path / f"..{name}" / path.name).write_text(json.dumps(entries))
            (tmp_path / "..data").symlink_to("..1")
            path.unlink()
            path.symlink_to(f"..data/{path.name}")
            (tmp_path / "..data_tmp").symlink_to("..2")
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await case.until(case.serving, {"b"})
            assert await case.sources() == {"b": "file"}

    asyncio.run(scenario())


async def has_any(look: Callable[[], Awaitable[list[str]]]) -> bool:
    return bool(await look())


@pytest.mark.parametrize("content", ["[", '[{"id": "a", "pol": "x"}]'])
def test_a_file_that_is_wrong_from_the_start_is_refused_before_anything_is_started(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "servers.json"
    path.write_text(content)
    settings = Settings(port=0, model_repository=tmp_path, state_path=tmp_path / "state.db", servers_file=path)

    async def scenario() -> None:
        async with running_control_plane(settings):
            raise AssertionError("It was started.")

    with pytest.raises(SettingsError, match=r"servers\.json"):
        asyncio.run(scenario())
    assert not (tmp_path / "state.db").exists()
