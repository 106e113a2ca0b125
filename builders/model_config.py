"""Triton's ModelConfig as frozen data: the fields that decisions are made on, named exactly as in `model_config.proto`.

`pbtxt` makes these from text; `validate` checks them; the control plane plans with them. The text itself stays the
source of truth: what is sent to a server is made from the text, so a field that is not listed here is never lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One entry of `input` or `output`. `dims` leaves out the batch dimension where `max_batch_size` > 0.

    `reshape` is None where the model's own shape is `dims`; () makes of one element a tensor without dimensions.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    reshape: tuple[int, ...] | None = None
    format: str = "FORMAT_NONE"
    is_shape_tensor: bool = False
    is_non_linear_format_io: bool = False
    label_filename: str = ""


@dataclass(frozen=True, slots=True)
class BatchTensor:
    """One entry of `batch_input` or `batch_output`; an output has no `data_type` of its own."""

    kind: str
    target_name: tuple[str, ...]
    source_input: tuple[str, ...]
    data_type: str = ""


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """One entry of `instance_group`."""

    kind: str = "KIND_AUTO"
    count: int = 1
    gpus: tuple[int, ...] = ()
    profile: tuple[str, ...] = ()

    def instances_on(self, gpus: int) -> int:
        """Return how many instances it makes on a server of so many GPUs: `count` on each that it names, or on all."""
        on_gpus = self.kind in {"KIND_AUTO", "KIND_GPU"}
        return self.count * max(1, (len(self.gpus) or gpus) if on_gpus else 1)


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """A ModelQueuePolicy: what becomes of a request that waited too long."""

    timeout_action: str = "REJECT"
    default_timeout_microseconds: int = 0


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """`dynamic_batching`: the fields that can make a config invalid."""

    preferred_batch_size: tuple[int, ...] = ()
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicy = field(default_factory=QueuePolicy)
    priority_queue_policy: Mapping[int, QueuePolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SequenceControl:
    """One control of a `control_input`. `false_true` is what is given of `int32_false_true` and its like, by name."""

    kind: str
    data_type: str = "TYPE_INVALID"
    false_true: Mapping[str, int] = field(default_factory=dict)
    """Number of entries of each list that is not empty."""


@dataclass(frozen=True, slots=True)
class InitialState:
    """One `initial_state`. `source` is the member of `state_data` that is set, "" where none is."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    source: str = ""
    data_file: str = ""


@dataclass(frozen=True, slots=True)
class SequenceState:
    """One `state` of `sequence_batching`."""

    input_name: str
    data_type: str
    dims: tuple[int, ...]
    initial_state: tuple[InitialState, ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceBatching:
    """`sequence_batching`. `oldest_preferred_batch_size` is () with the direct strategy."""

    control_inputs: tuple[tuple[str, tuple[SequenceControl, ...]], ...] = ()
    """Name and controls of each `control_input`."""
    states: tuple[SequenceState, ...] = ()
    minimum_slot_utilization: float = 0.0
    oldest_preferred_batch_size: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """One input of a warm-up sample. `source` is the member of `input_data_type` that is set, "" where none is."""

    data_type: str
    dims: tuple[int, ...]
    source: str = ""
    input_data_file: str = ""


@dataclass(frozen=True, slots=True)
class Warmup:
    """One entry of `model_warmup`. Triton skips it where `batch_size` is 0."""

    name: str
    batch_size: int
    inputs: Mapping[str, WarmupInput]


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """`version_policy`: the member of `policy_choice` that is set, "" where none is (the newest version serves)."""

    choice: str = ""
    num_versions: int = 0
    versions: tuple[int, ...] = ()


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
    """The part of a ModelConfig that is reasoned about here.

    `agents` are the names of `model_repository_agents`, None where the config has none of it.
    """

    name: str
    backend: str = ""
    platform: str = ""
    runtime: str = ""
    max_batch_size: int = 0
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    batch_inputs: tuple[BatchTensor, ...] = ()
    batch_outputs: tuple[BatchTensor, ...] = ()
    instance_groups: tuple[InstanceGroup, ...] = ()
    version_policy: VersionPolicy = field(default_factory=VersionPolicy)
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    has_ensemble_scheduling: bool = False
    ensemble_steps: tuple[EnsembleStep, ...] = ()
    default_model_filename: str = ""
    decoupled: bool = False
    response_cache: bool = False
    has_optimization: bool = False
    warmups: tuple[Warmup, ...] = ()
    metric_tags: Mapping[str, str] = field(default_factory=dict)
    agents: tuple[str, ...] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ensemble(self) -> bool:
        """Whether Triton schedules this model as an ensemble of others."""
        return self.platform == "ensemble" or self.backend == "ensemble" or bool(self.ensemble_steps)

    @property
    def is_tensorrt(self) -> bool:
        """Whether Triton gives this model to its TensorRT backend, which alone has shape tensors and profiles."""
        if self.backend:
            return self.backend == "tensorrt"
        return self.platform == "tensorrt_plan" or (not self.platform and self.default_model_filename == "model.plan")

    @property
    def is_python(self) -> bool:
        """Whether Triton gives this model to its Python backend."""
        if self.backend:
            return self.backend == "python"
        return not self.platform and self.default_model_filename == "model.py"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the models an ensemble calls, sorted, each once; empty for any other model."""
        return tuple(sorted({step.model_name for step in self.ensemble_steps}))
