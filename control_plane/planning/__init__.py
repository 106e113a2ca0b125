"""Decisions as pure functions of state: which versions a deployment pins, what should be done next, what to tell users.

No clock, no randomness, no I/O: `reconciler` and `deployments` observe, ask here, and act.
"""

from control_plane.planning.backends import with_lacking
from control_plane.planning.endpoints import Endpoint, Serving
from control_plane.planning.lifecycle import Broken, Situation, plan_lifecycle
from control_plane.planning.pins import Infeasible, Pinned, conflicts_with, resolve_pins, resolve_together
from control_plane.planning.placement import Assignment, Circumstances, Placement, place_replicas, wanted_replicas
from control_plane.planning.plan import InfeasibleDeployment, Plan, PlannedAction, Waiting
from control_plane.planning.retry import held_back, next_retry, quarantined, retry_delay_s
from control_plane.planning.status import DeploymentState, DeploymentStatus, ServerStatus, deployment_status
from control_plane.planning.targets import TargetOnServer, Wishes, wish_conflicts

__all__ = [
    "Assignment",
    "Broken",
    "Circumstances",
    "DeploymentState",
    "DeploymentStatus",
    "Endpoint",
    "Infeasible",
    "InfeasibleDeployment",
    "Pinned",
    "Placement",
    "Plan",
    "PlannedAction",
    "ServerStatus",
    "Serving",
    "Situation",
    "TargetOnServer",
    "Waiting",
    "Wishes",
    "conflicts_with",
    "deployment_status",
    "held_back",
    "next_retry",
    "place_replicas",
    "plan_lifecycle",
    "quarantined",
    "resolve_pins",
    "resolve_together",
    "retry_delay_s",
    "wanted_replicas",
    "wish_conflicts",
    "with_lacking",
]
