"""Tokenizer stage: text to token ids, with the model's own `tokenizer.json` and the Rust `tokenizers` library.

All texts of a batch are encoded in one call. Every request keeps its own width, so that a ragged batch behind it has no
padding between requests. Counts go along for `token_budget`, which decides; this stage only counts.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as RustTokenizer

from ensembles.stages.base import (
    Rejected,
    StageConfigError,
    Tensor,
    Tensors,
    TensorSpec,
    column,
    positive_integer,
    texts_of,
)


class Tokenizer:
    """`text` BYTES [B, 1] to `input_ids` INT64 [B, L], L the longest of the request, padded with the pad id.

    `token_count` is what is kept of each text (special tokens included, at most `max_seq_length`), `total_token_count`
    what it has without truncation, `character_count` its length in characters. A text above `max_tokenized_characters`
    is tokenized only up to there: it bounds the work that one request can cause, and `total_token_count` is then a
    lower bound.
    """

    inputs: ClassVar = (TensorSpec("text", "TYPE_STRING", (1,)),)
    outputs: ClassVar = (
        TensorSpec("input_ids", "TYPE_INT64", (-1,)),
        TensorSpec("token_count", "TYPE_INT32", (1,)),
        TensorSpec("total_token_count", "TYPE_INT32", (1,)),
        TensorSpec("character_count", "TYPE_INT32", (1,)),
    )

    def __init__(self, tokenizer: RustTokenizer, *, max_seq_length: int, max_tokenized_characters: int) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_seq_length)
        self._tokenizer = tokenizer
        self._special = tokenizer.num_special_tokens_to_add(is_pair=False)
        self._pad_id = tokenizer.token_to_id("[PAD]") or 0
        self._max_characters = max_tokenized_characters

    @classmethod
    def create(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read `tokenizer.json` and the model's own limit in tokens (`sentence_bert_config.json`) from the version.

        Parameters: `max_seq_length` to truncate earlier, `max_tokenized_characters` (default 131072).
        """
        path = folder / "tokenizer.json"
        own_limit = _own_limit(folder / "sentence_bert_config.json")
        max_seq_length = positive_integer(parameters, "max_seq_length", own_limit)
        if max_seq_length > own_limit:
            raise StageConfigError(
                f"parameter max_seq_length is {max_seq_length}; the model's own limit is {own_limit}"
            )
        try:
            tokenizer = RustTokenizer.from_file(str(path))
        except Exception as exc:  # the library raises plain Exception for whatever is wrong with the file
            raise StageConfigError(f"{path.name} of this version cannot be read: {exc}") from exc
        return cls(
            tokenizer,
            max_seq_length=max_seq_length,
            max_tokenized_characters=positive_integer(parameters, "max_tokenized_characters", 131_072),
        )

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, Tensor] | Rejected]:
        """Encode every text of every request in one call."""
        texts = [texts_of(request["text"]) for request in requests]
        readable = [text for request in texts if not isinstance(request, Rejected) for text in request]
        encodings = iter(self._tokenizer.encode_batch([text[: self._max_characters] for text in readable]))
        return [
            request if isinstance(request, Rejected) else self._tensors(request, [next(encodings) for _ in request])
            for request in texts
        ]

    def _tensors(self, texts: Sequence[str], encodings: Sequence[Encoding]) -> dict[str, Tensor]:
        counts = [len(encoding.ids) for encoding in encodings]
        ids = np.full((len(counts), max(counts, default=0)), self._pad_id, dtype=np.int64)
        for row, encoding, count in zip(ids, encodings, counts, strict=True):
            row[:count] = encoding.ids
        return {
            "input_ids": ids,
            "token_count": column(counts),
            "total_token_count": column([self._total(encoding) for encoding in encodings]),
            "character_count": column([len(text) for text in texts]),
        }

    def _total(self, encoding: Encoding) -> int:
        """Tokens of a text as if nothing had been cut off: what is kept and each part that was not."""
        return len(encoding.ids) + sum(len(part.ids) - self._special for part in encoding.overflowing)


def _own_limit(path: Path) -> int:
    try:
        limit = json.loads(path.read_text(encoding="utf-8"))["max_seq_length"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StageConfigError(f"{path.name} of this version has no max_seq_length that can be read: {exc!r}") from exc
    if not isinstance(limit, int) or limit <= 0:
        raise StageConfigError(f"max_seq_length in {path.name} is {limit!r}; expected an integer above 0")
    return limit
