"""What the routers work with, handed to them through the app's state. Made in `bootstrap`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from control_plane.deployments import Deployments
from control_plane.journal import Journal
from control_plane.metrics import Metrics
from control_plane.ports import Catalogue, DeploymentStore, Fleet
from control_plane.reconciler import Reconciler


@dataclass(frozen=True, slots=True)
class Parts:
    """The services behind the API."""

    deployments: Deployments
    reconciler: Reconciler
    journal: Journal
    catalogue: Catalogue
    fleet: Fleet
    store: DeploymentStore
    metrics: Metrics
    now: Callable[[], datetime]
    interval_s: float


def _parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


UsedParts = Annotated[Parts, Depends(_parts_of)]
