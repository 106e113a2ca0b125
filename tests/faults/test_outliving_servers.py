"""A control plane that is killed while its tritonservers live on: nothing is loaded twice to effect.

Real tritonservers of the test's own, registered by a file. What they loaded is counted by the lines of their logs:
Triton writes one for every load that it carries out, and none for one that changes nothing.
"""

import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.embedded import EmbeddedServer
from control_plane.settings import Settings, load_settings
from tests.faults.test_control_plane_faults import process
from tests.serving import embedded_server
from tests.small_models import answer, ensemble, multiplier

SEED, CONVERGE_S = 20260202, 60.0
_LOADING = re.compile(r'\] "loading: ([^"]+)"')
OPEN = ("queued", "running", "waiting")
MOMENTS = [random.Random(SEED + number).uniform(0.0, 1.5) for number in range(2)]
"""Seconds after the request at which the control plane is killed: while it works, by experience."""


class Fleet:
    """Two tritonservers that nobody but the test ends."""

    def __init__(self, servers: list[EmbeddedServer], settings: Settings) -> None:
        self.servers, self.settings = servers, settings

    def loads(self) -> Counter[str]:
        """Count what was loaded so far, as server/model:version."""
        lines = ((server.server.id, line) for server in self.servers for line in server.log_tail(100_000))
        found = ((server, _LOADING.search(line)) for server, line in lines)
        return Counter(f"{server}/{it[1]}" for server, it in found if it is not None)

    def answers(self, model: str) -> set[float]:
        return {answer(server.server, model) for server in self.servers}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    root, file = tmp_path / "repository", tmp_path / "servers.json"
    multiplier(root, "double", 2.0)
    multiplier(root, "triple", 3.0)
    ensemble(root, "sixfold", "double", "triple")
    with ExitStack() as stack:
        servers = [stack.enter_context(embedded_server(root, name=f"own-{number}")) for number in range(2)]
        named = [
            {
                "id": it.server.id,
                "endpoints": asdict(it.server.endpoints),
                "admin_key": it.server.admin_key,
                "backends": ["python"],
            }
            for it in servers
        ]
        file.write_text(json.dumps(named))
        given = {"port": 0, "servers": 0, "servers_file": file, "model_repository": root}
        yield Fleet(servers, load_settings({**given, "state_path": tmp_path / "state.db"}))


def converged(client: httpx.Client) -> dict[str, Any]:
    """Wait until the deployment serves and no operation is open."""
    begun = time.monotonic()
    while True:
        body: dict[str, Any] = client.get("/v1/deployments/d").json()
        still = [it for state in OPEN for it in operations(client, state)]
        if body["status"]["state"] == "serving" and not still:
            return body
        assert time.monotonic() - begun < CONVERGE_S, (body, still)
        time.sleep(0.1)


def operations(client: httpx.Client, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/operations", params={"state": state}).json()["operations"]
    return found


def change(fleet: Fleet, path: str, body: object, kill_after_s: float | None) -> Counter[str]:
    """Ask for a change, kill the control plane so long after (None: once it is done), and start it again.

    Returns what was loaded for it.
    """
    before = fleet.loads()
    with process(fleet.settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
        assert client.post(path, json=body).is_success
        if kill_after_s is None:
            converged(client)
        else:
            time.sleep(kill_after_s)
        running.send_signal(signal.SIGKILL)
        running.wait(10)
    with process(fleet.settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
        converged(client)
        done = operations(client, "done")
        assert all(step["state"] in ("done", "skipped") for it in done for step in it["steps"]), done
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    return fleet.loads() - before


@pytest.mark.timeout(300)
def test_killed_at_random_moments_of_changes_nothing_is_loaded_twice_to_effect(fleet: Fleet) -> None:
    """A change that nobody cut comes first: it says what is to be loaded for one."""
    new = {"name": "d", "model": "sixfold"}
    assert change(fleet, "/v1/deployments", new, MOMENTS[0])["own-0/double:1"] >= 1
    assert fleet.answers("sixfold") == {6.0}
    whole: Counter[str] = Counter()
    for version, moment in enumerate([None, *MOMENTS], 2):
        multiplier(fleet.settings.model_repository, "double", float(version + 1), version=version)
        made = change(fleet, "/v1/deployments/d/redeploy", None, moment)
        assert fleet.answers("sixfold") == {3.0 * (version + 1)}
        named = Counter({name.replace(f":{version}", ":new"): times for name, times in made.items()})
        whole = whole or named
        assert named <= whole, (moment, named, whole)
    back = change(fleet, "/v1/deployments/d/rollback", None, MOMENTS[0])
    assert fleet.answers("sixfold") == {12.0}
    assert max(back.values()) <= max(whole.values())


@pytest.mark.timeout(120)
def test_killed_while_a_load_is_under_way_in_triton_that_load_is_waited_for(fleet: Fleet) -> None:
    multiplier(fleet.settings.model_repository, "slow", 7.0, more="time.sleep(4)")
    made = change(fleet, "/v1/deployments", {"name": "d", "model": "slow"}, 2.0)
    assert fleet.answers("slow") == {7.0}
    assert made == {"own-0/slow:1": 1, "own-1/slow:1": 1}
