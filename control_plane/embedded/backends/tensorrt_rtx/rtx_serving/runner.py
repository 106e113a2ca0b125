"""Runs the requests of one Triton batch: one run of the engine for those alike, and a bad request fails alone.

`triton_model` calls `run` with what it read from Triton; `batching` joins and cuts; `execution` computes.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from .batching import Request, alike, joined, split
from .errors import RunError
from .signature import Array

Answer = dict[str, Array] | RunError


class Computes(Protocol):
    """The part of `execution.Engine` that a batch needs."""

    def run(self, feed: Mapping[str, Array], wanted: frozenset[str]) -> dict[str, Array]:
        """Compute the outputs `wanted` from `feed`. Raises RunError."""


class BatchRunner:
    """Binds a model to its engine."""

    def __init__(self, engine: Computes, *, batched: bool) -> None:
        self._engine = engine
        self._batched = batched

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer each of `requests`, in their order, with its outputs or with the error that is its own."""
        answers: dict[int, Answer] = {}
        for indices in alike(requests, batched=self._batched):
            answers.update(zip(indices, self._run_alike([requests[index] for index in indices]), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _run_alike(self, requests: Sequence[Request]) -> list[Answer]:
        """Run `requests` at once; if that fails, one by one, so that only the guilty fail."""
        try:
            wanted = frozenset().union(*(request.wanted for request in requests))
            return [*split(self._engine.run(joined(requests), wanted), requests, batched=self._batched)]
        except RunError as error:
            if len(requests) == 1:
                return [error]
        return [answer for request in requests for answer in self._run_alike([request])]
