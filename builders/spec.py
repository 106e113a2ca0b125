"""BuildSpec: what `model.toml` may say. Pydantic at the edge; everything behind it reads these frozen models.

Unknown fields are refused. An error names file, line and every field that is wrong at once, and suggests what may have
been meant. `toml_lines` finds the lines.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from builders import pbtxt
from builders.errors import ConfigError, SpecError, read_text
from builders.forms import InputRange
from builders.overrides import Location, broken_rules
from builders.targets import Precision, Runtime, Target, target_problem
from builders.toml_lines import line_of

SPEC_FILENAME = "model.toml"
CONFIG_FILENAME = "config.pbtxt"

_FILENAME = r"^\w[\w.-]*$"
_CALLABLE = r"^\w[\w-]*\.py:[A-Za-z_]\w*$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SourceFile(_Strict):
    """A file or folder: inside an installed Python distribution, or relative to the package's own folder.

    A distribution is how weights reach a machine without a hub.
    """

    path: Annotated[str, Field(min_length=1)]
    distribution: Annotated[str, Field(min_length=1)] | None = None


class Tolerance(_Strict):
    """How close an artifact must come to its source on every case of the reference set; None asks for nothing.

    `min_top1` is the least share of items with the same largest element; `min_score` the least score of the golden set.
    """

    min_cosine: Annotated[float, Field(gt=0, le=1)] | None = None
    max_abs_error: Annotated[float, Field(gt=0)] | None = None
    mean_abs_error: Annotated[float, Field(gt=0)] | None = None
    min_top1: Annotated[float, Field(gt=0, le=1)] | None = None
    min_score: Annotated[float, Field(gt=0, le=1)] | None = None


DEFAULT_TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(min_cosine=0.9999, max_abs_error=1e-3),
    "fp16": Tolerance(min_cosine=0.999),
    "bf16": Tolerance(min_cosine=0.995),
    "int8": Tolerance(min_cosine=0.99),
    "fp8": Tolerance(min_cosine=0.98),
}
"""What an artifact is held to where its package does not say: room for the type's rounding, not for a wrong graph."""

_TAKEN = ("model.py", CONFIG_FILENAME, "manifest.json", "__pycache__", "sbom.json", "signature.json")


def _not_taken(name: str) -> str:
    if name in _TAKEN:
        raise ValueError(f"a version has a '{name}' of its own; take another name")
    return name


class HuggingFaceSource(_Strict):
    """A checkpoint folder in Hugging Face's layout: sentence encoder, sequence classifier or image classifier."""

    kind: Literal["huggingface_encoder", "huggingface_sequence_classifier", "huggingface_image_classifier"]
    checkpoint: SourceFile


class OnnxSource(_Strict):
    """An ONNX file as it is."""

    kind: Literal["onnx"]
    file: SourceFile


class TorchSource(_Strict):
    """A function of a file in the package that returns module, example inputs by tensor name, and output names."""

    kind: Literal["torch"]
    callable: Annotated[str, Field(pattern=_CALLABLE)]


class SklearnTrainingSource(_Strict):
    """A classifier head, trained at build time by a script of the package on a dataset of the package.

    `encoder` is the checkpoint that turns the dataset's texts into embeddings.
    """

    kind: Literal["sklearn_training"]
    script: Annotated[str, Field(pattern=_CALLABLE)]
    dataset: Annotated[str, Field(pattern=_FILENAME)]
    encoder: SourceFile


class CausalLmSource(_Strict):
    """A causal language model's checkpoint folder, built by onnxruntime-genai with its KV cache."""

    kind: Literal["causal_lm"]
    checkpoint: SourceFile
    precision: Literal["fp32", "fp16", "int4"] = "fp32"


class TritonModelSource(_Strict):
    """A Triton model folder of any backend, taken as it was by `tritonfleet import`; there is nothing to build."""

    kind: Literal["triton_model"]


class StageSource(_Strict):
    """A stage of an ensemble: `module:Class`, copied into the version with every module of its package that it imports.

    `files` maps the name a file gets in the version to where it comes from.
    """

    kind: Literal["stage"]
    stage: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    files: dict[Annotated[str, Field(pattern=_FILENAME), AfterValidator(_not_taken)], SourceFile] = {}


class EnsembleSource(_Strict):
    """An ensemble: its version holds nothing but config and manifest, since Triton needs the folder."""

    kind: Literal["ensemble"]


