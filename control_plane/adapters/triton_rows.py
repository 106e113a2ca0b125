"""Triton's index, configs and statistics as `ObservedModel`: for `triton`, which asks for them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from control_plane.state import GENERATION, ModelName, ModelState, ObservedModel

Message = Any
"""A message of tritonclient's, which has no types."""

Counts = Mapping[tuple[str, int], tuple[int, int]]
"""Requests that succeeded and failed, by model and version."""


def rows(index: Iterable[Message]) -> tuple[ObservedModel, ...]:
    """Return the index without models that were never loaded."""
    return tuple(
        ObservedModel(ModelName(entry.name), int(entry.version), ModelState(entry.state), entry.reason)
        for entry in index
        if entry.version and entry.state
    )


def counts(statistics: Iterable[Message]) -> Counts:
    """Return what the statistics count. Triton begins at zero when it reloads a model, though not to scale it."""
    return {
        (entry.name, int(entry.version)): (
            int(entry.inference_stats.success.count),
            int(entry.inference_stats.fail.count),
        )
        for entry in statistics
    }


def with_config(row: ObservedModel, config: Message) -> ObservedModel:
    """Return the row with what the config says that Triton runs the model with.

    Of a group on GPUs Triton has `count` instances on each, and names them all in the config that it runs.
    """
    generation = config.parameters[GENERATION].string_value if GENERATION in config.parameters else ""
    return replace(
        row,
        filename=str(config.default_model_filename),
        instances=sum(int(group.count) * max(1, len(group.gpus)) for group in config.instance_group),
        generation=int(generation) if generation.isdecimal() else 0,
        backend=str(config.backend),
    )


def with_counts(row: ObservedModel, counted: Counts) -> ObservedModel:
    """Return the row with its requests counted."""
    succeeded, failed = counted.get((row.name, row.version), (0, 0))
    return replace(row, succeeded=succeeded, failed=failed)
