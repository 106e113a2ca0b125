"""Trying a change out: a store of deployments that reads through to the real one and keeps what is written to itself.

`deployments` decides over it just as over the real one, so a dry run takes every check of the change itself. What the
loop would do then is planned from the `Proposal` that comes of it.
"""

from dataclasses import dataclass

from control_plane.ports import RevisionStore
from control_plane.state import Deployment, DeploymentName, Mark, ModelName, ServerId


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be different: all that is desired (None: as it is), what is tried again at once, a server drained."""

    deployments: tuple[Deployment, ...] | None = None
    forgotten: frozenset[tuple[ServerId | None, ModelName]] = frozenset()
    drained: Mark | None = None

    def forgets(self, server: ServerId, model: ModelName) -> bool:
        """Tell whether what was last done with a model on a server would count no more."""
        return not self.forgotten.isdisjoint({(server, model), (None, model)})


AS_IT_IS = Proposal()
"""Nothing is different."""


class RehearsedStore:
    """A `RevisionStore` over `store`, for one change. Nothing is ever written to `store`."""

    def __init__(self, store: RevisionStore) -> None:
        self._store = store
        self._written: dict[DeploymentName, Deployment | None] = {}
        self._forgotten: set[tuple[ServerId | None, ModelName]] = set()

    async def proposal(self) -> Proposal:
        """Return what was written here, all together."""
        return Proposal(await self.list(), frozenset(self._forgotten))

    async def create(self, deployment: Deployment) -> bool:
        """Add a deployment here; False where the name is taken."""
        if await self.get(deployment.name) is not None:
            return False
        self._written[deployment.name] = deployment
        return True

    async def replace(self, *deployments: Deployment) -> bool:
        """Write the next revision of each here, all or none."""
        for deployment in deployments:
            before = await self.get(deployment.name)
            if before is None or before.revision != deployment.revision - 1:
                return False
        self._written.update({it.name: it for it in deployments})
        return True

    async def delete(self, name: DeploymentName) -> bool:
        """Remove a deployment here; False where there is none."""
        if await self.get(name) is None:
            return False
        self._written[name] = None
        return True

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name` as it was written here, or else there."""
        return self._written[name] if name in self._written else await self._store.get(name)

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""
        found: dict[DeploymentName, Deployment | None] = {it.name: it for it in await self._store.list()}
        found |= self._written
        return tuple(it for _, it in sorted(found.items()) if it is not None)

    async def revisions(self, name: DeploymentName) -> tuple[Deployment, ...]:
        """Return the revisions that are kept there, behind the one that was written here."""
        written = self._written.get(name)
        return (*((written,) if written is not None else ()), *await self._store.revisions(name))

    async def forget(self, models: frozenset[ModelName], server: ServerId | None = None) -> None:
        """Note that these records are to be dropped."""
        self._forgotten |= {(server, model) for model in models}