GraphSource = HuggingFaceSource | OnnxSource | TorchSource | SklearnTrainingSource
"""Sources that end in an ONNX graph, from which artifacts for targets are made."""
FolderSource = CausalLmSource | TritonModelSource | StageSource | EnsembleSource
"""Sources whose version is a folder of files, the same for every device."""
Source = Annotated[
    HuggingFaceSource
    | OnnxSource
    | TorchSource
    | SklearnTrainingSource
    | CausalLmSource
    | TritonModelSource
    | StageSource
    | EnsembleSource,
    Field(discriminator="kind"),
]


class InputShapes(_Strict):
    """Shapes of one input, the batch dimension included: TensorRT's optimization profile, and warm-up shapes."""

    name: Annotated[str, Field(min_length=1)]
    min: list[Annotated[int, Field(ge=1)]]
    opt: list[Annotated[int, Field(ge=1)]]
    max: list[Annotated[int, Field(ge=1)]]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError("min, opt and max need the same number of dimensions")
        if not all(low <= usual <= high for low, usual, high in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError("every dimension needs min <= opt <= max")
        return self

    @property
    def range(self) -> InputRange:
        """The same as plain data."""
        return InputRange(self.name, tuple(self.min), tuple(self.opt), tuple(self.max))


class TargetSpec(_Strict):
    """One target to build. A version is published without an optional one; never without a required one.

    `candidates` restricts the ways to make it; all that suit are tried where it is left out. `config` overrides the
    ModelConfig where this target serves. The last four are for TensorRT alone.
    """

    runtime: Runtime
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|sm_\d{2,3})$")]
    precision: Precision
    required: bool = True
    candidates: list[str] | None = None
    tolerance: Tolerance | None = None
    config: dict[str, Any] = {}
    workspace_mib: Annotated[int, Field(ge=1)] | None = None
    time_limit_s: Annotated[int, Field(ge=1)] = 1800
    memory_limit_mib: Annotated[int, Field(ge=64)] = 16384
    version_compatible: bool = False
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"] = "none"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        problem = target_problem(self.target)
        if problem is not None:
            raise ValueError(problem)
        only = {
            "hardware_compatible": self.hardware_compatible != "none",
            "version_compatible": self.version_compatible,
        }
        if self.runtime != "tensorrt" and any(only.values()):
            raise ValueError(f"{', '.join(name for name, given in only.items() if given)}: only tensorrt has it")
        return self

    @property
    def target(self) -> Target:
        """The target itself."""
        return Target(self.runtime, self.device, self.precision)


class Golden(_Strict):
    """The golden set: inputs, and labels where there are some, by which every artifact is judged."""

    file: Annotated[str, Field(pattern=_FILENAME)] = "golden.jsonl"


class Calibration(_Strict):
    """Inputs that give quantised activations their ranges, in the golden set's format; labels are not used."""

    file: Annotated[str, Field(pattern=_FILENAME)] = "calibration.jsonl"


class Measure(_Strict):
    """What candidates are timed with: batch sizes, threads of a session (0: all cores), seconds for each candidate."""

    batch_sizes: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1)] = [1, 8, 32]
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    seconds: Annotated[float, Field(gt=0, le=600)] = 4.0


_DEFAULT_TARGET = TargetSpec(runtime="onnxruntime", device="cpu", precision="fp32")


class BuildSpec(_Strict):
    """One model package. `name` must be the folder's name.

    `config` overrides the generated ModelConfig in its own field names; packages without a graph write `config.pbtxt`
    themselves. `tolerance` is by precision. Without `calibration` the golden set and random inputs calibrate.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    summary: str
    licence: str
    source: Source
    inputs: list[InputShapes] = []
    targets: list[TargetSpec] = []
    golden: Golden | None = None
    calibration: Calibration | None = None
    tolerance: dict[Precision, Tolerance] = {}
    measure: Measure = Measure()
    config: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not isinstance(self.source, GraphSource):
            fields = ("inputs", "targets", "golden", "calibration", "tolerance", "config")
            fitting = ("golden",) if isinstance(self.source, CausalLmSource) else ()
            given = [name for name in fields if getattr(self, name) and name not in fitting]
            if given:
                raise ValueError(f"{', '.join(given)}: not for a package of kind '{self.source.kind}'")
        if self.calibration is not None and isinstance(self.source, SklearnTrainingSource):
            raise ValueError(
                "calibration: a 'sklearn_training' package calibrates with the rows that its script holds out"
            )
        targets = [spec.target for spec in self.targets]
        twice = sorted({str(target) for target in targets if targets.count(target) > 1})
        if twice:
            raise ValueError(f"targets: {', '.join(twice)} given twice")
        return self

    @property
    def graph_targets(self) -> tuple[TargetSpec, ...]:
        """The targets of a package with a graph, the default one where it names none; empty for any other package."""
        if not isinstance(self.source, GraphSource):
            return ()
        return tuple(self.targets) or (_DEFAULT_TARGET,)

    @property
    def max_batch_size(self) -> int:
        """Triton's `max_batch_size` of a generated config: 0 where the package does not give a whole number."""
        value = self.config.get("max_batch_size", 0)
        return value if isinstance(value, int) else 0

    def tolerance_of(self, spec: TargetSpec) -> Tolerance:
        """Return what an artifact of the target is held to."""
        return spec.tolerance or self.tolerance.get(spec.precision) or DEFAULT_TOLERANCES[spec.precision]


