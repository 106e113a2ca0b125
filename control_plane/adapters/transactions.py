"""The state file in use: one transaction after the other, for all stores that share it.

Beneath `store` and `operation_store`, over `state_file`. The work of each is done in one worker thread of its own, so
the event loop never waits for a disk, and whoever stops waiting (a cancelled task) leaves no transaction half done.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from control_plane.adapters.state_file import hold, open_engine
from control_plane.errors import StateFileError

_T = TypeVar("_T")


def _nothing(_result: object) -> None:
    """Do nothing more."""


class Transactions:
    """Transactions on the database behind `engine`, in the order they were asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="state file")

    async def run(self, work: Callable[[Connection], _T], committed: Callable[[_T], None] = _nothing) -> _T:
        """Do `work` in one transaction; returns its result once that is on disk. Raises StateFileError.

        `committed` is called with the result in the worker thread, before the next transaction begins, also where
        nobody waits any more.
        """
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._transact, work, committed)

    def close(self) -> None:
        """Wait for what was begun, and let go of the file. Not for the event loop's thread."""
        self._worker.shutdown()
        self._engine.dispose()

    def _transact(self, work: Callable[[Connection], _T], committed: Callable[[_T], None]) -> _T:
        try:
            with self._engine.begin() as connection:
                result = work(connection)
        except SQLAlchemyError as exc:
            reason = getattr(exc, "orig", None) or exc
            raise StateFileError(
                f"{self._engine.url.database}: the state could not be read or written: {reason}"
            ) from exc
        committed(result)
        return result


@asynccontextmanager
async def open_transactions(path: Path) -> AsyncIterator[Transactions]:
    """Open the state file at `path`, for this process alone. Raises StateFileLockedError, StateFileError."""
    with hold(path):
        transactions = Transactions(await asyncio.to_thread(open_engine, path))
        try:
            yield transactions
        finally:
            await asyncio.to_thread(transactions.close)
