"""A sentence encoder as one ONNX graph over ragged batches, with the padding taken out instead of put in.

Requests of different lengths share a batch only where Triton need not compare their shapes: the input is ragged
(`allow_ragged_batch`), so the tokens of all requests arrive as one list, and `batch_input` brings their shapes. The
graph then runs every token-wise layer on real tokens alone. Only attention, where the tokens of one sentence meet, is
padded, and there sentences of like length stand together: a long sentence does not widen the short ones beside it.
Mean pooling and normalisation are the graph's last nodes, so one dense [sentences, dimension] tensor leaves it. Only
standard ONNX operators are used: Triton's C++ ONNX Runtime backend serves the same bytes. Taking the padding out is
known as packing or "effective transformer" (FasterTransformer); `tests/bench/text_embedding.py` measures its worth.

Shapes: T tokens as they arrive, P tokens without padding, B sentences, D dimension; in each of BUCKETS groups of like
length, N sentences and L tokens of the longest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import MissingExtraError
from builders.onnx.torch_export import IR_VERSION, OPSET, quiet_exporter, strip_metadata
from builders.sources.checkpoint import EncoderCheckpoint

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT_IDS = "input_ids"
"""INT64 [T], ragged: token ids of all requests one after another; a request of several sentences brings its padding."""
TOKEN_COUNT = "token_count"  # noqa: S105 - a tensor's name
"""INT32 [B, 1]: how many tokens of each sentence are real."""
INPUT_IDS_SHAPE = "input_ids_shape"
"""INT32 [B, 1]: how many tokens of each sentence arrive (`BATCH_ITEM_SHAPE` of INPUT_IDS), made by Triton."""
EMBEDDING = "sentence_embedding"
"""FP32 [B, D]."""

BUCKETS = 3
"""Groups of like length that attention is padded in: above half of the longest sentence, above a quarter, the rest."""

# From the tensors that Triton brings to what the packed encoder takes. The count is held within what arrived: whatever
# a caller claims, a sentence never reads a neighbour's tokens. `bucket` counts how often a sentence can be doubled
# before it is longer than the longest.
_UNPAD = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
unpad (int64[total] {ids}, int32[batch, 1] {count}, int32[batch, 1] {shape}) => ({outputs}) {{
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  axis1 = Constant <value_ints = [1]> ()
  widths32 = Reshape ({shape}, flat)
  widths = Cast <to = 7> (widths32)
  claimed32 = Reshape ({count}, flat)
  claimed = Cast <to = 7> (claimed32)
  within = Min (claimed, widths)
  counts = Max (within, zero)
  ends = CumSum (widths, zero)
  starts = Sub (ends, widths)
  length = Size ({ids})
  index = Range (zero, length, one)
  column = Unsqueeze (index, axis1)
  passed = GreaterOrEqual (column, ends)
  passed64 = Cast <to = 7> (passed)
  item = ReduceSum <keepdims = 0> (passed64, axis1)
  start = Gather (starts, item)
  position = Sub (index, start)
  own_count = Gather (counts, item)
  real = Less (position, own_count)
  packed_ids = Compress <axis = 0> ({ids}, real)
  longest = ReduceMax <keepdims = 0> (counts)
  grown = Unsqueeze (counts, axis1)
  factors = Constant <value_ints = {factors}> ()
  times = Mul (grown, factors)
  still = LessOrEqual (times, longest)
  still64 = Cast <to = 7> (still)
  bucket = ReduceSum <keepdims = 0> (still64, axis1)
{buckets}}}
"""
_BUCKET = """
  number{k} = Constant <value_int = {k}> ()
  inside{k} = Equal (bucket, number{k})
  where{k} = NonZero (inside{k})
  sentences{k} = Reshape (where{k}, flat)
  inside64_{k} = Cast <to = 7> (inside{k})
  counts{k} = Mul (inside64_{k}, counts)
  longest{k} = ReduceMax <keepdims = 0> (counts{k})
  width{k} = Max (longest{k}, one)
  positions{k} = Range (zero, width{k}, one)
"""
_BETWEEN = (
    "packed_ids",
    "counts",
    "bucket",
    *(f"sentences{k}" for k in range(BUCKETS)),
    *(f"positions{k}" for k in range(BUCKETS)),
)
"""What the first half of the graph hands to the second, in the order of `PackedEncoder.forward`."""


def export_packed_encoder(checkpoint: EncoderCheckpoint, target: Path) -> None:
    """Write the encoder of `checkpoint` to the ONNX file `target`.

    Inputs INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE; output EMBEDDING. Takes seconds to half a minute. Raises
    MissingExtraError where PyTorch or transformers is not installed.
    """
    import onnx  # noqa: PLC0415 - only a build needs it, and `import onnx` is slow
    from onnx import compose, parser  # noqa: PLC0415

    unpad = parser.parse_model(_unpad_text())
    encoder = _export(checkpoint)
    io_map = [(name, name) for name in _BETWEEN]
    merged = compose.merge_models(unpad, encoder, io_map=io_map, prefix1="unpad/", prefix2="encoder/")
    restore_names(merged, {"unpad/": (INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE), "encoder/": (EMBEDDING,)})
    merged.producer_name = "tritonfleet"
    strip_metadata(merged)
    del merged.graph.value_info[:]  # two exporters named the same dimensions differently; ONNX Runtime infers its own
    onnx.checker.check_model(merged)
    onnx.save(merged, target)


def restore_names(model: "ModelProto", prefixed: Mapping[str, Sequence[str]]) -> None:
    """Give inputs and outputs of a merged graph their own names back: `prefixed` says which got which prefix."""
    names = {f"{prefix}{name}": name for prefix, own in prefixed.items() for name in own}
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _unpad_text() -> str:
    """Return the graph's first half in ONNX's text form."""
    return _UNPAD.format(
        ir_version=IR_VERSION,
        opset=OPSET,
        ids=INPUT_IDS,
        count=TOKEN_COUNT,
        shape=INPUT_IDS_SHAPE,
        outputs=", ".join(f"int64[{name}_length] {name}" for name in _BETWEEN),
        factors=[2**doubled for doubled in range(1, BUCKETS)],
        buckets="".join(_BUCKET.format(k=k) for k in range(BUCKETS)),
    )


def _export(checkpoint: EncoderCheckpoint) -> "ModelProto":
    """Export the packed encoder: what `_BETWEEN` names to EMBEDDING [B, D]."""
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.packed_module import example_inputs, load_packed_encoder  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    module = load_packed_encoder(checkpoint)
    dimensions = ("packed", "batch", "batch", *_BETWEEN[3:])
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            example_inputs(BUCKETS),
            dynamo=True,
            dynamic_shapes=(*({0: name} for name in dimensions[:3]), tuple({0: name} for name in dimensions[3:])),
            input_names=list(_BETWEEN),
            output_names=[EMBEDDING],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program, which it does only when told to write a file")
    model: ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model