def read_spec(package: Path) -> BuildSpec:
    """Return the BuildSpec of the folder `package`. Raises SpecError that names every wrong field, or SourceError."""
    path = package / SPEC_FILENAME
    text = read_text(path, "a model package is described by it")
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # tomllib's own error is a ValueError; int()'s limit of digits too
        raise SpecError(f"{path}: not TOML: {exc}") from exc
    try:
        spec = BuildSpec.model_validate(data)
    except ValidationError as exc:
        raise SpecError("; ".join(_problem(path, text, error) for error in exc.errors())) from exc
    overrides = [(target.target, target.config) for target in spec.graph_targets]
    found = list(_config_problems(spec)) or list(broken_rules(spec.name, spec.config, overrides))
    wrong = [f"{path}:{line_of(text, location)}: {problem}" for location, problem in found]
    if wrong:
        raise SpecError("; ".join(wrong))
    if spec.name != package.name:
        line = line_of(text, ("name",))
        raise SpecError(f"{path}:{line}: name is '{spec.name}', but the folder is '{package.name}'; make them the same")
    return spec


def _config_problems(spec: BuildSpec) -> Iterator[tuple[Location, str]]:
    """Yield where an override of ModelConfig has no such field or another type, and what is wrong with it."""
    targets = [(("targets", number, "config"), target.config) for number, target in enumerate(spec.targets)]
    layers: list[tuple[Location, dict[str, Any]]] = [(("config",), spec.config), *targets]
    for location, layer in layers:
        for name, value in layer.items():
            try:
                where = ".".join(map(str, location))
                pbtxt.from_json(pbtxt.merge({}, {name: value}, where=where), header="", where=where)
            except ConfigError as exc:
                yield (*location, name), str(exc)
    for number, target in enumerate(spec.targets):
        if target.candidates is not None:
            from builders.onnx.candidates import candidate_names  # noqa: PLC0415 - only where some are named

            there = candidate_names(target.target, calibrated=True)
            for unknown in (name for name in target.candidates if name not in there):
                told = _close(unknown, there) or f"; there are {', '.join(there) or 'none'}"
                problem = f"targets.{number}.candidates: {target.target} has no candidate '{unknown}'{told}"
                yield ("targets", number, "candidates"), problem


def _problem(path: Path, text: str, error: ErrorDetails) -> str:
    """Say what is wrong, where, and what may have been meant."""
    # Pydantic puts the source's kind and "[key]" into the location; neither is in the file.
    location = tuple(
        part for depth, part in enumerate(error["loc"]) if part != "[key]" and (depth, error["loc"][0]) != (1, "source")
    )
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and location:
        message = f"there is no such field{_meant(str(location[-1]))}"
    return f"{path}:{line_of(text, location)}: {'.'.join(map(str, location)) or 'file'}: {message}"


def _meant(name: str) -> str:
    return _close(name, _FIELDS)


def _close(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _models(model: type[BaseModel] = BuildSpec) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            yield from _models(part)


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type may stand in an annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


_FIELDS = sorted({name for model in _models() for name in model.model_fields})


def find_packages(repository: Path) -> tuple[str, ...]:
    """Return the names of the folders of `repository` that have a `model.toml`, sorted. Raises SpecError."""
    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder; --model-repository names the folder that holds the packages")
    return tuple(sorted(path.parent.name for path in repository.glob(f"*/{SPEC_FILENAME}")))
