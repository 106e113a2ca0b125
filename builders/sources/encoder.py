"""A sentence encoder's checkpoint as ONNX: the packed ragged form for ONNX Runtime, the dense one for TensorRT.

`builders.onnx.packed` and `dense` make the graphs; the reference set's answers come from the unmodified checkpoint in
PyTorch, which shares no code with either.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.errors import SourceError
from builders.forms import DENSE, MODEL, ExportRequest, Form, InputRange
from builders.onnx.dense import export_dense_encoder, load_dense_encoder
from builders.onnx.packed import EMBEDDING, INPUT_IDS, INPUT_IDS_SHAPE, TOKEN_COUNT, export_packed_encoder
from builders.reference import Case, Tensors, save_reference
from builders.sources.cases import batch_sizes, texts_of
from builders.sources.checkpoint import TOKENIZER, EncoderCheckpoint, read_checkpoint
from builders.sources.pretrained import POOLER, config_of, load_pretrained
from builders.sources.texts import Row, TextLimits, pad, text_calls, text_range, tokenize, usual_shape

if TYPE_CHECKING:
    from builders.onnx.dense_module import DenseEncoder

Report = Callable[[str, int, int], None]

_AGREES = 1e-3
"""Most that the dense encoder may differ from the checkpoint in PyTorch: a wrong graph is off by far more than this."""


def export_encoder(
    checkpoint: Path,
    request: ExportRequest,
    out: Path,
    report: Report = lambda _step, _done, _total: None,
) -> tuple[Form, ...]:
    """Write the forms of the encoder in the folder `checkpoint` into the folder `out`, and return them.

    `request.inputs` may give `input_ids` as [B, L] a smaller range than the checkpoint's; every other range follows
    from it. `report(step, done, total)` counts calls of the reference set. Raises SourceError or MissingExtraError.
    """
    if request.max_batch_size < 1:
        raise SourceError(
            f"{request.package}: a sentence encoder is served over ragged batches; give config.max_batch_size in "
            "model.toml, such as 32"
        )
    source = read_checkpoint(checkpoint)
    report("export dense", 0, 0)
    encoder = load_dense_encoder(source)
    reference = _Reference(source)
    reference.check(encoder)
    limits = TextLimits(source.max_seq_length, request.max_batch_size, config_of(encoder.model).vocab_size)
    given = text_range(INPUT_IDS, request.inputs, limits)
    if given is not None:
        limits = TextLimits(given.max[1], given.max[0], limits.vocabulary)
    golden, calibration = (
        tokenize(checkpoint / TOKENIZER, texts_of(path), limits.max_tokens)
        for path in (request.golden, request.calibration)
    )
    calls = list(text_calls(golden, limits, batch_sizes(request), calibration))
    ids = given or InputRange(INPUT_IDS, (1, 1), usual_shape(calls, limits), (limits.max_batch, limits.max_tokens))

    export_dense_encoder(source, out / f"{DENSE}.onnx", encoder)
    report("export packed", 0, 0)
    export_packed_encoder(source, out / f"{MODEL}.onnx")
    answers = []
    for done, call in enumerate(calls, start=1):
        answers.append(reference.embed(call.rows))
        report("reference", done, len(calls))
    for form, layout in ((MODEL, _packed_inputs), (DENSE, _dense_inputs)):
        cases = [
            Case(call.name, call.kind, len(call.rows), layout(number, call.rows), {EMBEDDING: answer})
            for number, (call, answer) in enumerate(zip(calls, answers, strict=True))
        ]
        save_reference(out / f"{form}.npz", cases)
    return (
        Form(MODEL, _packed_ranges(ids), packed_config(source.dimension)),
        Form(DENSE, (ids, _per_text(TOKEN_COUNT, ids))),
    )


def packed_config(dimension: int) -> dict[str, Any]:
    """Return what Triton must know of the packed form.

    `input` and `output` are complete: the ONNX input that they do not name is made by Triton itself (`batch_input`),
    and `input_ids`, which is [T] in ONNX, is [-1] in each request.
    """
    return {
        "input": [
            {"name": INPUT_IDS, "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True},
            {"name": TOKEN_COUNT, "data_type": "TYPE_INT32", "dims": [1]},
        ],
        "output": [{"name": EMBEDDING, "data_type": "TYPE_FP32", "dims": [dimension]}],
        "batch_input": [
            {
                "kind": "BATCH_ITEM_SHAPE",
                "target_name": [INPUT_IDS_SHAPE],
                "data_type": "TYPE_INT32",
                "source_input": [INPUT_IDS],
            }
        ],
    }


def _per_text(name: str, ids: InputRange) -> InputRange:
    return InputRange(name, (ids.min[0], 1), (ids.opt[0], 1), (ids.max[0], 1))


def _packed_ranges(ids: InputRange) -> tuple[InputRange, ...]:
    tokens = InputRange(INPUT_IDS, (ids.min[0] * ids.min[1],), (ids.opt[0] * ids.opt[1],), (ids.max[0] * ids.max[1],))
    return tokens, _per_text(TOKEN_COUNT, ids), _per_text(INPUT_IDS_SHAPE, ids)


def _packed_inputs(number: int, rows: Sequence[Row]) -> Tensors:
    """Lay rows out as Triton brings ragged requests: every other call as requests padded to one width."""
    counts = np.asarray([[len(row)] for row in rows], dtype=np.int32)
    if number % 2 == 0:
        flat = np.concatenate([np.asarray(row.ids, dtype=np.int64) for row in rows])
        return {INPUT_IDS: flat, TOKEN_COUNT: counts, INPUT_IDS_SHAPE: counts}
    padded = pad([row.ids for row in rows])
    widths = np.full_like(counts, padded.shape[1])
    return {INPUT_IDS: padded.reshape(-1), TOKEN_COUNT: counts, INPUT_IDS_SHAPE: widths}


def _dense_inputs(_number: int, rows: Sequence[Row]) -> Tensors:
    counts = np.asarray([[len(row)] for row in rows], dtype=np.int32)
    return {INPUT_IDS: pad([row.ids for row in rows]), TOKEN_COUNT: counts}


class _Reference:
    """The checkpoint in PyTorch as its authors run it: the unmodified model, mean pooling, normalisation."""

    def __init__(self, checkpoint: EncoderCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._model = load_pretrained("AutoModel", checkpoint.path, spare=POOLER)

    def embed(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        """Return FP32 [B, D]."""
        import torch  # noqa: PLC0415 - an optional extra

        ids = torch.from_numpy(pad([row.ids for row in rows]))
        mask = torch.from_numpy(pad([[1] * len(row) for row in rows]))
        with torch.no_grad():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        if self._checkpoint.normalize:
            mean = torch.nn.functional.normalize(mean, p=2.0, dim=1)
        return np.asarray(mean.numpy(), dtype=np.float32)

    def check(self, encoder: "DenseEncoder") -> None:
        """Raise SourceError where the encoder's layers, run our way, are not the checkpoint's own.

        Both forms number positions from 0 and pass attention their own mask, which not every architecture bears.
        """
        import torch  # noqa: PLC0415 - an optional extra

        ids, counts = encoder.example_inputs()
        rows = [Row(tuple(row[:count]), (0,) * count) for row, count in zip(ids.tolist(), counts[:, 0], strict=True)]
        expected = self.embed(rows)
        if expected.shape[1] != self._checkpoint.dimension:
            raise SourceError(
                f"{self._checkpoint.path}: embeddings have {expected.shape[1]} numbers, and 1_Pooling/config.json says "
                f"{self._checkpoint.dimension}; copy the checkpoint again"
            )
        with torch.no_grad():
            error = float(np.abs(encoder(ids, counts).numpy() - expected).max())
        if not error <= _AGREES:
            raise SourceError(
                f"{self._checkpoint.path}: its architecture does not suit: with positions counted from 0 its "
                f"embeddings are off by {error:.1e}; only encoders such as BERT are supported"
            )
