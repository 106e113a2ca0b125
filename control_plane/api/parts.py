"""What the routers work with, handed to them through the app's state. Made in `bootstrap`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query, Request

from control_plane.deployments import Deployments
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.ports import Catalogue, DeploymentStore, Fleet
from control_plane.reconciler import Reconciler
from control_plane.rehearsal import RehearsedStore
from control_plane.slicer import Slicer


@dataclass(frozen=True, slots=True)
class Parts:
    """The services behind the API. With a `rehearsal`, `deployments` writes to that alone."""

    deployments: Deployments
    reconciler: Reconciler
    journal: Journal
    catalogue: Catalogue
    fleet: Fleet
    store: DeploymentStore
    metrics: Metrics
    now: Callable[[], datetime]
    interval_s: float
    slicer: Slicer | None = None
    rehearsal: RehearsedStore | None = None


def _parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


UsedParts = Annotated[Parts, Depends(_parts_of)]

DryRun = Annotated[
    bool, Query(description="Whether to change nothing, and to answer with the plan that the change would come to.")
]


def _parts_for_change(parts: UsedParts, dry_run: DryRun = False) -> Parts:  # noqa: FBT002 - FastAPI's way
    if not dry_run:
        return parts
    store = RehearsedStore(parts.store)
    return replace(parts, deployments=parts.deployments.over(store), rehearsal=store)


ChangingParts = Annotated[Parts, Depends(_parts_for_change)]
"""Those of a call that changes deployments: with `?dry_run=true` it only rehearses."""
