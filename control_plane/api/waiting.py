"""Waiting, for a bounded time, until the loop has brought a deployment where it can be."""

import asyncio

from control_plane.planning import DeploymentStatus
from control_plane.planning.status import SETTLED
from control_plane.reconciler import Reconciler
from control_plane.state import Deployment, ModelName, ModelState, ServerCondition


async def until_settled(
    reconciler: Reconciler, deployment: Deployment, seconds: float
) -> tuple[DeploymentStatus, bool]:
    """Wait until `deployment` serves, is degraded, or failed. Returns where it stands, and whether that is so."""
    try:
        async with asyncio.timeout(seconds):
            while not _settled(reconciler, deployment):
                await reconciler.pass_ended()
    except TimeoutError:
        return reconciler.view.status_of(deployment), False
    return reconciler.view.status_of(deployment), True


async def until_released(reconciler: Reconciler, models: frozenset[ModelName], seconds: float) -> tuple[str, ...]:
    """Wait until no server that answers holds one of `models`. Returns those that are still held then."""
    try:
        async with asyncio.timeout(seconds):
            while _held(reconciler, models):
                await reconciler.pass_ended()
    except TimeoutError:
        return _held(reconciler, models)
    return ()


def _settled(reconciler: Reconciler, deployment: Deployment) -> bool:
    view = reconciler.view
    return view.has_seen(deployment) and view.status_of(deployment).state in SETTLED


def _held(reconciler: Reconciler, models: frozenset[ModelName]) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                row.name
                for seen in reconciler.view.observed
                if seen.condition is ServerCondition.HEALTHY
                for row in seen.models
                if row.name in models and row.state in (ModelState.READY, ModelState.LOADING)
            }
        )
    )
