"""A control plane that is killed at any moment: always converges, the journal tells of every step, nothing twice.

Every single step against fakes of the ports, and then a sample of the steps of its recovery (`crash_matrix`); a sample
of moments on a real control plane process with two real tritonservers.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.settings import Settings, load_settings
from tests.faults.crash_cases import CASES
from tests.faults.crash_lives import kills
from tests.faults.crash_matrix import SECOND_KILLS, row, sampled
from tests.faults.test_control_plane_faults import process, server_of
from tests.small_models import answer, ensemble, multiplier

SEED, MOMENTS = 20260101, 4
"""The sample: so many moments in the first second of a deploy or a redeploy, chosen by this seed."""
CONVERGE_S = 60.0
OPEN = ("queued", "running", "waiting")


@pytest.mark.parametrize("operation", CASES)
def test_killed_at_any_step_an_operation_on_ten_servers_ends_as_if_nothing_had_been(operation: str) -> None:
    found = row(operation)
    assert found.problems == []
    assert found.once.converged == found.once.runs > 60
    assert found.twice.converged == found.twice.runs == SECOND_KILLS


def test_second_kills_are_spread_over_the_first_ones_and_the_same_every_time() -> None:
    recoveries = dict.fromkeys(kills(5), 2)
    pairs = sampled(recoveries, 25, "seed")
    assert pairs == sampled(recoveries, 25, "seed") != sampled(recoveries, 25, "another")
    assert len(set(pairs)) == 25
    assert {first for first, _ in pairs[:10]} == {first for first, _ in pairs[10:20]} == set(recoveries)
    assert sorted(sampled(recoveries, 100, "seed")) == [(first, second) for first in kills(5) for second in kills(2)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "repository"
    multiplier(root, "double", 2.0)
    multiplier(root, "triple", 3.0)
    ensemble(root, "sixfold", "double", "triple")
    return load_settings({"port": 0, "servers": 2, "model_repository": root, "state_path": tmp_path / "state.db"})


def converged(client: httpx.Client, expected: float) -> None:
    """Wait until the deployment serves on both servers and no operation is open; then both must answer right."""
    begun = time.monotonic()
    while True:
        body = client.get("/v1/deployments/d").json()
        still = [it for state in OPEN for it in operations(client, state)]
        if body["status"]["state"] == "serving" and not still:
            break
        assert time.monotonic() - begun < CONVERGE_S, (body, still)
        time.sleep(0.2)
    servers = client.get("/v1/servers").json()["servers"]
    assert len(servers) == 2
    for server in servers:
        assert answer(server_of(server), "sixfold") == expected


def operations(client: httpx.Client, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/operations", params={"state": state}).json()["operations"]
    return found


@pytest.mark.timeout(300)
def test_a_control_plane_killed_at_random_moments_on_real_servers_converges(settings: Settings) -> None:
    moments = [random.Random(SEED + number).uniform(0.0, 1.0) for number in range(MOMENTS)]
    factor = 2.0
    for number, moment in enumerate(moments):
        with process(settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
            if number == 0:
                response = client.post("/v1/deployments", json={"name": "d", "model": "sixfold"})
            else:
                factor += 1.0
                multiplier(settings.model_repository, "double", factor, version=number + 1)
                response = client.post("/v1/deployments/d/redeploy")
            assert response.is_success, response.text
            time.sleep(moment)
            running.send_signal(signal.SIGKILL)
            running.wait(10)
        with process(settings) as (running, url), httpx.Client(base_url=url, timeout=90) as client:
            converged(client, 3.0 * factor)
            steps = [step for it in operations(client, "done") for step in it["steps"]]
            assert {step["server"] for step in steps} == {"triton-0", "triton-1"}
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
