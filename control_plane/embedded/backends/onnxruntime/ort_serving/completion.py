"""Auto-completion: what a configuration leaves out, filled in from the ONNX signature as the C++ backend does.

Source: triton-inference-server/onnxruntime_backend, src/onnxruntime.cc (AutoCompleteConfig, AutoCompleteMaxBatch,
AutoCompleteIO). The result is plain data; `triton_model` writes it into Triton's configuration object.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from .errors import ModelSetupError
from .model_config import Json
from .signature import ModelSignature, TensorSignature

DEFAULT_MAX_BATCH_SIZE: Final = 4
"""Triton's default for `--backend-config=<name>,default-max-batch-size`, which a Python-based backend cannot read."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What to set: None leaves a part alone. `inputs` and `outputs` are entries in ModelConfig's JSON form."""

    max_batch_size: int
    inputs: list[dict[str, Any]] | None
    outputs: list[dict[str, Any]] | None
    dynamic_batching: bool


def is_complete(config: Json) -> bool:
    """Tell whether inputs and outputs are both given, in which case nothing is completed at all."""
    return _has_inputs(config) and bool(config.get("output"))


def completion_of(config: Json, signature: ModelSignature) -> Completion:
    """Work out what `config` lacks.

    Raises:
        ModelSetupError: `max_batch_size` is set and some tensor has no variable first dimension.

    """
    tensors = (*signature.inputs.values(), *signature.outputs.values())
    can_batch = all(tensor.dims[:1] == (-1,) for tensor in tensors)
    configured = int(config.get("max_batch_size", 0))
    if configured and not can_batch:
        raise ModelSetupError(
            f"autofill failed for model '{config.get('name')}': max_batch_size is {configured}, but the model does not "
            "support batching (every input and output needs a variable first dimension)"
        )
    max_batch_size = configured or (DEFAULT_MAX_BATCH_SIZE if can_batch else 0)
    has_scheduler = config.get("sequence_batching") is not None or config.get("dynamic_batching") is not None
    batched = max_batch_size > 0
    return Completion(
        max_batch_size=max_batch_size,
        inputs=None if _has_inputs(config) else _entries(signature.inputs.values(), batched=batched),
        outputs=None if config.get("output") else _entries(signature.outputs.values(), batched=batched),
        dynamic_batching=can_batch and max_batch_size > 1 and not has_scheduler,
    )


def _has_inputs(config: Json) -> bool:
    return bool(config.get("input") or config.get("batch_input"))


def _entries(tensors: Iterable[TensorSignature], *, batched: bool) -> list[dict[str, Any]]:
    return [_entry(tensor, batched=batched) for tensor in tensors]


def _entry(tensor: TensorSignature, *, batched: bool) -> dict[str, Any]:
    dims = list(tensor.dims[1:] if batched else tensor.dims)
    entry: dict[str, Any] = {"name": tensor.name, "data_type": tensor.data_type, "dims": dims or [1]}
    if not dims and batched:
        # Triton refuses empty dims; without a batch dimension it refuses an empty reshape too.
        entry["reshape"] = {"shape": []}
    return entry
