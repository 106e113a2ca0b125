"""What users are told of a deployment."""

from collections.abc import Sequence

import pytest

from control_plane.planning import (
    Assignment,
    DeploymentState,
    InfeasibleDeployment,
    Placement,
    Plan,
    deployment_status,
)
from control_plane.planning.placement import Shortage
from control_plane.state import (
    ActionRecord,
    ModelName,
    ModelState,
    ObservedServer,
    Result,
    ServerCondition,
    ServerId,
)
from tests.fakes.world import START, a_deployment, seen

SERVES, COMES = ("m", 1, ModelState.READY), ("m", 2, ModelState.LOADING)
FAILED = ActionRecord(ServerId("s0"), ModelName("m"), 1, Result.FAILED, "no such module", START, 1, START)
AWAY = ServerCondition.UNREACHABLE


@pytest.mark.parametrize(
    ("observed", "failed", "reasons", "state"),
    [
        ([], False, (), DeploymentState.PENDING),
        ([seen(condition=AWAY)], False, (), DeploymentState.PENDING),
        ([seen()], False, (), DeploymentState.PROGRESSING),
        ([seen(SERVES)], False, (), DeploymentState.SERVING),
        ([seen(SERVES)], True, (), DeploymentState.SERVING),
        ([seen()], True, (), DeploymentState.FAILED),
        ([seen(("m", 2, ModelState.READY))], False, (), DeploymentState.PROGRESSING),
        ([seen(SERVES, COMES)], False, (), DeploymentState.PROGRESSING),
        ([seen(SERVES, COMES)], True, (), DeploymentState.PROGRESSING),
        ([seen(SERVES), seen(server="s1")], False, (), DeploymentState.PROGRESSING),
        ([seen(), seen(SERVES, server="s1")], True, (), DeploymentState.DEGRADED),
        ([seen(SERVES), seen(server="s1", condition=AWAY)], False, (), DeploymentState.DEGRADED),
        ([seen()], False, ("gone",), DeploymentState.FAILED),
        ([], False, ("gone",), DeploymentState.FAILED),
        ([seen(SERVES)], False, ("gone",), DeploymentState.SERVING),
        ([seen(SERVES), seen(server="s1")], False, ("gone",), DeploymentState.DEGRADED),
    ],
)
def test_state(
    observed: Sequence[ObservedServer],
    failed: bool,  # noqa: FBT001
    reasons: tuple[str, ...],
    state: DeploymentState,
) -> None:
    records = {(FAILED.server, FAILED.model): FAILED} if failed else {}
    deployment = a_deployment("d", ("m", 1))
    there = {entry.server.id: entry for entry in observed}
    assignments = tuple(Assignment(server, deployment.name, 0) for server in there)
    told = (InfeasibleDeployment(deployment.name, reasons),) if reasons else ()
    plan = Plan(infeasible=told, placement=Placement(assignments))
    assert deployment_status(deployment, there, records, plan).state is state


def test_a_replica_without_a_server_degrades_what_serves() -> None:
    deployment, there = a_deployment("d", ("m", 1)), seen(SERVES)
    placement = Placement((Assignment(there.server.id, deployment.name, 0),), (Shortage(deployment.name, 0, 1, 2),))
    status = deployment_status(deployment, {there.server.id: there}, {}, Plan(placement=placement))
    assert status.state is DeploymentState.DEGRADED


def test_only_the_servers_it_is_placed_on_count() -> None:
    deployment = a_deployment("d", ("m", 1))
    there = {entry.server.id: entry for entry in (seen(SERVES), seen(server="s1"))}
    placement = Placement((Assignment(ServerId("s0"), deployment.name, 0),))
    status = deployment_status(deployment, there, {}, Plan(placement=placement))
    assert (status.state, [it.server for it in status.servers]) == (DeploymentState.SERVING, ["s0"])


def test_what_is_ready_and_broken_serves_nobody() -> None:
    broken = {(ServerId("s0"), ModelName("m")): "Stub process is not healthy."}
    there = {ServerId("s0"): seen(SERVES)}
    status = deployment_status(a_deployment("d", ("m", 1)), there, {}, None, broken)
    assert status.state is DeploymentState.FAILED
    assert status.servers[0].reason == "Model 'm': it answers READY and serves nobody: Stub process is not healthy."


def test_a_failure_is_told_in_tritons_words() -> None:
    status = deployment_status(
        a_deployment("d", ("m", 1)), {ServerId("s0"): seen()}, {(FAILED.server, FAILED.model): FAILED}
    )
    assert status.servers[0].reason == "Model 'm': no such module"
    assert status.servers[0].models[0].reason == "no such module"


def test_a_failure_of_another_version_says_nothing() -> None:
    status = deployment_status(
        a_deployment("d", ("m", 2)), {ServerId("s0"): seen()}, {(FAILED.server, FAILED.model): FAILED}
    )
    assert status.servers[0].reason == "Not ready yet: m."


def test_another_version_on_its_way_is_named() -> None:
    status = deployment_status(a_deployment("d", ("m", 1)), {ServerId("s0"): seen(SERVES, COMES)}, {})
    assert status.servers[0].reason == "Not ready yet: m (version 2 is on its way)."


def test_an_absent_server_says_since_when_it_is_known() -> None:
    status = deployment_status(a_deployment("d", ("m", 1)), {ServerId("s0"): seen(condition=AWAY)}, {})
    assert status.servers[0].reason == "unreachable: away"
