"""Where operations are kept: the Protocol, its cursor, and its answer to a key that was used for something else.

`adapters.operation_store` provides it, `tests/fakes/operations` does so for tests.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from control_plane.operations.model import NO_DEPLOYMENT, NO_SERVER, Operation, OperationId, OperationState
from control_plane.state import DeploymentName, ServerId

PAGE = 100
"""How many operations are listed where nobody says how many."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the list of operations, the newest first. It stays valid whatever is added or pruned."""

    created_at: datetime
    id: OperationId

    @classmethod
    def after(cls, operation: Operation) -> Self:
        """Return the cursor of the page that begins after `operation`."""
        return cls(operation.created_at, operation.id)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` of one gave; None where it is something else."""
        microseconds, dot, name = text.partition(".")
        if not (dot and name and microseconds.isascii() and microseconds.isdigit()):
            return None
        try:
            return cls(_EPOCH + int(microseconds) * _MICROSECOND, OperationId(name))
        except (OverflowError, ValueError):  # more digits than a time, or than Python reads, has
            return None

    def __str__(self) -> str:
        """Write it so that it needs no escaping in an URL, where the id does not."""
        return f"{(self.created_at - _EPOCH) // _MICROSECOND}.{self.id}"


@dataclass(frozen=True, slots=True)
class KeyReused:
    """An idempotency key came with a request that is not the one that made `operation`."""

    operation: Operation


class OperationStore(Protocol):
    """The journal. What a call wrote is durable when it returns; each call is whole or has no effect.

    All raise StateFileError where the disk says no.
    """

    async def add(
        self, operation: Operation, idempotency_key: str = "", request_digest: str = ""
    ) -> Operation | KeyReused:
        """Keep a new operation; returns the one that is stored.

        That is the earlier one where the key is known with the same digest, or else the id is. A known key with
        another digest changes nothing.
        """

    async def by_key(self, idempotency_key: str, request_digest: str) -> Operation | KeyReused | None:
        """Return what `add` would find under a key; None where it is new."""

    async def save(self, *operations: Operation) -> None:
        """Write operations, new or changed, all or none.

        One that is stored as finished stays as it is, and a step that is stored stays there.
        """

    async def get(self, id: OperationId) -> Operation | None:  # noqa: A002 - as the field is called
        """Return an operation, or None."""

    async def list(
        self,
        *,
        states: Collection[OperationState] = (),
        deployment: DeploymentName = NO_DEPLOYMENT,
        server: ServerId = NO_SERVER,
        limit: int = PAGE,
        before: Cursor | None = None,
    ) -> tuple[Operation, ...]:
        """Return the newest operations, at most `limit`: of any of `states`, of `deployment`, with a part on `server`.

        Each filter counts where it is given. With `before` it is the page after the one that the cursor ended.
        """

    async def open(self) -> tuple[Operation, ...]:
        """Return every operation that is not finished, the oldest first."""

    async def prune(self, before: datetime, keep: int) -> int:
        """Drop operations that finished before a time, with their keys, but not the newest `keep` finished ones.

        Returns how many.
        """
