"""Calls of models that take any tensors: golden ones, random ones, and the ends of the ranges that the package gives.

`image_classifier`, `onnx_file` and `torch_callable` export with these. An item of a golden set is what one request
sends: without the batch dimension where the model batches.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import SourceError
from builders.forms import ExportRequest, InputRange
from builders.reference import Case, CaseKind, Tensors
from builders.sources.cases import GOLDEN_BATCH, RANDOM_CASES, SEED, batch_sizes, class_numbers, json_lines

Array = npt.NDArray[Any]

_MOST_DIMENSIONS = 32
"""NumPy's own bound."""
_RANDOM_BATCH = 4
"""Most items of a random call: a reference set of images grows quickly."""


@dataclass(frozen=True, slots=True)
class TensorInput:
    """One input of a graph. A size of None varies; random integers are drawn from `low` to `high`, both included."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    low: int = 0
    high: int = 1


@dataclass(frozen=True, slots=True)
class TensorCall:
    """One call, before the source has answered it."""

    name: str
    kind: CaseKind
    batch: int
    inputs: Tensors
    labels: npt.NDArray[np.int64] | None = None


def input_ranges(inputs: Sequence[TensorInput], request: ExportRequest) -> tuple[InputRange, ...]:
    """Return the range of every input, from the package's `inputs` and, for the batch, its `max_batch_size`.

    Raises SourceError where a size that varies has no range, and where a range does not fit the model.
    """
    names = [entry.name for entry in inputs]
    given = {entry.name: entry for entry in request.inputs}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise SourceError(f"inputs: the model has no input '{unknown[0]}'; it has: {', '.join(names)}")
    return tuple(_range(entry, given.get(entry.name), request) for entry in inputs)


def _range(entry: TensorInput, given: InputRange | None, request: ExportRequest) -> InputRange:
    largest = request.max_batch_size
    if largest > 0 and (not entry.shape or entry.shape[0] is not None):
        raise SourceError(
            f"{entry.name}: its first dimension does not vary, so the model does not batch; take max_batch_size out of "
            "model.toml, or export the model with a batch dimension that varies"
        )
    if given is None:
        sizes = [(size, size, size) for size in entry.shape if size is not None]
        if largest > 0:
            sizes.insert(0, (1, max(batch_sizes(request)), largest))
        if len(sizes) != len(entry.shape):
            raise SourceError(f"{entry.name}: dimension {_varying(entry, largest)} varies; give [[inputs]] its range")
        return InputRange(entry.name, *zip(*sizes, strict=True)) if sizes else InputRange(entry.name, (), (), ())
    if len(given.min) != len(entry.shape):
        raise SourceError(
            f"inputs: {entry.name} has {len(entry.shape)} dimensions, and its range has {len(given.min)}; count the "
            "batch dimension too"
        )
    for axis, size in enumerate(entry.shape):
        if size is not None and (given.min[axis], given.max[axis]) != (size, size):
            raise SourceError(
                f"inputs: dimension {axis} of {entry.name} is {size} and does not vary; give it that size"
            )
    if largest > 0 and given.max[0] < largest:
        raise SourceError(f"inputs: {entry.name} has batches up to {given.max[0]}, below max_batch_size {largest}")
    return given


def _varying(entry: TensorInput, largest: int) -> int:
    return next(axis for axis, size in enumerate(entry.shape) if size is None and not (axis == 0 and largest > 0))


def dynamic(inputs: Sequence[TensorInput], ranges: Sequence[InputRange]) -> tuple[InputRange, ...]:
    """Return the ranges of the inputs with a size that varies."""
    return tuple(found for entry, found in zip(inputs, ranges, strict=True) if None in entry.shape)


def axes(inputs: Sequence[TensorInput], names: Sequence[str] = ()) -> dict[str, dict[int, str]]:
    """Return the axes that vary, for `torch_export`. `names` are those of the axes, the same for every input."""
    return {
        entry.name: {
            axis: names[axis] if axis < len(names) else f"{entry.name}_{axis}"
            for axis, size in enumerate(entry.shape)
            if size is None
        }
        for entry in inputs
    }


def tensor_calls(
    inputs: Sequence[TensorInput],
    ranges: Sequence[InputRange],
    request: ExportRequest,
    names: Mapping[str, int] | None = None,
) -> Iterator[TensorCall]:
    """Yield the calls that hold a model against its source; `names` are its classes by name. Raises SourceError."""
    rng = np.random.default_rng(SEED)
    batching = request.max_batch_size > 0

    def call(name: str, kind: CaseKind, shapes: Sequence[Sequence[int]]) -> TensorCall:
        tensors = {entry.name: _random(rng, entry, tuple(shape)) for entry, shape in zip(inputs, shapes, strict=True)}
        return TensorCall(name, kind, int(shapes[0][0]) if batching else 1, tensors)

    if request.golden is not None:
        yield from _item_calls("golden", request.golden, inputs, request, names or {})
    if request.calibration is not None:
        for given in _item_calls("calibration", request.calibration, inputs, request, names or {}):
            yield replace(given, labels=None)
    for number in range(RANDOM_CASES):
        # One draw for each axis: inputs of one range get one size, as they must where their sizes belong together.
        drawn = rng.random(_MOST_DIMENSIONS).tolist()
        yield call(f"random {number}", "random", [_between(entry, drawn, small=batching) for entry in ranges])
    sizes = batch_sizes(request) if batching else (1,)
    measured = [[(size, *entry.opt[1:]) if batching else entry.opt for entry in ranges] for size in sizes]
    for name, shapes in {
        "smallest": [entry.min for entry in ranges],
        "largest": [entry.max for entry in ranges],
    }.items():
        if shapes not in measured:  # `measure` calls are compared too
            yield call(name, "range_end", shapes)
    for size, shapes in zip(sizes, measured, strict=True):
        yield call(f"batch {size}", "measure", shapes)


def _between(entry: InputRange, drawn: Sequence[float], *, small: bool) -> tuple[int, ...]:
    """Return a shape within a range: `drawn` says how far up for each axis. `small` keeps the batch small."""
    ends = list(zip(entry.min, entry.max, strict=True))
    if small:
        least, largest = ends[0]
        ends[0] = (least, max(least, min(largest, _RANDOM_BATCH)))
    return tuple(low + round(part * (high - low)) for part, (low, high) in zip(drawn, ends, strict=False))


def _random(rng: np.random.Generator, entry: TensorInput, shape: tuple[int, ...]) -> Array:
    match entry.dtype.kind:
        case "f":
            return rng.standard_normal(shape, dtype=np.float32).astype(entry.dtype)
        case "b":
            return rng.random(shape) < 0.5  # noqa: PLR2004 - either, evenly
        case _:
            return rng.integers(entry.low, entry.high, size=shape, endpoint=True).astype(entry.dtype)


@dataclass(frozen=True, slots=True)
class _Item:
    inputs: Tensors
    label: int | str | None


def _item_calls(
    kind: CaseKind, path: Path, inputs: Sequence[TensorInput], request: ExportRequest, names: Mapping[str, int]
) -> Iterator[TensorCall]:
    batching = request.max_batch_size > 0
    items = list(_npz_items(path, inputs) if path.suffix == ".npz" else _json_items(path, inputs))
    for number, item in enumerate(items):
        _check_item(f"{path}: item {number}", item, inputs, batching=batching)
    labels = class_numbers([item.label for item in items], names, path)
    groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(tuple(item.inputs[entry.name].shape for entry in inputs), []).append(number)
    step = min(GOLDEN_BATCH, request.max_batch_size) if batching else 1
    for members in groups.values():
        for start in range(0, len(members), step):
            chosen = members[start : start + step]
            tensors = {
                entry.name: np.stack([items[number].inputs[entry.name] for number in chosen])
                if batching
                else items[chosen[0]].inputs[entry.name]
                for entry in inputs
            }
            own = None if labels is None else labels[chosen]
            yield TensorCall(f"{kind} {chosen[0]}", kind, len(chosen), tensors, own)


def _check_item(where: str, item: _Item, inputs: Sequence[TensorInput], *, batching: bool) -> None:
    for entry in inputs:
        shape = entry.shape[1:] if batching else entry.shape
        actual = item.inputs[entry.name].shape
        fits = len(shape) == len(actual) and all(size in {None, own} for size, own in zip(shape, actual, strict=True))
        if not fits:
            wanted = [-1 if size is None else size for size in shape]
            raise SourceError(f"{where}: {entry.name} is {list(actual)}; expected {wanted}, without a batch dimension")


def _json_items(path: Path, inputs: Sequence[TensorInput]) -> Iterator[_Item]:
    for number, data in json_lines(path):
        values, label = data.get("inputs"), data.get("label")
        if not isinstance(values, dict) or set(values) != {entry.name for entry in inputs}:
            wanted = ", ".join(entry.name for entry in inputs)
            raise SourceError(f'{path}:{number}: expected {{"inputs": {{name: values}}}} with the inputs {wanted}')
        if isinstance(label, bool) or not isinstance(label, int | str | None):
            raise SourceError(f"{path}:{number}: label is {label!r}; expected a class's number or name")
        try:
            yield _Item({entry.name: np.asarray(values[entry.name], dtype=entry.dtype) for entry in inputs}, label)
        except (ValueError, TypeError, OverflowError) as exc:
            raise SourceError(f"{path}:{number}: not numbers of one shape: {exc}") from exc


def _npz_items(path: Path, inputs: Sequence[TensorInput]) -> Iterator[_Item]:
    """Yield the items of arrays by input name, first axis the items, and of `labels`, if there."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        tensors = {entry.name: arrays[entry.name].astype(entry.dtype, casting="same_kind") for entry in inputs}
        count = len(tensors[inputs[0].name])
        labels: list[int | str | None] = arrays["labels"].tolist() if "labels" in arrays else [None] * count
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as exc:
        raise SourceError(
            f"{path}: not a set of items: {exc}; expected arrays by input name, items first, and perhaps labels"
        ) from exc
    if {len(labels), *map(len, tensors.values())} != {count} or count == 0:
        raise SourceError(f"{path}: not a set of items: every array needs the same number of items, at least one")
    for number in range(count):
        yield _Item({name: tensor[number] for name, tensor in tensors.items()}, labels[number])


def answered(calls: Iterator[TensorCall], answer: Callable[[Tensors], Tensors]) -> list[Case]:
    """Return the calls as cases, with what the source answers."""
    return [Case(call.name, call.kind, call.batch, call.inputs, answer(call.inputs), call.labels) for call in calls]
