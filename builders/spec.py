"""BuildSpec: what `model.toml` may say. Pydantic at the edge; everything behind it reads these frozen models.

Unknown fields are refused, and an error names the file and every field that is wrong at once.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from builders.errors import SpecError, read_text

SPEC_FILENAME = "model.toml"
CONFIG_FILENAME = "config.pbtxt"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DistributionFile(_Strict):
    """A file or folder inside an installed Python distribution (the way weights reach a machine without a hub)."""

    distribution: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)]


class Parity(_Strict):
    """How close an artifact must come to the source on every sentence of the golden set."""

    golden: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "golden.jsonl"
    min_cosine: Annotated[float, Field(gt=0, le=1)] = 0.9999
    max_abs_error: Annotated[float, Field(gt=0)] = 1e-4


_TAKEN = ("model.py", CONFIG_FILENAME, "manifest.json", "__pycache__")


def _not_taken(name: str) -> str:
    if name in _TAKEN:
        raise ValueError(f"a version has a '{name}' of its own; take another name")
    return name


class HuggingFaceEncoderSource(_Strict):
    """A sentence encoder's checkpoint folder in Hugging Face's layout; `parity` is what its export is held to."""

    kind: Literal["huggingface_encoder"]
    checkpoint: DistributionFile
    parity: Parity


class StageSource(_Strict):
    """A stage of an ensemble: `module:Class`, copied into the version with every module of its package that it imports.

    `files` maps the name a file gets in the version to where it comes from.
    """

    kind: Literal["stage"]
    stage: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    files: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$"), AfterValidator(_not_taken)], DistributionFile] = {}


class EnsembleSource(_Strict):
    """An ensemble: its version holds nothing but the manifest, since Triton needs the folder."""

    kind: Literal["ensemble"]


Source = Annotated[HuggingFaceEncoderSource | StageSource | EnsembleSource, Field(discriminator="kind")]


class BuildSpec(_Strict):
    """One model package. `name` must be the folder's name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    summary: str
    licence: str
    source: Source


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
        problems = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'file'}: {error['msg']}" for error in exc.errors())
        raise SpecError(f"{path}: {problems}") from exc
    if spec.name != package.name:
        raise SpecError(f"{path}: name is '{spec.name}', but the folder is '{package.name}'; make them the same")
    return spec


def find_packages(repository: Path) -> tuple[str, ...]:
    """Return the names of the folders of `repository` that have a `model.toml`, sorted. Raises SpecError."""
    if not repository.is_dir():
        raise SpecError(f"{repository}: no such folder; --model-repository names the folder that holds the packages")
    return tuple(sorted(path.parent.name for path in repository.glob(f"*/{SPEC_FILENAME}")))
