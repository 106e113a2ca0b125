"""A Hugging Face sequence classifier as ONNX: `input_ids` and `attention_mask` INT64 [B, L] to `logits` [B, classes].

`token_type_ids` INT64 [B, L] joins them where the golden set has pairs of texts and the model tells the two apart.
Beside it `image_classifier`; `encoder` is for models that give embeddings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builders.errors import MissingExtraError, SourceError
from builders.forms import MODEL, ExportRequest, Form, InputRange
from builders.onnx.torch_export import export_module
from builders.reference import Case, Tensors, save_reference
from builders.sources.cases import batch_sizes, class_numbers, texts_of
from builders.sources.checkpoint import TOKENIZER, read_json
from builders.sources.pretrained import config_of, label_numbers, load_pretrained
from builders.sources.tensors import TensorInput, axes
from builders.sources.texts import Row, TextLimits, pad, text_calls, text_range, tokenize, usual_shape

INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS = "input_ids", "attention_mask", "token_type_ids"
LOGITS = "logits"

_USUAL_TOKENS = 512
_NO_LIMIT = 10**6
"""A tokenizer that knows no limit states an astronomic one."""


def export_sequence_classifier(checkpoint: Path, request: ExportRequest, out: Path) -> tuple[Form, ...]:
    """Write the classifier in the folder `checkpoint` into the folder `out`, and return its one form.

    `request.inputs` may give `input_ids` [B, L] a smaller range than the checkpoint's; every input has that range. The
    golden set holds texts, or pairs of them, perhaps labelled. Raises SourceError or MissingExtraError.
    """
    model = load_pretrained("AutoModelForSequenceClassification", checkpoint)
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.torch_module import OrderedModule, answers_of  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    config = config_of(model)
    limits = TextLimits(_max_tokens(checkpoint, config), max(1, request.max_batch_size), config.vocab_size)
    given = text_range(INPUT_IDS, request.inputs, limits)
    if given is not None:
        limits = TextLimits(given.max[1], given.max[0], limits.vocabulary)
    golden, calibration = texts_of(request.golden), texts_of(request.calibration)
    labels = class_numbers([item.label for item in golden], label_numbers(config), request.golden)
    rows, calibration_rows = (
        tokenize(checkpoint / TOKENIZER, texts, limits.max_tokens) for texts in (golden, calibration)
    )
    pairs = (
        any(item.pair is not None for item in (*golden, *calibration))
        and (getattr(config, "type_vocab_size", 0) or 0) > 1
    )
    names = (INPUT_IDS, ATTENTION_MASK, *((TOKEN_TYPE_IDS,) if pairs else ()))

    calls = list(text_calls(rows, limits, batch_sizes(request), calibration_rows))
    ids = given or InputRange(INPUT_IDS, (1, 1), usual_shape(calls, limits), (limits.max_batch, limits.max_tokens))
    module = OrderedModule(model, (LOGITS,), names)
    answer = answers_of(module, names)
    padding = _padding(config)
    cases = []
    for call in calls:
        inputs = _inputs(call.rows, names, padding)
        own = None if labels is None or not call.golden else labels[list(call.golden)]
        cases.append(Case(call.name, call.kind, len(call.rows), inputs, answer(inputs), own))
    save_reference(out / f"{MODEL}.npz", cases)

    batch = None if request.max_batch_size > 0 else 1
    inputs_of_graph = [TensorInput(name, np.dtype(np.int64), (batch, None)) for name in names]
    example = torch.ones((2 if batch is None else 1, min(4, limits.max_tokens)), dtype=torch.int64)
    export_module(
        module,
        {name: torch.zeros_like(example) if name == TOKEN_TYPE_IDS else example for name in names},
        (LOGITS,),
        axes(inputs_of_graph, ("batch", "tokens")),
        out / f"{MODEL}.onnx",
    )
    return (Form(MODEL, tuple(InputRange(name, ids.min, ids.opt, ids.max) for name in names)),)


def _inputs(rows: Sequence[Row], names: Sequence[str], padding: int) -> Tensors:
    laid_out = {
        INPUT_IDS: pad([row.ids for row in rows], padding),
        ATTENTION_MASK: pad([(1,) * len(row) for row in rows]),
        TOKEN_TYPE_IDS: pad([row.types for row in rows]),
    }
    return {name: laid_out[name] for name in names}


def _padding(config: Any) -> int:  # noqa: ANN401 - see `config_of`
    padding = getattr(config, "pad_token_id", None)
    return padding if isinstance(padding, int) and padding >= 0 else 0


def _max_tokens(checkpoint: Path, config: Any) -> int:  # noqa: ANN401 - see `config_of`
    """Return how many tokens the model takes: the least of what the tokenizer and the position embeddings allow."""
    allowed = []
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its kin count positions from the padding id + 1, and have as many more of them.
        offset = _padding(config) + 1 if "roberta" in str(getattr(config, "model_type", "")) else 0
        allowed.append(positions - offset)
    path = checkpoint / "tokenizer_config.json"
    stated = read_json(path).get("model_max_length") if path.is_file() else None
    if isinstance(stated, int | float) and not isinstance(stated, bool) and 0 < stated < _NO_LIMIT:
        allowed.append(int(stated))
    found = min(allowed, default=_USUAL_TOKENS)
    if found < 1:
        raise SourceError(f"{checkpoint}: takes {found} tokens; expected a positive number of position embeddings")
    return found
