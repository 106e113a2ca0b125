"""The operations that are not finished, found by what they are about: a step, a deployment, a server, a model.

`journal` asks for the operations of every step that begins or ends; to search all of them each time would cost a fleet
of thousands of models the square of that. Holds what it is given, writes nothing.
"""

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

from control_plane.operations import Operation, OperationId, OperationKind, StepKey
from control_plane.state import DeploymentName, ModelName, ServerId

K = TypeVar("K", bound=Hashable)
_Ids = dict[OperationId, None]
"""A set that keeps its order, so that what is found comes in the same order every time."""


class OpenOperations(Mapping[OperationId, Operation]):
    """One copy of each open operation, by id, the oldest first."""

    def __init__(self) -> None:
        self._operations: dict[OperationId, Operation] = {}
        self._released: dict[OperationId, frozenset[ModelName]] = {}
        self._by_step: dict[StepKey, _Ids] = {}
        self._by_deployment: dict[DeploymentName, _Ids] = {}
        self._by_server: dict[tuple[OperationKind, ServerId], _Ids] = {}
        self._by_released: dict[ModelName, _Ids] = {}

    def __getitem__(self, name: OperationId) -> Operation:
        return self._operations[name]

    def __iter__(self) -> Iterator[OperationId]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    def put(self, operation: Operation) -> None:
        """Take the operation in, or what became of it: its steps only ever get more."""
        before = self._operations.get(operation.id)
        self._operations[operation.id] = operation
        if before is None:
            self._by_deployment.setdefault(operation.deployment, {})[operation.id] = None
            self._by_server.setdefault((operation.kind, operation.server), {})[operation.id] = None
        for step in operation.steps[len(before.steps) if before is not None else 0 :]:
            self._by_step.setdefault(step.key, {})[operation.id] = None

    def release(self, name: OperationId, models: frozenset[ModelName]) -> None:
        """Note which models an operation leaves to nobody: their unloads are its steps."""
        self._released[name] = models
        for model in models:
            self._by_released.setdefault(model, {})[name] = None

    def drop(self, name: OperationId) -> None:
        """Forget an operation that is finished."""
        operation = self._operations.pop(name, None)
        for model in self._released.pop(name, frozenset()):
            _forget(self._by_released, model, name)
        if operation is not None:
            _forget(self._by_deployment, operation.deployment, name)
            _forget(self._by_server, (operation.kind, operation.server), name)
            for step in operation.steps:
                _forget(self._by_step, step.key, name)

    def with_step(self, key: StepKey) -> tuple[Operation, ...]:
        """Return the operations that have a step of this key."""
        return self._found(self._by_step.get(key))

    def of(self, deployment: DeploymentName) -> tuple[Operation, ...]:
        """Return the operations about a deployment."""
        return self._found(self._by_deployment.get(deployment))

    def on(self, server: ServerId, kind: OperationKind) -> tuple[Operation, ...]:
        """Return the operations of a kind about a server as a whole."""
        return self._found(self._by_server.get((kind, server)))

    def releasing(self, model: ModelName) -> tuple[Operation, ...]:
        """Return the operations that leave a model to nobody."""
        return self._found(self._by_released.get(model))

    def released_by(self, name: OperationId) -> frozenset[ModelName] | None:
        """Return the models that an operation leaves to nobody; None where an earlier control plane began it."""
        return self._released.get(name)

    def _found(self, ids: _Ids | None) -> tuple[Operation, ...]:
        return tuple(self._operations[it] for it in ids or () if it in self._operations)


def _forget(index: dict[K, _Ids], key: K, name: OperationId) -> None:
    """Remove an id from an index, and its entry with the last one: what is finished takes no memory."""
    ids = index.get(key)
    if ids is not None:
        ids.pop(name, None)
        if not ids:
            del index[key]
