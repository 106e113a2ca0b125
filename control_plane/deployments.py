"""Writing desired state: a revision is checked, pinned and placed on paper, stored, then the loop is woken.

Between `api` above and `planning`, `ports` below. What cannot be served is refused with every reason, before anything
is stored. Every write is the next revision of what it was made from, so that no writer overwrites another unseen.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from builders.targets import Precision
from control_plane.operations import OperationKind
from control_plane.planning import (
    Circumstances,
    Infeasible,
    conflicts_with,
    place_replicas,
    resolve_pins,
    resolve_together,
    wish_conflicts,
)
from control_plane.planning.placement import Place, Shortage
from control_plane.ports import Catalogue, RevisionStore
from control_plane.state import Deployment, DeploymentName, ModelName, ObservedServer, Published, Track
from control_plane.wanted import EVERYWHERE, Needs


@dataclass(frozen=True, slots=True)
class NameTaken:
    """There is a deployment of this name already."""

    existing: Deployment


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no deployment of this name."""

    name: DeploymentName


@dataclass(frozen=True, slots=True)
class Outdated:
    """The deployment is not at the revision that the writer has seen: somebody was faster."""

    current: Deployment
    expected: int


@dataclass(frozen=True, slots=True)
class NoRevision:
    """There is no such revision to return to; there are `kept`, the newest first."""

    current: Deployment
    asked: int | None
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MovesOthers:
    """The deployment can be pinned again only together with `others`, which share models with it."""

    deployment: Deployment
    others: tuple[DeploymentName, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """The deployment is gone; no other one needs the models in `released`."""

    deployment: Deployment
    released: frozenset[ModelName]


Versions = tuple[tuple[int | None, int], ...]
"""Versions to serve (None: the newest) with their shares of the traffic in percent, which add up to 100."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a revision changes; what is None stays as it is. `repin` takes the versions that are the newest by now."""

    versions: Versions | None = None
    precisions: tuple[Precision, ...] | None = None
    allow_unproven: bool | None = None
    needs: Needs | None = None
    repin: bool = False


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the loop saw last: servers, and where replicas are. Placement on paper starts from it.

    Where slices are cut for deployments, the servers of those that would be are among them, and `refused` says which
    deployments would get none, and why.
    """

    observed: tuple[ObservedServer, ...] = ()
    places: frozenset[Place] = field(default_factory=frozenset)
    refused: Mapping[DeploymentName, tuple[str, ...]] = field(default_factory=dict)


def _nothing_seen(_deployments: Iterable[Deployment], _published: Published) -> FleetView:
    return FleetView()


Announce = Callable[[OperationKind, Deployment, frozenset[ModelName]], Awaitable[None]]
"""Hears of every revision once it is stored, with the models that it leaves to nobody: the journal opens an operation.

Where the process ends in between, the loop does the same work; its steps then belong to healings.
"""


async def _tell_nobody(_kind: OperationKind, _deployment: Deployment, _released: frozenset[ModelName]) -> None:
    return


class Deployments:
    """Create, change and delete, one at a time, so that two writers cannot both pass the check for conflicts."""

    def __init__(
        self,
        store: RevisionStore,
        catalogue: Catalogue,
        now: Callable[[], datetime],
        wake: Callable[[], None],
        fleet: Callable[[Iterable[Deployment], Published], FleetView] = _nothing_seen,
        announce: Announce = _tell_nobody,
    ) -> None:
        self._store, self._catalogue, self._now, self._wake, self._fleet = store, catalogue, now, wake, fleet
        self._announce = announce
        self._writing = asyncio.Lock()

    def over(self, store: RevisionStore) -> "Deployments":
        """Return one that decides as this one does, writes to `store`, and tells nobody of it."""
        return Deployments(store, self._catalogue, self._now, lambda: None, self._fleet)

    async def create(
        self,
        name: DeploymentName,
        model: ModelName,
        version: int | None = None,
        *,
        changes: Changes | None = None,
        store_anyway: bool = False,
    ) -> Deployment | NameTaken | Infeasible:
        """Store a new deployment of `model` at `version` (None: the newest of now) with all it needs pinned.

        With `store_anyway` one that no server can hold at present is stored too.
        """
        given = changes or Changes()
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
                precisions=given.precisions or (),
                allow_unproven=bool(given.allow_unproven),
                needs=given.needs or EVERYWHERE,
            )
            published = await asyncio.to_thread(self._catalogue.read)
            others = await self._store.list()
            deployment = _pinned(_with_versions(asked, given.versions), published)
            if isinstance(deployment, Infeasible):
                return deployment
            reasons = _no_instances(deployment, published) or _contradictions(deployment, others, published)
            if not reasons and not store_anyway:
                reasons = self._without_place(deployment, others, published)
            if reasons:
                return Infeasible(reasons)
            await self._write(OperationKind.DEPLOY, self._store.create, deployment)
            return deployment

    async def change(
        self,
        name: DeploymentName,
        make: Callable[[Deployment], Changes],
        *,
        expected: int | None = None,
        together: bool = False,
        store_anyway: bool = False,
    ) -> Deployment | NotFound | Outdated | MovesOthers | Infeasible:
        """Store the next revision of a deployment: `make` says what changes of the present one.

        `expected` is the revision that the writer has seen. Others that share a model whose version changes by this are
        pinned again with it, where `together` allows it.
        """
        async with self._writing:
            everyone = {entry.name: entry for entry in await self._store.list()}
            before = everyone.get(name)
            if before is None:
                return NotFound(name)
            if expected is not None and before.revision != expected:
                return Outdated(before, expected)
            published = await asyncio.to_thread(self._catalogue.read)
            others = [other for other in everyone.values() if other.name != name]
            moved = _changed(before, make(before), others, published)
            if isinstance(moved, Infeasible):
                return moved
            if len(moved) > 1 and not together:
                reasons = conflicts_with(moved[name].all_pins, others)
                return MovesOthers(before, tuple(other for other in moved if other != name), reasons)
            unmoved = [other for other in others if other.name not in moved]
            reasons = _no_instances(moved[name], published) or _contradictions(moved[name], unmoved, published)
            if not reasons and not store_anyway:
                reasons = self._without_place(moved[name], [*unmoved, *_but(moved, name)], published)
            if reasons:
                return Infeasible(reasons)
            now = self._now()
            after = {it: _next_revision(everyone[it], revised, now) for it, revised in moved.items()}
            kind = OperationKind.REDEPLOY if after[name].all_pins != before.all_pins else OperationKind.SCALE
            await self._write(kind, self._store.replace, *after.values())
            return after[name]

    async def redeploy(
        self, name: DeploymentName, *, together: bool = False
    ) -> Deployment | NotFound | Outdated | MovesOthers | Infeasible:
        """Pin a deployment again, to the versions published by now, and change nothing else."""
        return await self.change(name, lambda _before: Changes(repin=True), together=together)

    async def rollback(
        self, name: DeploymentName, revision: int | None = None, *, expected: int | None = None
    ) -> Deployment | NotFound | Outdated | NoRevision | Infeasible:
        """Return to an earlier revision (None: the one before the present one), as the next one.

        Everything is as it was then, the pins included. A deployment that is in the way is a reason against it.
        """
        async with self._writing:
            before = await self._store.get(name)
            if before is None:
                return NotFound(name)
            if expected is not None and before.revision != expected:
                return Outdated(before, expected)
            kept = [it for it in await self._store.revisions(name) if it.revision < before.revision]
            wanted = before.revision - 1 if revision is None else revision
            then = next((it for it in kept if it.revision == wanted), None)
            if then is None:
                return NoRevision(before, revision, tuple(it.revision for it in kept))
            published = await asyncio.to_thread(self._catalogue.read)
            others = [other for other in await self._store.list() if other.name != name]
            reasons = _not_published(then, published) or _contradictions(then, others, published)
            reasons = reasons or self._without_place(then, others, published)
            if reasons:
                return Infeasible(reasons)
            after = _next_revision(before, then, self._now())
            await self._write(OperationKind.ROLLBACK, self._store.replace, after)
            return after

    async def delete(self, name: DeploymentName, *, expected: int | None = None) -> Deleted | NotFound | Outdated:
        """Remove a deployment. What only it needed is unloaded by the loop."""
        async with self._writing:
            deployment = await self._store.get(name)
            if deployment is None:
                return NotFound(name)
            if expected is not None and deployment.revision != expected:
                return Outdated(deployment, expected)
            await self._store.delete(name)
            still = {pin.model for other in await self._store.list() for pin in other.all_pins}
            released = frozenset(pin.model for pin in deployment.all_pins) - still
            await self._announce(OperationKind.UNDEPLOY, deployment, released)
        self._wake()
        return Deleted(deployment, released)

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name`, or None."""
        return await self._store.get(name)

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""
        return await self._store.list()

    async def revisions(self, name: DeploymentName) -> tuple[Deployment, ...]:
        """Return every revision of a deployment that is kept, the newest first."""
        return await self._store.revisions(name)

    def _without_place(
        self, deployment: Deployment, others: Iterable[Deployment], published: Published
    ) -> tuple[str, ...]:
        """Why replicas of `deployment` have no server, and which others would lose theirs; empty where all is well."""
        rest = list(others)
        view = self._fleet([*rest, deployment], published)
        if not view.observed:
            return view.refused.get(deployment.name, ())
        circumstances = Circumstances(self._now(), view.places)
        before = {(it.deployment, it.track) for it in _shortages(rest, published, view, circumstances)}
        after = _shortages([*rest, deployment], published, view, circumstances)
        return view.refused.get(deployment.name, ()) or tuple(
            it.sentence if it.deployment == deployment.name else f"Deployment '{it.deployment}': {it.sentence}"
            for it in after
            if it.deployment == deployment.name or (it.deployment, it.track) not in before
        )

    async def _write(
        self, kind: OperationKind, write: Callable[..., Awaitable[bool]], *deployments: Deployment
    ) -> None:
        # Somebody asks for these models now: what failed before is tried again at once.
        await self._store.forget(frozenset(pin.model for deployment in deployments for pin in deployment.all_pins))
        written = await write(*deployments)
        assert written  # noqa: S101 - the lock is ours, and so is the state file
        for deployment in deployments:
            await self._announce(kind, deployment, frozenset())
        self._wake()


def _shortages(
    deployments: Iterable[Deployment], published: Published, view: FleetView, given: Circumstances
) -> tuple[Shortage, ...]:
    return place_replicas(deployments, published, view.observed, given).shortages


def _with_versions(deployment: Deployment, versions: Versions | None) -> Deployment:
    """Return the deployment asking for these versions, not pinned yet."""
    if versions is None:
        return deployment
    (version, _), *others = versions
    return replace(
        deployment, version=version, pins=(), others=tuple(Track(other, (), share) for other, share in others)
    )


def _pinned(deployment: Deployment, published: Published) -> Deployment | Infeasible:
    """Return the deployment with every version that it asks for pinned."""
    answers = [resolve_pins(deployment.model, track.version, published) for track in deployment.tracks]
    reasons = [reason for answer in answers if isinstance(answer, Infeasible) for reason in answer.reasons]
    if reasons:
        return Infeasible(tuple(dict.fromkeys(reasons)))
    pins = [answer.pins for answer in answers if not isinstance(answer, Infeasible)]
    others = tuple(replace(track, pins=own) for track, own in zip(deployment.others, pins[1:], strict=True))
    return replace(deployment, pins=pins[0], others=others)


def _changed(
    before: Deployment, changes: Changes, others: list[Deployment], published: Published
) -> Mapping[DeploymentName, Deployment] | Infeasible:
    """Return the deployment as the changes make it, and those that move with it."""
    after = replace(
        before,
        precisions=before.precisions if changes.precisions is None else changes.precisions,
        allow_unproven=before.allow_unproven if changes.allow_unproven is None else changes.allow_unproven,
        needs=before.needs if changes.needs is None else changes.needs,
    )
    if changes.versions is None and not changes.repin:
        return {before.name: after}
    after = _with_versions(after, changes.versions)
    moved = resolve_together(after, others, published)
    if isinstance(moved, Infeasible):
        return moved
    pinned = _pinned(after, published)
    if isinstance(pinned, Infeasible):
        return pinned
    by_name = {other.name: other for other in others}
    revised = {name: replace(by_name[name], pins=it.pins) for name, it in moved.items() if name != before.name}
    return {before.name: replace(pinned, pins=moved[before.name].pins), **revised}


def _no_instances(deployment: Deployment, published: Published) -> tuple[str, ...]:
    """Why the instances that are asked for cannot be had; empty where they can, or none are asked for."""
    if deployment.needs.instances is None:
        return ()
    package = published.get(deployment.model)
    ensembles = (track for track in deployment.tracks if package is not None and package.at(track.pinned).is_ensemble)
    if next(ensembles, None) is None:
        return ()
    told = f"Model '{deployment.model}' is an ensemble, which has no instances of its own"
    return (f"{told}: deploy the member that is to have more, and scale that deployment.",)


def _contradictions(deployment: Deployment, others: Iterable[Deployment], published: Published) -> tuple[str, ...]:
    rest = [other for other in others if other.name != deployment.name]
    return (*conflicts_with(deployment.all_pins, rest), *wish_conflicts(deployment, rest, published))


def _not_published(deployment: Deployment, published: Published) -> tuple[str, ...]:
    """Why an earlier revision cannot be served any more: versions that are gone from the repository."""
    gone = []
    for pin in deployment.all_pins:
        package = published.get(pin.model)
        if package is None or pin.version not in package.versions:
            gone.append(f"Version {pin.version} of model '{pin.model}' is no longer in the model repository.")
    return tuple(gone)


def _but(moved: Mapping[DeploymentName, Deployment], name: DeploymentName) -> list[Deployment]:
    return [entry for it, entry in moved.items() if it != name]


def _next_revision(before: Deployment, after: Deployment, now: datetime) -> Deployment:
    return replace(after, created_at=before.created_at, revision=before.revision + 1, updated_at=now)
