"""A sentence encoder as one plain padded graph, for compilers that want shapes: TensorRT and its like.

The same tensors by name as the packed graph (`packed`), but `input_ids` comes padded, so no shape depends on data; the
mask is made inside from the count, and mean pooling and normalisation are the last nodes. Shapes: B sentences, L places
of the widest, D dimension.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from builders.errors import MissingExtraError
from builders.onnx.packed import EMBEDDING, INPUT_IDS, TOKEN_COUNT
from builders.onnx.torch_export import export_module
from builders.sources.checkpoint import EncoderCheckpoint

if TYPE_CHECKING:
    from builders.onnx.dense_module import DenseEncoder

BATCH_AXIS, LENGTH_AXIS = "batch", "places"


def load_dense_encoder(checkpoint: EncoderCheckpoint) -> "DenseEncoder":
    """Return the encoder of `checkpoint` as a PyTorch module. Raises SourceError or MissingExtraError."""
    try:
        from builders.onnx import dense_module  # noqa: PLC0415 - imports PyTorch, an optional extra
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    return dense_module.load(checkpoint)


def export_dense_encoder(checkpoint: EncoderCheckpoint, target: Path, encoder: "DenseEncoder | None" = None) -> None:
    """Write the encoder of `checkpoint` to the ONNX file `target`; `encoder` spares loading it again.

    Inputs `input_ids` INT64 [B, L] and `token_count` INT32 [B, 1]; output `sentence_embedding` FP32 [B, D]. Ids from a
    sentence's count on are ignored, whatever they are. Raises SourceError or MissingExtraError.
    """
    encoder = encoder or load_dense_encoder(checkpoint)
    export_module(
        encoder,
        dict(zip((INPUT_IDS, TOKEN_COUNT), encoder.example_inputs(), strict=True)),
        (EMBEDDING,),
        {INPUT_IDS: {0: BATCH_AXIS, 1: LENGTH_AXIS}, TOKEN_COUNT: {0: BATCH_AXIS}},
        target,
    )
