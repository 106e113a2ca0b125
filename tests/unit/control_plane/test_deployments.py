"""Writing desired state."""

import asyncio

from control_plane.deployments import Changes, Deleted, MovesOthers, NameTaken, NotFound
from control_plane.planning import Infeasible
from control_plane.state import Deployment, DeploymentName, ModelName
from control_plane.wanted import Needs
from tests.fakes.rig import Rig
from tests.fakes.world import a_package

E, A = ModelName("e"), ModelName("a")


def test_of_writers_at_the_same_time_who_contradict_each_other_one_wins() -> None:
    async def scenario() -> None:
        deployments = Rig().deployments
        answers = await asyncio.gather(
            *(deployments.create(DeploymentName(f"d{version}"), A, version) for version in (1, 2))
        )
        assert sorted(type(answer).__name__ for answer in answers) == ["Deployment", "Infeasible"]

    asyncio.run(scenario())


def test_a_name_is_taken_once() -> None:
    async def scenario() -> None:
        deployments, name = Rig().deployments, DeploymentName("d")
        first = await deployments.create(name, E, None)
        assert isinstance(first, Deployment)
        assert await deployments.create(name, A, None) == NameTaken(first)
        assert await deployments.get(name) == first

    asyncio.run(scenario())


def test_a_redeploy_that_cannot_be_served_leaves_what_is() -> None:
    async def scenario() -> None:
        rig, name = Rig(), DeploymentName("d")
        first = await rig.deployments.create(name, E, None)
        del rig.catalogue.published[A]
        answer = await rig.deployments.redeploy(name)
        assert isinstance(answer, Infeasible)
        assert await rig.deployments.get(name) == first
        assert await rig.deployments.redeploy(DeploymentName("none")) == NotFound(DeploymentName("none"))

    asyncio.run(scenario())


def test_those_who_share_a_model_are_redeployed_together_or_not_at_all() -> None:
    async def scenario() -> None:
        rig, name, other = Rig(), DeploymentName("d"), DeploymentName("other")
        first = await rig.deployments.create(name, E, None)
        second = await rig.deployments.create(other, A, None)
        rig.catalogue.published[A] = a_package("a", (1, 2, 3))
        answer = await rig.deployments.redeploy(name)
        assert isinstance(answer, MovesOthers)
        assert answer.others == (other,)
        assert "'other' pins model 'a' at version 2, this one at version 3" in answer.reasons[0]
        assert await rig.deployments.list() == (first, second)
        moved = await rig.deployments.redeploy(name, together=True)
        assert isinstance(moved, Deployment)
        assert [(it.revision, it.pins[0].version) for it in await rig.deployments.list()] == [(2, 3), (2, 3)]

    asyncio.run(scenario())


def test_a_delete_tells_what_nobody_else_needs() -> None:
    async def scenario() -> None:
        deployments = Rig().deployments
        await deployments.create(DeploymentName("d"), E, None)
        await deployments.create(DeploymentName("other"), A, None)
        answer = await deployments.delete(DeploymentName("d"))
        assert isinstance(answer, Deleted)
        assert (answer.deployment.name, answer.released) == ("d", frozenset({E, ModelName("b")}))
        assert await deployments.delete(DeploymentName("d")) == NotFound(DeploymentName("d"))

    asyncio.run(scenario())


def test_instances_of_an_ensemble_are_refused_with_what_to_do() -> None:
    async def scenario() -> None:
        deployments, name = Rig().deployments, DeploymentName("d")
        wish = Changes(needs=Needs(instances=2))
        answer = await deployments.create(name, E, None, changes=wish)
        assert isinstance(answer, Infeasible)
        assert "is an ensemble, which has no instances of its own" in answer.reasons[0]
        assert isinstance(await deployments.create(name, E, None), Deployment)
        assert isinstance(await deployments.change(name, lambda _: wish), Infeasible)

    asyncio.run(scenario())
