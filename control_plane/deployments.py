"""Writing desired state: a deployment is checked and pinned against the repository, stored, then the loop is woken.

Between `api` above and `planning`, `ports` below. What cannot be served is refused with every reason, before anything
is stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from builders.targets import Precision
from control_plane.planning import Infeasible, conflicts_with, resolve_pins, resolve_together, wish_conflicts
from control_plane.ports import Catalogue, DeploymentStore
from control_plane.state import Deployment, DeploymentName, ModelName, Pin


@dataclass(frozen=True, slots=True)
class NameTaken:
    """There is a deployment of this name already."""

    existing: Deployment


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no deployment of this name."""

    name: DeploymentName


@dataclass(frozen=True, slots=True)
class MovesOthers:
    """The deployment can be pinned again only together with `others`, which share models with it."""

    deployment: Deployment
    others: tuple[DeploymentName, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """The deployment is gone; no other one needs the models in `released`."""

    released: frozenset[ModelName]


class Deployments:
    """Create, redeploy and delete, one at a time, so that two writers cannot both pass the check for conflicts."""

    def __init__(
        self, store: DeploymentStore, catalogue: Catalogue, now: Callable[[], datetime], wake: Callable[[], None]
    ) -> None:
        self._store, self._catalogue, self._now, self._wake = store, catalogue, now, wake
        self._writing = asyncio.Lock()

    async def create(
        self,
        name: DeploymentName,
        model: ModelName,
        version: int | None,
        *,
        precisions: tuple[Precision, ...] = (),
        allow_unproven: bool = False,
    ) -> Deployment | NameTaken | Infeasible:
        """Store a new deployment of `model` at `version` (None: the newest of now) with all it needs pinned."""
        async with self._writing:
            existing = await self._store.get(name)
            if existing is not None:
                return NameTaken(existing)
            now = self._now()
            asked = Deployment(
                name,
                model,
                version,
                pins=(),
                revision=1,
                created_at=now,
                updated_at=now,
                precisions=precisions,
                allow_unproven=allow_unproven,
            )
            deployment = await self._pin(asked)
            if isinstance(deployment, Deployment):
                await self._write(self._store.create, deployment)
            return deployment

    async def redeploy(
        self,
        name: DeploymentName,
        *,
        together: bool = False,
        precisions: tuple[Precision, ...] | None = None,
        allow_unproven: bool | None = None,
    ) -> Deployment | NotFound | MovesOthers | Infeasible:
        """Pin a deployment again, to the versions published by now, as its next revision.

        Others that share a model whose version changes by that are pinned again with it, where `together` allows it.
        What the deployment allows and wishes stays as it is where it is not given.
        """
        async with self._writing:
            everyone = {entry.name: entry for entry in await self._store.list()}
            if name not in everyone:
                return NotFound(name)
            before = everyone[name]
            everyone[name] = replace(
                before,
                precisions=before.precisions if precisions is None else precisions,
                allow_unproven=before.allow_unproven if allow_unproven is None else allow_unproven,
            )
            published = await asyncio.to_thread(self._catalogue.read)
            others = [other for other in everyone.values() if other.name != name]
            moved = resolve_together(everyone[name], others, published)
            if isinstance(moved, Infeasible):
                return moved
            if len(moved) > 1 and not together:
                reasons = conflicts_with(moved[name].pins, others)
                return MovesOthers(before, tuple(other for other in moved if other != name), reasons)
            now = self._now()
            after = {it: _next_revision(everyone[it], pinned.pins, now) for it, pinned in moved.items()}
            await self._write(self._store.replace, *after.values())
            return after[name]

    async def delete(self, name: DeploymentName) -> Deleted | NotFound:
        """Remove a deployment. What only it needed is unloaded by the loop."""
        async with self._writing:
            deployment = await self._store.get(name)
            if deployment is None or not await self._store.delete(name):
                return NotFound(name)
            still = {pin.model for other in await self._store.list() for pin in other.pins}
        self._wake()
        return Deleted(frozenset(pin.model for pin in deployment.pins) - still)

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name`, or None."""
        return await self._store.get(name)

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""
        return await self._store.list()

    async def _pin(self, asked: Deployment) -> Deployment | Infeasible:
        published = await asyncio.to_thread(self._catalogue.read)
        answer = resolve_pins(asked.model, asked.version, published)
        if isinstance(answer, Infeasible):
            return answer
        pinned = replace(asked, pins=answer.pins)
        others = [other for other in await self._store.list() if other.name != asked.name]
        conflicts = (*conflicts_with(pinned.pins, others), *wish_conflicts(pinned, others, published))
        return Infeasible(conflicts) if conflicts else pinned

    async def _write(self, write: Callable[..., Awaitable[bool]], *deployments: Deployment) -> None:
        # Somebody asks for these models now: what failed before is tried again at once.
        await self._store.forget(frozenset(pin.model for deployment in deployments for pin in deployment.pins))
        written = await write(*deployments)
        assert written  # noqa: S101 - the lock is ours, and so is the state file
        self._wake()


def _next_revision(before: Deployment, pins: tuple[Pin, ...], now: datetime) -> Deployment:
    return replace(before, pins=pins, revision=before.revision + 1, updated_at=now)
