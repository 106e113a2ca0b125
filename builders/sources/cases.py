"""Golden sets read, and what every exporter needs to make a reference set of: seeds, batches, items by number.

`texts` makes the calls of models that read token ids, `tensors` those of models that take any other tensors; the
exporters add what their source answers. All randomness is seeded: the same package gives the same cases.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import SourceError, read_text
from builders.forms import ExportRequest

SEED = 20_240_815
GOLDEN_BATCH = 16
"""Items of a golden set that go into one call, where the model batches."""
RANDOM_CASES = 3


@dataclass(frozen=True, slots=True)
class GoldenText:
    """One line of a golden set of texts. `pair` is the second text of a pair, `label` its class by number or name."""

    text: str
    pair: str | None = None
    label: int | str | None = None


def read_golden_texts(path: Path) -> tuple[GoldenText, ...]:
    """Return the lines of a golden set, JSON objects with "text" and, if they like, "text_pair" and "label".

    Raises SourceError with file and line.
    """
    golden = []
    for number, data in json_lines(path):
        text, pair, label = data.get("text"), data.get("text_pair"), data.get("label")
        if not isinstance(text, str) or not isinstance(pair, str | None):
            raise SourceError(f'{path}:{number}: expected a JSON object with "text", a string')
        if isinstance(label, bool) or not isinstance(label, int | str | None):
            raise SourceError(f"{path}:{number}: label is {label!r}; expected a class's number or name")
        golden.append(GoldenText(text, pair, label))
    return tuple(golden)


def texts_of(path: Path | None) -> tuple[GoldenText, ...]:
    """Return the lines of a golden set or of calibration data, none where there is no file. Raises SourceError."""
    return () if path is None else read_golden_texts(path)


def class_numbers(
    labels: Sequence[int | str | None], names: Mapping[str, int], where: Path | None
) -> npt.NDArray[np.int64] | None:
    """Return the labels of a golden set as class numbers; None unless every item has one. Raises SourceError."""
    if not labels or any(label is None for label in labels):
        return None
    unknown = sorted({label for label in labels if isinstance(label, str) and label not in names})
    if unknown:
        classes = ", ".join(sorted(names, key=lambda name: names[name])) or "none"
        raise SourceError(f"{where}: label '{unknown[0]}' is no class of the model; it has: {classes}")
    return np.asarray([names[label] if isinstance(label, str) else label for label in labels], dtype=np.int64)


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a file of JSON lines. Raises SourceError with file and line."""
    text = read_text(path, "model.toml names it")
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise SourceError(f"{path}: it is empty; give it at least one item")
    for number, line in lines:
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as exc:  # ValueError: not JSON, or a number of too many digits
            raise SourceError(f"{path}:{number}: not JSON: {exc}") from exc
        if not isinstance(data, dict):
            raise SourceError(f"{path}:{number}: expected a JSON object")
        yield number, data


def batch_sizes(request: ExportRequest) -> tuple[int, ...]:
    """Return the sizes to measure at: those asked for that the model takes; 1 where it does not batch."""
    largest = max(request.max_batch_size, 1)
    return tuple(sorted({min(size, largest) for size in request.batch_sizes})) or (largest,)
