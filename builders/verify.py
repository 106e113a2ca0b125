"""Proof that an exported encoder gives the source's answers: every golden sentence, through both, compared.

The export runs in ONNX Runtime on mixed batches, as it will be served; the original runs in PyTorch as its authors
wrote it. What is not within the spec's tolerance is not published.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import MissingExtraError, ParityError, SourceError, read_text
from builders.manifest import ParityResult
from builders.sources.checkpoint import EncoderCheckpoint
from builders.spec import Parity

Embeddings = npt.NDArray[np.float32]

_BATCH = 16
_SEED = 20_240_815


def read_golden(path: Path) -> list[str]:
    """Return the `text` of every line of a golden set (JSON lines). Raises SourceError with file and line."""
    texts = []
    for number, line in enumerate(read_text(path, "golden set").splitlines(), start=1):
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as exc:
            raise SourceError(f'{path}:{number}: expected a JSON object with "text"') from exc
        if not isinstance(text, str):
            raise SourceError(f"{path}:{number}: text is not a string")
        texts.append(text)
    if not texts:
        raise SourceError(f"{path}: the golden set is empty")
    return texts


def prove_parity(
    model: Path,
    checkpoint: EncoderCheckpoint,
    texts: Sequence[str],
    tolerance: Parity,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ParityResult:
    """Return how close `model` comes to the original on `texts`. Raises ParityError where it is not close enough.

    `progress(done, total)` counts sentences.
    """
    tokens = _tokenize(checkpoint, texts)
    expected = _original(checkpoint, tokens, progress)
    actual = _exported(model, tokens, checkpoint.dimension)
    cosine = (expected * actual).sum(1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1))
    error = np.abs(expected - actual).max(1)
    result = ParityResult(len(texts), float(cosine.min()), float(error.max()))
    if not (result.min_cosine >= tolerance.min_cosine and result.max_abs_error <= tolerance.max_abs_error):
        worst = int(np.argmin(cosine))
        raise ParityError(
            f"the export differs from the PyTorch original: lowest cosine {result.min_cosine:.6f} (at least "
            f"{tolerance.min_cosine} is asked for), largest error {result.max_abs_error:.2e} (at most "
            f"{tolerance.max_abs_error:.0e}); worst sentence: {texts[worst][:80]!r}. Nothing was published"
        )
    return result


def _tokenize(checkpoint: EncoderCheckpoint, texts: Sequence[str]) -> list[list[int]]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - only this step needs it

    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(checkpoint.max_seq_length)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _original(
    checkpoint: EncoderCheckpoint, tokens: Sequence[Sequence[int]], progress: Callable[[int, int], None]
) -> Embeddings:
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.packed_module import ReferenceEncoder  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    encoder = ReferenceEncoder(checkpoint)
    parts = []
    for start in range(0, len(tokens), _BATCH):
        part = tokens[start : start + _BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
        parts.append(encoder.embed({"input_ids": ids, "attention_mask": mask}).numpy())
        progress(min(start + _BATCH, len(tokens)), len(tokens))
    return np.concatenate(parts)


def _exported(model: Path, tokens: Sequence[Sequence[int]], dimension: int) -> Embeddings:
    """Run the export on shuffled batches of mixed lengths, some as ragged requests and some padded to one width."""
    try:
        import onnxruntime  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError("onnxruntime", "cpu") from exc
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    order = np.random.default_rng(_SEED).permutation(len(tokens))
    result = np.empty((len(tokens), dimension), dtype=np.float32)
    for number, start in enumerate(range(0, len(order), _BATCH)):
        chosen = order[start : start + _BATCH]
        rows = [np.asarray(tokens[index], dtype=np.int64) for index in chosen]
        result[chosen] = session.run(None, _ragged(rows, padded=bool(number % 2)))[0]
    return result


def _ragged(rows: Sequence[npt.NDArray[np.int64]], *, padded: bool) -> dict[str, npt.NDArray[Any]]:
    counts = np.asarray([[len(row)] for row in rows], dtype=np.int32)
    widths = np.full_like(counts, counts.max()) if padded else counts
    flat = [np.pad(row, (0, int(width) - len(row))) for row, width in zip(rows, widths[:, 0], strict=True)]
    return {"input_ids": np.concatenate(flat), "token_count": counts, "input_ids_shape": widths}
