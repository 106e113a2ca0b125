"""The operations that `crash_matrix` cuts: what comes before each, and how it is asked for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from control_plane.deployments import Changes
from control_plane.operations import OperationKind
from control_plane.state import DeploymentName, Mark, ModelName, ServerId
from control_plane.wanted import ANY_POOL, Needs, Replicas
from tests.fakes.triton import FakeModel
from tests.faults.crash_lives import SERVERS, Control

E, SINGLE = DeploymentName("ensemble"), DeploymentName("single")
DRAINED = ServerId("s3")

Ask = Callable[[Control], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Case:
    """An operation: what comes before, and how it is asked for. Asking again what was granted changes nothing."""

    ask: Ask
    kind: OperationKind
    prepare: Callable[[Control], Awaitable[None]]


def needs(replicas: int = SERVERS, instances: int | None = None) -> Needs:
    return Needs({ANY_POOL: Replicas(replicas)}, instances)


async def _nothing(control: Control) -> None:
    del control


async def _create(control: Control) -> object:
    return await control.deployments.create(E, ModelName("e"), changes=Changes(needs=needs()))


async def _deployed(control: Control, replicas: int = SERVERS) -> None:
    await control.deployments.create(E, ModelName("e"), changes=Changes(needs=needs(replicas)))
    await control.rest()


async def _published(control: Control) -> None:
    await _deployed(control)
    control.fakes.publish("a", 1, 2)


async def _redeploy(control: Control) -> object:
    return await control.deployments.change(E, lambda _: Changes(repin=True), expected=1)


async def _redeployed(control: Control) -> None:
    await _published(control)
    await _redeploy(control)
    await control.rest()


async def _shared(control: Control) -> None:
    await _deployed(control)
    await control.deployments.create(SINGLE, ModelName("b"), changes=Changes(needs=needs()))
    await control.rest()


async def _scale(control: Control) -> object:
    return await control.deployments.change(SINGLE, lambda _: Changes(needs=needs(instances=3)), expected=1)


async def _spare(control: Control) -> None:
    await _deployed(control, SERVERS - 1)


async def _drain(control: Control) -> object:
    await control.store.mark(Mark(DRAINED, "maintenance", control.fakes.clock()))
    return await control.journal.begin(OperationKind.DRAIN, server=DRAINED)


async def _rollback(control: Control) -> object:
    return await control.deployments.rollback(E, expected=2)


async def _undeploy(control: Control) -> object:
    return await control.deployments.delete(E)


async def _half_deployed(control: Control) -> None:
    """Have a deploy wait to try again a model that fails; then that model is well, and there is a newer version."""
    control.fakes.triton.published["b"] = FakeModel(broken="boom")
    await _create(control)
    for _ in range(2):
        await control.loop.run_pass()
        await control.loop.executions_ended()
    assert await control.fakes.operations.open()
    control.fakes.triton.published["b"] = FakeModel()
    control.fakes.publish("a", 1, 2)


CASES = {
    "deploy": Case(_create, OperationKind.DEPLOY, _nothing),
    "redeploy": Case(_redeploy, OperationKind.REDEPLOY, _published),
    "redeploy-under-way": Case(_redeploy, OperationKind.REDEPLOY, _half_deployed),
    "scale": Case(_scale, OperationKind.SCALE, _shared),
    "drain": Case(_drain, OperationKind.DRAIN, _spare),
    "rollback": Case(_rollback, OperationKind.ROLLBACK, _redeployed),
    "undeploy": Case(_undeploy, OperationKind.UNDEPLOY, _shared),
}
