"""Runs the requests of one Triton batch: one session call for those alike, and a bad request fails alone.

`triton_model` calls `run` with what it read from Triton; `batching` joins and cuts; `session` computes.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from .batching import BatchPlan, Request, alike, joined, split, wanted_outputs
from .datatypes import Array
from .errors import RunError

Answer = dict[str, Array] | RunError


class Computes(Protocol):
    """The part of `session.OnnxSession` that a batch needs."""

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs `names` from `feed`. Raises RunError."""


class BatchRunner:
    """Binds a plan to a session."""

    def __init__(self, plan: BatchPlan, session: Computes) -> None:
        self._plan = plan
        self._session = session

    def run(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer each of `requests`, in their order, with its outputs or with the error that is its own."""
        if len(requests) == 1:
            return self._run_alike(requests)
        answers: dict[int, Answer] = {}
        for indices in alike(self._plan, requests):
            answers.update(zip(indices, self._run_alike([requests[index] for index in indices]), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _run_alike(self, requests: Sequence[Request]) -> list[Answer]:
        """Run `requests` as one call; if that fails, one by one, so that only the guilty fail."""
        try:
            return [*self._run_together(requests)]
        except RunError as error:
            if len(requests) == 1:
                return [error]
        return [answer for request in requests for answer in self._run_alike([request])]

    def _run_together(self, requests: Sequence[Request]) -> list[dict[str, Array]]:
        names = wanted_outputs(self._plan, requests)
        outputs = self._session.run(names, joined(self._plan, requests))
        return split(self._plan, zip(names, outputs, strict=True), requests)
