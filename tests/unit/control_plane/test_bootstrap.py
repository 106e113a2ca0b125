"""What ends a control plane; putting one together is tested in tests/integration and tests/faults."""

import asyncio

import pytest

from control_plane.bootstrap import until_one_ends
from control_plane.errors import ControlPlaneError


async def breaks() -> None:
    raise RuntimeError("boom")


async def returns() -> None:
    return


async def goes_on() -> None:
    await asyncio.Event().wait()


def test_a_part_that_breaks_is_told_with_its_error() -> None:
    async def scenario() -> None:
        other = asyncio.create_task(goes_on(), name="API server")
        with pytest.raises(ControlPlaneError, match="The reconciler ended unexpectedly: RuntimeError: boom"):
            await until_one_ends(asyncio.create_task(breaks(), name="reconciler"), other)
        other.cancel()

    asyncio.run(scenario())


def test_a_part_that_returns_or_is_cancelled_is_told() -> None:
    async def scenario() -> None:
        with pytest.raises(ControlPlaneError, match="The API server ended unexpectedly\\. Start"):
            await until_one_ends(asyncio.create_task(returns(), name="API server"))
        cancelled = asyncio.create_task(goes_on(), name="reconciler")
        cancelled.cancel()
        with pytest.raises(ControlPlaneError, match="The reconciler ended unexpectedly\\. Start"):
            await until_one_ends(cancelled)

    asyncio.run(scenario())
