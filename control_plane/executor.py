"""Carrying out one server's part of a plan: Action -> port call -> Outcome.

`reconciler` hands the steps over and keeps the outcomes. Nothing is believed because a call returned: the next
observation tells.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from typing import assert_never

from control_plane.actions import (
    Action,
    Failed,
    Load,
    Loaded,
    Outcome,
    Restart,
    Restarted,
    Skipped,
    Unload,
    Unloaded,
)
from control_plane.distribution import Distribution
from control_plane.error_kinds import kind_of
from control_plane.errors import ControlPlaneError, DeadlineExceededError, NotOursError, RetryableError
from control_plane.planning.plan import PlannedAction
from control_plane.ports import Catalogue, Fleet, TritonControl
from control_plane.state import ModelName, Pin, Server

Keep = Callable[[PlannedAction, Outcome], Awaitable[None]]
Begin = Callable[[PlannedAction], Awaitable[None]]


class Executor:
    """Stages one after the other, the steps of a stage at the same time, at most `at_once` calls to a server."""

    def __init__(
        self,
        triton: TritonControl,
        catalogue: Catalogue,
        fleet: Fleet,
        distribution: Distribution | None = None,
        *,
        at_once: int = 2,
    ) -> None:
        self._triton, self._catalogue, self._fleet, self._distribution = triton, catalogue, fleet, distribution
        self._at_once = at_once

    async def execute(
        self, server: Server, steps: Sequence[PlannedAction], keep: Keep, begin: Begin | None = None
    ) -> tuple[Outcome, ...]:
        """Carry out `steps` on `server`. `begin` hears of each before, `keep` of its outcome as soon as it is known."""
        room = asyncio.Semaphore(self._at_once)
        outcomes: list[Outcome] = []

        async def carry_out(step: PlannedAction) -> None:
            action = step.action
            blocked = _blocked(action, outcomes)
            if blocked:
                outcome: Outcome = Skipped(action, blocked)
            else:
                async with room:
                    if begin is not None:
                        await begin(step)
                    outcome = await self._act(server, action, step.reason)
            await keep(step, outcome)
            outcomes.append(outcome)

        for _, stage in groupby(sorted(steps, key=lambda step: step.stage), key=lambda step: step.stage):
            async with asyncio.TaskGroup() as group:
                for step in stage:
                    group.create_task(carry_out(step))
        return tuple(outcomes)

    async def _act(self, server: Server, action: Action, reason: str) -> Outcome:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            match action:
                case Load():
                    await self._load(server, action)
                    return Loaded(action, clock() - begun)
                case Unload():
                    await self._triton.unload(server, action.model)
                    return Unloaded(action)
                case Restart():
                    await self._restart(action, reason)
                    return Restarted(action, clock() - begun)
                case _:
                    assert_never(action)
        except ControlPlaneError as error:
            retryable, hung = isinstance(error, RetryableError), isinstance(error, DeadlineExceededError)
            hung = hung and isinstance(action, Load)
            return Failed(action, str(error), retryable, clock() - begun, hung=hung, kind=kind_of(error))

    async def _restart(self, action: Restart, reason: str) -> None:
        if not await self._fleet.restart(action.server, reason):
            raise NotOursError(f"The process of server '{action.server}' is not this control plane's.")

    async def _load(self, server: Server, action: Load) -> None:
        for pin in (*action.members, Pin(action.model, action.version)):
            if self._distribution is not None and server.repository:
                await asyncio.to_thread(self._distribution.bring, server, pin, action.members)
            config = await asyncio.to_thread(
                self._catalogue.load_config, pin.model, pin.version, action.setting(pin.model)
            )
            await self._triton.load(server, pin.model, config)


def _blocked(action: Action, outcomes: Iterable[Outcome]) -> str:
    """Why `action` cannot be tried after these outcomes; empty when it can."""
    if not isinstance(action, Load):
        return ""
    members: set[ModelName] = {pin.model for pin in action.members}
    for outcome in outcomes:
        if isinstance(outcome, Failed | Skipped) and outcome.action.model in members:
            return f"Its member '{outcome.action.model}' failed: {outcome.reason}"
    return ""
