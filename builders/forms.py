"""What an export is asked for and what it leaves: the ONNX forms of one model, each with its reference set.

A source may have several forms with the same tensor names: the sentence encoder's ragged one for ONNX Runtime, and a
dense one for compilers that want plain shapes. `sources` write them; `plan` says which form a target takes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from builders.errors import SourceError

MODEL = "model"
"""The form that ONNX Runtime serves; every export has it."""
DENSE = "dense"
"""The form for TensorRT, where the model form does not suit: no ragged input, no shape that depends on data."""

EVIDENCE_FILENAME = "evidence.json"
"""In the export of a causal language model: how close it comes to its source, or why nobody could tell (`unproven`)."""
FORMS_FILENAME = "forms.json"


@dataclass(frozen=True, slots=True)
class InputRange:
    """Shapes of one input, the batch dimension included: the least, the usual and the largest that will be sent."""

    name: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an exporter needs beside its source. `batch_sizes` are those of the reference set's `measure` cases.

    `golden` and `calibration` are paths of files, None where the package has none. `max_batch_size` 0: the model does
    not batch.
    """

    package: Path
    golden: Path | None
    inputs: tuple[InputRange, ...]
    batch_sizes: tuple[int, ...]
    max_batch_size: int
    calibration: Path | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """One ONNX file of an export. `config` is what its ModelConfig needs beyond the ONNX signature.

    `config` has ModelConfig's own field names, as in `json_format`. Where it has `input` or `output`, these are
    complete: an input of the graph that is not among them is made by Triton (`batch_input`).
    `inputs` are the ranges of this form's inputs: one for each input with a dynamic dimension.
    """

    name: str
    inputs: tuple[InputRange, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def onnx(self) -> str:
        """Name of the ONNX file in the export's folder."""
        return f"{self.name}.onnx"

    @property
    def reference(self) -> str:
        """Name of the reference set beside it."""
        return f"{self.name}.npz"


def save_forms(folder: Path, forms: tuple[Form, ...]) -> None:
    """Write `forms.json` into an export's folder."""
    text = json.dumps([asdict(form) for form in forms], indent=2, sort_keys=True)
    (folder / FORMS_FILENAME).write_text(text + "\n", encoding="utf-8")


def load_forms(folder: Path) -> dict[str, Form]:
    """Return the forms of an export's folder by name. Raises SourceError."""
    path = folder / FORMS_FILENAME
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        forms = [Form(entry["name"], tuple(map(_range, entry["inputs"])), entry["config"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{path}: not the forms of an export: {exc}; build the package again") from exc
    return {form.name: form for form in forms}


def _range(entry: Mapping[str, Any]) -> InputRange:
    return InputRange(entry["name"], tuple(entry["min"]), tuple(entry["opt"]), tuple(entry["max"]))
