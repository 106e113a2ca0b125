"""What to tell users of a deployment: one word, and per server each model's state with Triton's own reason.

Pure, from the same state that `lifecycle` plans from, so status and plan never contradict each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from control_plane.state import (
    ActionRecord,
    Deployment,
    ModelName,
    ModelState,
    ObservedServer,
    Pin,
    Result,
    ServerCondition,
    ServerId,
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
    """One pinned model on one server. `state` is Triton's, or None where its index does not know the version."""

    pin: Pin
    state: ModelState | None
    reason: str


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
    observed: Iterable[ObservedServer],
    records: Mapping[tuple[ServerId, ModelName], ActionRecord],
    infeasible: tuple[str, ...] = (),
) -> DeploymentStatus:
    """Return the state of `deployment`. `infeasible` are the plan's reasons against it (`Plan.reasons_against`)."""
    ordered = sorted(observed, key=lambda entry: entry.server.id)
    servers = tuple(_on_server(deployment, entry, records) for entry in ordered)
    states = {server.state for server in servers}
    return DeploymentStatus(_overall(states, infeasible), infeasible, servers)


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


def _on_server(
    deployment: Deployment, seen: ObservedServer, records: Mapping[tuple[ServerId, ModelName], ActionRecord]
) -> ServerStatus:
    if seen.condition is not ServerCondition.HEALTHY:
        return ServerStatus(seen.server.id, DeploymentState.PENDING, f"{seen.condition}: {seen.detail}", ())
    models = tuple(_on_model(pin, seen, records.get((seen.server.id, pin.model))) for pin in deployment.pins)
    if all(seen.ready_versions(pin.model) == {pin.version} for pin in deployment.pins):
        return ServerStatus(seen.server.id, DeploymentState.SERVING, "", models)
    for pin in deployment.pins:
        record = records.get((seen.server.id, pin.model))
        if _failed(record, pin) and seen.ready_versions(pin.model) != {pin.version}:
            assert record is not None  # noqa: S101 - said by _failed, which mypy cannot see
            reason = f"Model '{pin.model}': {record.reason}"
            return ServerStatus(seen.server.id, DeploymentState.FAILED, reason, models)
    on_way = [pin.model for pin in deployment.pins if seen.ready_versions(pin.model) != {pin.version}]
    return ServerStatus(seen.server.id, DeploymentState.PROGRESSING, f"Not ready yet: {', '.join(on_way)}.", models)


def _on_model(pin: Pin, seen: ObservedServer, record: ActionRecord | None) -> ModelStatus:
    row = next((row for row in seen.rows_of(pin.model) if row.version == pin.version), None)
    state = row.state if row is not None else None
    if state is ModelState.READY:
        return ModelStatus(pin, state, "")
    if record is not None and _failed(record, pin):
        return ModelStatus(pin, state, record.reason)
    return ModelStatus(pin, state, row.reason if row is not None else "")


def _failed(record: ActionRecord | None, pin: Pin) -> bool:
    return record is not None and record.result is Result.FAILED and record.version == pin.version
