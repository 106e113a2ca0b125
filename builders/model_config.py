"""Triton's ModelConfig as frozen data: the fields that decisions are made on, named exactly as in `model_config.proto`.

`pbtxt` makes these from text; `validate` checks them; the control plane plans with them. The text itself stays the
source of truth: what is sent to a server is made from the text, so a field that is not listed here is never lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One entry of `input` or `output`. `dims` leaves out the batch dimension where `max_batch_size` > 0."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    allow_ragged_batch: bool = False


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """One entry of `instance_group`."""

    kind: str = "KIND_AUTO"
    count: int = 1
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """`dynamic_batching`: the fields that can make a config invalid or a batch late."""

    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """One step of `ensemble_scheduling`. `model_version` -1 means the newest that is loaded.

    `input_map` and `output_map` map the member's tensor name to the ensemble's.
    """

    model_name: str
    model_version: int
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The part of a ModelConfig that is reasoned about here."""

    name: str
    backend: str = ""
    platform: str = ""
    max_batch_size: int = 0
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    instance_groups: tuple[InstanceGroup, ...] = ()
    dynamic_batching: DynamicBatching | None = None
    ensemble_steps: tuple[EnsembleStep, ...] = ()
    default_model_filename: str = ""
    decoupled: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ensemble(self) -> bool:
        """Whether Triton schedules this model as an ensemble of others."""
        return self.platform == "ensemble" or self.backend == "ensemble" or bool(self.ensemble_steps)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the models an ensemble calls, sorted, each once; empty for any other model."""
        return tuple(sorted({step.model_name for step in self.ensemble_steps}))
