"""ReferenceSet: what the source model answers, kept as arrays, so that any machine can prove an artifact without it.

An export writes one beside each ONNX file, made with the source itself (PyTorch, scikit-learn). Parity, measurement and
`tritonfleet verify` read it; a GPU machine that proves an engine needs no PyTorch. Stored as `.npz`, never pickled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from builders.errors import SourceError

Tensors = Mapping[str, npt.NDArray[Any]]
CaseKind = Literal["golden", "calibration", "random", "range_end", "measure"]

_META = "meta"


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the model: `inputs` as its ONNX form takes them, `outputs` as the source answers.

    `kind` says what the case is for: `golden` and `random` inputs and those at the ends of the shape ranges are held
    against the source; `calibration` cases give the ranges of activations too, and `measure` cases are timed too.
    `batch` is the number of items in the call. `labels` (one per item, of the golden set) are the true classes, where
    the golden set has them.
    """

    name: str
    kind: CaseKind
    batch: int
    inputs: Tensors
    outputs: Tensors
    labels: npt.NDArray[np.int64] | None = None


def save_reference(path: Path, cases: Sequence[Case]) -> None:
    """Write `cases` to the file `path` (`.npz`)."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    meta = []
    for number, case in enumerate(cases):
        meta.append({"name": case.name, "kind": case.kind, "batch": case.batch, "labelled": case.labels is not None})
        arrays.update({f"{number}/in/{name}": np.asarray(value) for name, value in case.inputs.items()})
        arrays.update({f"{number}/out/{name}": np.asarray(value) for name, value in case.outputs.items()})
        if case.labels is not None:
            arrays[f"{number}/labels"] = case.labels
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_reference(path: Path) -> tuple[Case, ...]:
    """Return the cases in `path`. Raises SourceError where it holds none that can be read."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            meta = json.loads(archive[_META].tobytes())
            arrays = {name: archive[name] for name in archive.files if name != _META}
        return tuple(_case(number, entry, arrays) for number, entry in enumerate(meta))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as exc:
        raise SourceError(f"{path}: not a reference set: {exc}; build the package again") from exc


def _case(number: int, entry: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Case:
    if entry["kind"] not in get_args(CaseKind):
        raise ValueError(f"unknown kind {entry['kind']!r}")
    return Case(
        name=entry["name"],
        kind=entry["kind"],
        batch=entry["batch"],
        inputs=_under(f"{number}/in/", arrays),
        outputs=_under(f"{number}/out/", arrays),
        labels=arrays[f"{number}/labels"] if entry["labelled"] else None,
    )


def _under(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
