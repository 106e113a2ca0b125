"""The parts of a Triton ModelConfig that batching needs, read from its JSON form into frozen values.

Triton hands the backend the configuration as JSON with proto field names (`args["model_config"]`). `validation` checks
the result against the ONNX signature; `batching` and `ragged` work by it. Session parameters are read in `settings`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .errors import ModelSetupError

Json = Mapping[str, Any]


class BatchInputKind(StrEnum):
    """Values of `batch_input.kind` (model_config.proto, BatchInput.Kind)."""

    ELEMENT_COUNT = "BATCH_ELEMENT_COUNT"
    ACCUMULATED_ELEMENT_COUNT = "BATCH_ACCUMULATED_ELEMENT_COUNT"
    ACCUMULATED_ELEMENT_COUNT_WITH_ZERO = "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"
    MAX_ELEMENT_COUNT_AS_SHAPE = "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE"
    ITEM_SHAPE = "BATCH_ITEM_SHAPE"
    ITEM_SHAPE_FLATTEN = "BATCH_ITEM_SHAPE_FLATTEN"


@dataclass(frozen=True, slots=True)
class InputConfig:
    """One entry of `input`. `dims` are those the backend sees: of `reshape` where there is one, without the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool
    ragged: bool


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """One entry of `output`. `scatter_by` names the input whose shape splits it (`batch_output`), else None."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    scatter_by: str | None


@dataclass(frozen=True, slots=True)
class BatchInputConfig:
    """One entry of `batch_input`: tensors that the server derives from the shapes of `source`."""

    kind: BatchInputKind
    targets: tuple[str, ...]
    data_type: str
    source: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as configured. `controls` are sequence-batching inputs, which Triton adds to each request."""

    name: str
    max_batch_size: int
    inputs: tuple[InputConfig, ...]
    outputs: tuple[OutputConfig, ...]
    batch_inputs: tuple[BatchInputConfig, ...]
    controls: tuple[str, ...]

    @property
    def batched(self) -> bool:
        """Whether the first dimension of every tensor is the batch."""
        return self.max_batch_size > 0


def served_model(config: Json) -> ServedModel:
    """Read `config`.

    Raises:
        ModelSetupError: a `batch_input` or `batch_output` that cannot work, or implicit sequence state, which the
            Python backend API cannot keep.

    """
    batching = config.get("sequence_batching") or {}
    if batching.get("state"):
        raise ModelSetupError("sequence_batching.state (implicit state) is not available to a Python-based backend")
    scattered = dict(_scattered(config))
    return ServedModel(
        name=str(config.get("name", "")),
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_input(entry) for entry in config.get("input", ())),
        outputs=tuple(_output(entry, scattered) for entry in config.get("output", ())),
        batch_inputs=tuple(_batch_input(entry) for entry in config.get("batch_input", ())),
        controls=tuple(entry["name"] for entry in batching.get("control_input", ())),
    )


def _input(entry: Json) -> InputConfig:
    return InputConfig(
        name=entry["name"],
        data_type=entry["data_type"],
        dims=_backend_dims(entry),
        optional=bool(entry.get("optional", False)),
        ragged=bool(entry.get("allow_ragged_batch", False)),
    )


def _output(entry: Json, scattered: Mapping[str, str]) -> OutputConfig:
    name = entry["name"]
    return OutputConfig(name, entry["data_type"], _backend_dims(entry), scattered.get(name))


def _backend_dims(entry: Json) -> tuple[int, ...]:
    reshape = entry.get("reshape")
    dims = entry.get("dims", ()) if reshape is None else reshape.get("shape", ())
    return tuple(int(dim) for dim in dims)


def _batch_input(entry: Json) -> BatchInputConfig:
    targets = tuple(entry.get("target_name", ()))
    label = f"batch_input {list(targets)}"
    kind = entry.get("kind", BatchInputKind.ELEMENT_COUNT)
    if kind not in set(BatchInputKind):
        raise ModelSetupError(f"{label}: unknown kind '{kind}'")
    data_type = entry.get("data_type", "")
    if data_type not in {"TYPE_FP32", "TYPE_INT32"}:
        raise ModelSetupError(f"{label}: data_type must be TYPE_FP32 or TYPE_INT32, got '{data_type}'")
    return BatchInputConfig(BatchInputKind(kind), targets, data_type, _only_source(entry, label))


def _scattered(config: Json) -> Iterator[tuple[str, str]]:
    for entry in config.get("batch_output", ()):
        targets = entry.get("target_name", ())
        label = f"batch_output {list(targets)}"
        kind = entry.get("kind", "BATCH_SCATTER_WITH_INPUT_SHAPE")
        if kind != "BATCH_SCATTER_WITH_INPUT_SHAPE":
            raise ModelSetupError(f"{label}: unknown kind '{kind}'")
        source = _only_source(entry, label)
        yield from ((target, source) for target in targets)


def _only_source(entry: Json, label: str) -> str:
    sources = entry.get("source_input", ())
    if len(sources) != 1:
        raise ModelSetupError(f"{label}: exactly one source_input is needed, got {list(sources)}")
    return str(sources[0])
