"""What to tell users of a deployment: one word, and per server each model's state with Triton's own reason.

Pure, from the same state that `lifecycle` plans from, so status and plan never contradict each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from builders.targets import Precision
from control_plane.planning.plan import Plan
from control_plane.planning.targets import TargetOnServer
from control_plane.state import (
    ActionRecord,
    Deployment,
    ModelName,
    ModelState,
    ObservedServer,
    Pin,
    Result,
    ServerId,
    Track,
)


class DeploymentState(StrEnum):
    """How far a deployment is, on one server or on all.

    `pending`: nothing was tried yet (no server is reachable). `degraded`: some servers serve it, others cannot.
    """

    PENDING = "pending"
    PROGRESSING = "progressing"
    SERVING = "serving"
    DEGRADED = "degraded"
    FAILED = "failed"


SETTLED = frozenset({DeploymentState.SERVING, DeploymentState.DEGRADED, DeploymentState.FAILED})
"""States that do not change by waiting a little, so a caller who waits is answered."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One pinned model on one server. `state` is Triton's, or None where its index does not know the version.

    `target` is the one that serves; empty where nothing does, or the version has no targets.
    """

    pin: Pin
    state: ModelState | None
    reason: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One deployment on one server; `reason` is empty when it serves."""

    server: ServerId
    state: DeploymentState
    reason: str
    models: tuple[ModelStatus, ...]


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment on all servers; `reasons` are those that concern more than one server."""

    state: DeploymentState
    reasons: tuple[str, ...]
    servers: tuple[ServerStatus, ...]


def deployment_status(
    deployment: Deployment,
    observed: Mapping[ServerId, ObservedServer],
    records: Mapping[tuple[ServerId, ModelName], ActionRecord],
    plan: Plan | None = None,
    broken: Mapping[tuple[ServerId, ModelName], str] | None = None,
) -> DeploymentStatus:
    """Return the state of `deployment` on the servers that `plan` assigned it to; without one, on all of them.

    `broken` says why a model that is ready serves nobody.
    """
    infeasible = plan.reasons_against(deployment.name) if plan is not None else ()
    targets = plan.targets_by_place if plan is not None else {}
    servers = tuple(
        _on_server(track, _Place(observed[server], deployment.precisions, records, targets, broken or {}))
        for server, track in sorted(_tracks(deployment, observed, plan).items())
        if server in observed
    )
    states = {server.state for server in servers}
    overall = _overall(states, infeasible)
    if overall is DeploymentState.SERVING and plan is not None and deployment.name in plan.placement.short:
        overall = DeploymentState.DEGRADED
    return DeploymentStatus(overall, infeasible, servers)


def _tracks(deployment: Deployment, observed: Iterable[ServerId], plan: Plan | None) -> dict[ServerId, Track]:
    """Return which version of the deployment each server is to hold."""
    if plan is None:
        return dict.fromkeys(observed, deployment.tracks[0])
    tracks = deployment.tracks
    places = plan.placement.of(deployment.name)
    return {place.server: tracks[place.track] for place in places if place.track < len(tracks)}


def _overall(states: set[DeploymentState], infeasible: tuple[str, ...]) -> DeploymentState:
    if states == {DeploymentState.SERVING}:
        return DeploymentState.SERVING
    if DeploymentState.SERVING in states and (infeasible or DeploymentState.PROGRESSING not in states):
        return DeploymentState.DEGRADED
    if infeasible:
        return DeploymentState.FAILED
    for state in (DeploymentState.PROGRESSING, DeploymentState.FAILED):
        if state in states:
            return state
    return DeploymentState.PENDING


@dataclass(frozen=True, slots=True)
class _Place:
    """One server, with what is wished, what was done and what was chosen for it.

    A choice by other precisions is one from before a redeploy, or of a deployment that contradicts this one.
    """

    seen: ObservedServer
    precisions: tuple[Precision, ...]
    records: Mapping[tuple[ServerId, ModelName], ActionRecord]
    targets: Mapping[tuple[ServerId, ModelName], TargetOnServer]
    broken: Mapping[tuple[ServerId, ModelName], str]

    def choice(self, pin: Pin) -> TargetOnServer | None:
        """Return what was chosen for `pin`; None where its version has no targets."""
        found = self.targets.get((self.seen.server.id, pin.model))
        return found if found is not None and found.version == pin.version else None

    def serves(self, pin: Pin) -> bool:
        """Tell whether the pinned version, and no other now or soon, serves from the target that it should."""
        choice = self.choice(pin)
        as_wished = choice is None or (choice.serves and choice.wishes.precisions == self.precisions)
        works = (self.seen.server.id, pin.model) not in self.broken
        alone = self.seen.ready_versions(pin.model) == {pin.version} and not self.seen.coming_versions(pin)
        return alone and as_wished and works

    def failure(self, pin: Pin) -> str:
        """Why `pin`, which does not serve, was not or could not be loaded; empty where it may be on its way."""
        choice = self.choice(pin)
        if choice is not None and choice.problem and choice.wishes.precisions == self.precisions:
            return choice.problem
        place = self.seen.server.id, pin.model
        if place in self.broken and self.seen.ready_versions(pin.model) == {pin.version}:
            return f"it answers READY and serves nobody: {self.broken[place]}"
        if self.seen.coming_versions(pin):
            return ""
        record = self.records.get(place)
        failed = record is not None and record.result is Result.FAILED and record.version == pin.version
        return record.reason if failed and record is not None else ""


def _on_server(track: Track, place: _Place) -> ServerStatus:
    seen = place.seen
    if not seen.answers:
        return ServerStatus(seen.server.id, DeploymentState.PENDING, f"{seen.condition}: {seen.detail}", ())
    models = tuple(_on_model(pin, place) for pin in track.pins)
    waited_for = [pin for pin in track.pins if not place.serves(pin)]
    if not waited_for:
        return ServerStatus(seen.server.id, DeploymentState.SERVING, "", models)
    for pin in waited_for:
        if failure := place.failure(pin):
            reason = f"Model '{pin.model}': {failure}"
            return ServerStatus(seen.server.id, DeploymentState.FAILED, reason, models)
    on_way = ", ".join(_waited_for(pin, seen) for pin in waited_for)
    return ServerStatus(seen.server.id, DeploymentState.PROGRESSING, f"Not ready yet: {on_way}.", models)


def _waited_for(pin: Pin, seen: ObservedServer) -> str:
    coming = seen.coming_versions(pin)
    return f"{pin.model} (version {', '.join(map(str, sorted(coming)))} is on its way)" if coming else pin.model


def _on_model(pin: Pin, place: _Place) -> ModelStatus:
    row = next((row for row in place.seen.rows_of(pin.model) if row.version == pin.version), None)
    state = row.state if row is not None else None
    choice = place.choice(pin)
    target = choice.serving if choice is not None else ""
    if place.serves(pin):
        return ModelStatus(pin, state, "", target)
    return ModelStatus(pin, state, place.failure(pin) or (row.reason if row is not None else ""), target)
