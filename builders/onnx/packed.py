"""A sentence encoder as one ONNX graph over ragged batches, with the padding taken out instead of put in.

Requests of different lengths share a batch only where Triton need not compare their shapes: the input is ragged
(`allow_ragged_batch`), so the tokens of all requests arrive as one list, and `batch_input` brings their shapes. The
graph then runs every token-wise layer (97% of an encoder's work at these lengths) on real tokens alone, and pads only
around attention, where tokens of one sentence meet. Mean pooling and normalisation are its last nodes, so one dense
[sentences, dimension] tensor leaves it. Only standard ONNX operators are used: Triton's C++ ONNX Runtime backend serves
the same bytes. The technique is known as packing or padding removal ("effective transformer", FasterTransformer).

Shapes: T tokens as they arrive, P tokens without padding, B sentences, L tokens of the longest sentence, D dimension.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import MissingExtraError
from builders.sources.checkpoint import EncoderCheckpoint

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
IR_VERSION = 10

INPUT_IDS = "input_ids"
"""INT64 [T], ragged: token ids of all requests one after another; a request of several sentences brings its padding."""
TOKEN_COUNT = "token_count"  # noqa: S105 - a tensor's name
"""INT32 [B, 1]: how many tokens of each sentence are real."""
INPUT_IDS_SHAPE = "input_ids_shape"
"""INT32 [B, 1]: how many tokens of each sentence arrive (`BATCH_ITEM_SHAPE` of INPUT_IDS), made by Triton."""
EMBEDDING = "sentence_embedding"
"""FP32 [B, D]."""

# From the tensors that Triton brings to what the packed encoder takes. The count is held within what arrived: whatever
# a caller claims, a sentence never reads a neighbour's tokens.
_UNPAD = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
unpad (int64[total] {INPUT_IDS}, int32[batch, 1] {TOKEN_COUNT}, int32[batch, 1] {INPUT_IDS_SHAPE})
   => (int64[packed] packed_ids, int64[batch] counts, int64[width] positions) {{
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  axis1 = Constant <value_ints = [1]> ()
  widths32 = Reshape ({INPUT_IDS_SHAPE}, flat)
  widths = Cast <to = 7> (widths32)
  claimed32 = Reshape ({TOKEN_COUNT}, flat)
  claimed = Cast <to = 7> (claimed32)
  within = Min (claimed, widths)
  counts = Max (within, zero)
  ends = CumSum (widths, zero)
  starts = Sub (ends, widths)
  length = Size ({INPUT_IDS})
  index = Range (zero, length, one)
  column = Unsqueeze (index, axis1)
  passed = GreaterOrEqual (column, ends)
  passed64 = Cast <to = 7> (passed)
  item = ReduceSum <keepdims = 0> (passed64, axis1)
  start = Gather (starts, item)
  position = Sub (index, start)
  count = Gather (counts, item)
  real = Less (position, count)
  packed_ids = Compress <axis = 0> ({INPUT_IDS}, real)
  longest = ReduceMax <keepdims = 0> (counts)
  width = Max (longest, one)
  positions = Range (zero, width, one)
}}
"""


def export_packed_encoder(checkpoint: EncoderCheckpoint, target: Path) -> None:
    """Write the encoder of `checkpoint` to the ONNX file `target`.

    Inputs INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE; output EMBEDDING. Takes seconds to half a minute. Raises
    MissingExtraError where PyTorch or transformers is not installed.
    """
    import onnx  # noqa: PLC0415 - only a build needs it, and `import onnx` is slow
    from onnx import compose, parser  # noqa: PLC0415

    unpad = parser.parse_model(_UNPAD)
    encoder = _export(checkpoint)
    merged = compose.merge_models(
        unpad,
        encoder,
        io_map=[("packed_ids", "packed_ids"), ("counts", "counts"), ("positions", "positions")],
        prefix1="unpad/",
        prefix2="encoder/",
    )
    _restore_names(merged)
    merged.producer_name = "tritonfleet"
    onnx.checker.check_model(merged, full_check=True)
    onnx.save(merged, target)


def _restore_names(model: "ModelProto") -> None:
    """Give the merged graph's inputs and outputs their own names back (the merge prefixes both halves)."""
    names = {f"unpad/{name}": name for name in (INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE)}
    names[f"encoder/{EMBEDDING}"] = EMBEDDING
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _export(checkpoint: EncoderCheckpoint) -> "ModelProto":
    """Export the packed encoder: (packed_ids [P], counts [B], positions [L]) -> EMBEDDING [B, D]."""
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.packed_module import load_packed_encoder  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    module = load_packed_encoder(checkpoint)
    example = (torch.arange(1000, 1012), torch.tensor([5, 4, 3]), torch.arange(5))
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=({0: "packed"}, {0: "batch"}, {0: "width"}),
            input_names=["packed_ids", "counts", "positions"],
            output_names=[EMBEDDING],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program, which it does only when told to write a file")
    model: ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Leave out what PyTorch's exporter says of itself: deprecations inside PyTorch, torchvision being absent."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
