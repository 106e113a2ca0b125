"""Texts for the reference sets of models that read token ids: golden sentences tokenised, and random ids.

`encoder` and `sequence_classifier` lay these rows out as their graphs take them. All randomness is seeded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.errors import SourceError
from builders.forms import InputRange
from builders.reference import CaseKind
from builders.sources.cases import GOLDEN_BATCH, RANDOM_CASES, SEED, GoldenText


@dataclass(frozen=True, slots=True)
class Row:
    """One text as the model reads it: token ids, and for each the number of its text in a pair (0 or 1)."""

    ids: tuple[int, ...]
    types: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TextCall:
    """The rows of one call, before a form lays them out. `golden` says which items of the golden set they are."""

    name: str
    kind: CaseKind
    rows: tuple[Row, ...]
    golden: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TextLimits:
    """What a text model takes: tokens of a text, texts of a call, ids below `vocabulary`."""

    max_tokens: int
    max_batch: int
    vocabulary: int


def tokenize(tokenizer: Path, golden: Sequence[GoldenText], max_tokens: int) -> list[Row]:
    """Return the texts of a golden set or of calibration data as rows of at most `max_tokens`. Raises SourceError.

    What `tokenizer.json` says of truncation and padding is what it was last saved with, so it is not asked.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only an export needs it

    if not tokenizer.is_file():
        raise SourceError(f"{tokenizer}: no such file; the package's texts are tokenised with it")
    try:
        tool = Tokenizer.from_file(str(tokenizer))
        tool.no_padding()
        tool.enable_truncation(max_tokens)
        encodings = tool.encode_batch([item.text if item.pair is None else (item.text, item.pair) for item in golden])
    except Exception as exc:  # tokenizers raises bare Exception
        raise SourceError(f"{tokenizer}: cannot tokenise the package's texts: {exc}") from exc
    return [Row(tuple(encoding.ids), tuple(encoding.type_ids)) for encoding in encodings]


def text_calls(
    golden: Sequence[Row], limits: TextLimits, sizes: Sequence[int], calibration: Sequence[Row] = ()
) -> Iterator[TextCall]:
    """Yield the calls that hold a text model against its source.

    Every golden text and every one of `calibration` once, in shuffled batches of mixed lengths; random ids; the ends of
    the ranges; and for each of `sizes` one call to measure with: lengths spread as the golden set's are, or random ones
    of half the largest length at most where there is no golden set.
    """
    rng = np.random.default_rng(SEED)

    def random_rows(lengths: Sequence[int]) -> tuple[Row, ...]:
        return tuple(
            Row(tuple(rng.integers(0, limits.vocabulary, size=length).tolist()), (0,) * length) for length in lengths
        )

    def lengths(count: int, longest: int) -> list[int]:
        drawn: list[int] = rng.integers(1, longest + 1, size=count).tolist()
        return drawn

    step = min(GOLDEN_BATCH, limits.max_batch)

    def batches(count: int) -> Iterator[tuple[int, ...]]:
        order = rng.permutation(count).tolist()
        yield from (tuple(order[start : start + step]) for start in range(0, count, step))

    for chosen in batches(len(golden)):
        yield TextCall(f"golden {chosen[0]}", "golden", tuple(golden[index] for index in chosen), chosen)
    for chosen in batches(len(calibration)):
        yield TextCall(f"calibration {chosen[0]}", "calibration", tuple(calibration[index] for index in chosen))
    for number in range(RANDOM_CASES):
        count = int(rng.integers(1, min(limits.max_batch, 8) + 1))
        yield TextCall(f"random {number}", "random", random_rows(lengths(count, limits.max_tokens)))
    ends = {
        "one token": [1],
        "longest": [limits.max_tokens],
        "largest batch": [limits.max_tokens, *lengths(limits.max_batch - 1, limits.max_tokens)],
    }
    for name, given in ends.items():
        yield TextCall(name, "range_end", random_rows(given))
    usual = tuple(golden) or random_rows(lengths(max(sizes), max(1, limits.max_tokens // 2)))
    by_length = sorted(usual, key=len)
    for size in sizes:
        spread = [by_length[(2 * place + 1) * len(by_length) // (2 * size)] for place in range(size)]
        yield TextCall(f"batch {size}", "measure", tuple(spread[place] for place in rng.permutation(size).tolist()))


def usual_shape(calls: Sequence[TextCall], limits: TextLimits) -> tuple[int, int]:
    """Return (texts, tokens) to compile for: the largest `measure` call's texts, and what 3 of 4 of them fit into.

    Rounded up to 8 tokens, which tensor cores work in; padded requests of other widths do not share a batch.
    """
    largest = max((call for call in calls if call.kind == "measure"), key=lambda call: len(call.rows))
    lengths = sorted(map(len, largest.rows))
    usual = -(-lengths[3 * (len(lengths) - 1) // 4] // 8) * 8
    return len(lengths), min(usual, limits.max_tokens)


def text_range(name: str, given: Sequence[InputRange], limits: TextLimits) -> InputRange | None:
    """Return the range that a package gives its token ids [B, L], or None. Raises SourceError where it does not fit."""
    found = next((entry for entry in given if entry.name == name), None)
    if found is None:
        return None
    if len(found.min) != 2:  # noqa: PLR2004 - texts and tokens
        raise SourceError(f"inputs: {name} has 2 dimensions, texts and tokens; its range has {len(found.min)}")
    if found.max[1] > limits.max_tokens:
        raise SourceError(
            f"inputs: {name} ranges up to {found.max[1]} tokens, and the checkpoint takes {limits.max_tokens} at most"
        )
    if found.max[0] < limits.max_batch:
        raise SourceError(
            f"inputs: {name} ranges up to {found.max[0]} texts, and max_batch_size is {limits.max_batch}; make them "
            "the same"
        )
    return found


def pad(rows: Sequence[Sequence[int]], padding: int = 0) -> npt.NDArray[np.int64]:
    """Return the rows as INT64 [B, L], L the longest's length."""
    padded = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
