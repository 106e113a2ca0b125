"""The bodies of a plan, and of a change that was only rehearsed."""

from typing import Literal

from control_plane.api.bodies import Body
from control_plane.api.deployment_schemas import RevisionBody

ActionKind = Literal["load", "reload", "scale", "unload", "restart"]


class ActionBody(Body):
    """One step on one server; a lower `stage` comes first, the same stage is independent.

    A `reload` replaces what is ready by one load, and `scale` changes its instances in place. Only loads have a
    version; `target` is the one to load, empty where the version has none. A `restart` has no model.
    """

    kind: ActionKind
    server: str
    model: str
    version: int | None
    target: str
    stage: int
    reason: str


class WaitingBody(Body):
    """A model that is left alone for now, and why."""

    server: str
    model: str
    reason: str


class InfeasibleBody(Body):
    """A deployment that cannot be carried out, and why."""

    deployment: str
    reasons: list[str]


class AssignmentBody(Body):
    """A replica of a deployment on a server, and why there."""

    server: str
    deployment: str
    reason: str


class PlanBody(Body):
    """What the loop would do now, and where every replica is to be."""

    actions: list[ActionBody]
    waiting: list[WaitingBody]
    infeasible: list[InfeasibleBody]
    placement: list[AssignmentBody]


class RehearsalBody(Body):
    """What a change would come to, and nothing was changed. `deployment` is as it would be stored, if it would be."""

    dry_run: Literal[True] = True
    deployment: RevisionBody | None
    plan: PlanBody
