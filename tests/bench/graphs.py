"""The encoder's graphs that the benches hold against the packed one: plain padded, and ragged with padding inside."""

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import compose, parser
from torch import nn

from builders.onnx.packed import (
    EMBEDDING,
    INPUT_IDS,
    INPUT_IDS_SHAPE,
    TOKEN_COUNT,
    restore_names,
)
from builders.onnx.packed_module import ReferenceEncoder
from builders.onnx.torch_export import IR_VERSION, OPSET
from builders.sources.checkpoint import EncoderCheckpoint

_PAD = f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
pad (int64[total] {INPUT_IDS}, int32[batch, 1] {TOKEN_COUNT}, int32[batch, 1] {INPUT_IDS_SHAPE})
   => (int64[batch, width] padded_ids, int64[batch, width] attention_mask) {{
  flat = Constant <value_ints = [-1]> ()
  zero = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  axis0 = Constant <value_ints = [0]> ()
  axis1 = Constant <value_ints = [1]> ()
  widths32 = Reshape ({INPUT_IDS_SHAPE}, flat)
  widths = Cast <to = 7> (widths32)
  counts = Cast <to = 7> ({TOKEN_COUNT})
  ends = CumSum (widths, zero)
  starts = Sub (ends, widths)
  longest = ReduceMax <keepdims = 0> (widths)
  positions = Range (zero, longest, one)
  row = Unsqueeze (positions, axis0)
  start = Unsqueeze (starts, axis1)
  index = Add (start, row)
  length = Size ({INPUT_IDS})
  last = Sub (length, one)
  within = Min (index, last)
  padded_ids = Gather ({INPUT_IDS}, within)
  real = Less (row, counts)
  attention_mask = Cast <to = 7> (real)
}}
"""


class _Plain(nn.Module):
    """(input_ids, attention_mask) INT64 [B, L] to FP32 [B, D], as its authors run it."""

    def __init__(self, reference: ReferenceEncoder) -> None:
        super().__init__()
        self.model = reference._model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), p=2.0, dim=1)


def plain_graph(checkpoint: EncoderCheckpoint) -> onnx.ModelProto:
    """Export the unmodified model: `input_ids`, `attention_mask` [B, L] to `sentence_embedding` [B, D]."""
    ids = torch.randint(1000, 2000, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    shape = {0: "batch", 1: "width"}
    program: Any = torch.onnx.export(
        _Plain(ReferenceEncoder(checkpoint)),
        (ids, mask),
        dynamo=True,
        dynamic_shapes=(shape, shape),
        input_names=["input_ids", "attention_mask"],
        output_names=[EMBEDDING],
        opset_version=OPSET,
        verbose=False,
    )
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model


def padding_graph(plain: onnx.ModelProto) -> onnx.ModelProto:
    """Put the padding into the graph: the packed encoder's inputs, the plain encoder behind them."""
    merged = compose.merge_models(
        parser.parse_model(_PAD),
        plain,
        io_map=[("padded_ids", "input_ids"), ("attention_mask", "attention_mask")],
        prefix1="pad/",
        prefix2="encoder/",
    )
    restore_names(merged, {"pad/": (INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE), "encoder/": (EMBEDDING,)})
    del merged.graph.value_info[:]
    onnx.checker.check_model(merged)
    return merged


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph to one file."""
    onnx.save(model, path)
