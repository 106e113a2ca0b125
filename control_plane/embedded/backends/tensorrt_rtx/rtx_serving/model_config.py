"""The parts of a Triton ModelConfig that this backend needs, read from its JSON form into frozen values.

Triton hands the backend the configuration as JSON with proto field names (`args["model_config"]`). `validation` holds
the result against the engine; `batching` works by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import ModelSetupError
from .signature import Shape

Json = Mapping[str, Any]

DEFAULT_ENGINE: Final = "model.engine"


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One entry of `input` or `output`. `dims` are those the backend sees: of `reshape` where there is one."""

    name: str
    data_type: str
    dims: Shape


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as configured."""

    name: str
    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]

    @property
    def batched(self) -> bool:
        """Whether the first dimension of every tensor is the batch."""
        return self.max_batch_size > 0


def served_model(config: Json) -> ServedModel:
    """Read `config`.

    Raises:
        ModelSetupError: it asks for what this backend does not do.

    """
    for part in ("batch_input", "batch_output", "sequence_batching"):
        if config.get(part):
            raise ModelSetupError(f"{part} is not available with the backend tensorrt_rtx")
    return ServedModel(
        name=str(config.get("name", "")),
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(_input(entry) for entry in config.get("input", ())),
        outputs=tuple(_tensor(entry) for entry in config.get("output", ())),
    )


def is_complete(config: Json) -> bool:
    """Tell whether inputs and outputs are both given. An engine cannot be asked for them without its GPU."""
    return bool(config.get("input")) and bool(config.get("output"))


def engine_filename(config: Json, compute_capability: str) -> str:
    """Return the name of the engine for a GPU, as Triton's TensorRT backend chooses: `cc_model_filenames` wins."""
    by_capability = config.get("cc_model_filenames") or {}
    return str(by_capability.get(compute_capability) or config.get("default_model_filename") or DEFAULT_ENGINE)


def _input(entry: Json) -> TensorConfig:
    for flag in ("allow_ragged_batch", "optional", "is_shape_tensor"):
        if entry.get(flag):
            raise ModelSetupError(f"input '{entry['name']}': {flag} is not available with the backend tensorrt_rtx")
    return _tensor(entry)


def _tensor(entry: Json) -> TensorConfig:
    reshape = entry.get("reshape")
    dims = entry.get("dims", ()) if reshape is None else reshape.get("shape", ())
    return TensorConfig(entry["name"], entry["data_type"], tuple(int(dim) for dim in dims))
