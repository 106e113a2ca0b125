"""The answer of a planner: actions in order, each with its reason, and what cannot or need not be done now.

Made by `lifecycle`; carried out by `executor`; shown by `api`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from control_plane.actions import Action
from control_plane.planning.placement import Placement
from control_plane.planning.targets import TargetOnServer
from control_plane.state import DeploymentName, ModelName, ServerId

LoadKind = Literal["load", "reload", "scale"]


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """One step on one server. Steps of a server with the same `stage` are independent; a lower stage comes first.

    `needed_by` are the deployments that it is done for; none for an unload. `kind` says of a load what it changes: it
    brings the model, replaces what is ready, or changes the number of its instances.
    """

    action: Action
    reason: str
    stage: int
    needed_by: tuple[DeploymentName, ...] = ()
    kind: LoadKind = "load"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A model that is not as it should be on a server, and is left alone for now; `reason` says why."""

    server: ServerId
    model: ModelName
    reason: str


@dataclass(frozen=True, slots=True)
class InfeasibleDeployment:
    """A deployment that cannot be carried out (in full) until somebody changes something: every reason at once."""

    deployment: DeploymentName
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be done now. Steps are sorted by server, then stage, then model.

    `targets` tells which target of each pinned version that has several a server should serve, by server and model;
    `placement` where each replica is to be.
    """

    steps: tuple[PlannedAction, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    infeasible: tuple[InfeasibleDeployment, ...] = ()
    targets: tuple[TargetOnServer, ...] = ()
    placement: Placement = field(default_factory=Placement, compare=False)
    targets_by_place: Mapping[tuple[ServerId, ModelName], TargetOnServer] = field(init=False, repr=False, compare=False)
    _reasons: Mapping[DeploymentName, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the targets by server and model, and what is infeasible: every pass asks for each deployment's."""
        by_place = {(choice.server, choice.model): choice for choice in self.targets}
        object.__setattr__(self, "targets_by_place", by_place)
        object.__setattr__(self, "_reasons", {entry.deployment: entry.reasons for entry in self.infeasible})

    def by_server(self) -> dict[ServerId, tuple[PlannedAction, ...]]:
        """Group the steps by the server they are for, each in order."""
        grouped: dict[ServerId, list[PlannedAction]] = {}
        for step in self.steps:
            grouped.setdefault(step.action.server, []).append(step)
        return {server: tuple(steps) for server, steps in grouped.items()}

    def reasons_against(self, name: DeploymentName) -> tuple[str, ...]:
        """Why the deployment `name` is infeasible; empty when it is not."""
        return self._reasons.get(name, ())
