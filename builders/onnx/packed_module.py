"""The packed sentence encoder as a PyTorch module: `packed` exports it. Imports PyTorch and transformers.

It reuses the checkpoint's own model class through transformers' attention interface: the whole batch runs as one
sequence of P real tokens, and only `_attention` knows that it is several sentences.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModel
from transformers.utils import logging as transformers_logging

from builders.sources.checkpoint import EncoderCheckpoint

transformers_logging.disable_progress_bar()  # `pipeline` reports progress; theirs would tear its lines

_ATTENTION = "tritonfleet_packed"
_MASKED = -3.0e38
"""Added to the score of a place that holds no token: close to FP32's lowest, so that its weight is exactly 0."""


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers' own
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float,
    pad_index: Tensor,
    unpad_index: Tensor,
    key_bias: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within each sentence: [1, heads, P, d] is padded to [B, heads, L, d] and packed again."""
    heads, tokens, width = query.shape[1], query.shape[2], query.shape[3]
    batch, length = pad_index.shape

    def padded(states: Tensor) -> Tensor:
        flat = states[0].transpose(0, 1).reshape(tokens, heads * width)
        return flat.index_select(0, pad_index.reshape(-1)).reshape(batch, length, heads, width).transpose(1, 2)

    scores = torch.matmul(padded(query), padded(key).transpose(2, 3)) * scaling + key_bias
    mixed = torch.matmul(torch.softmax(scores, dim=-1), padded(value))
    flat = mixed.transpose(1, 2).reshape(batch * length, heads * width).index_select(0, unpad_index)
    return flat.reshape(1, tokens, heads, width), None


class PackedEncoder(nn.Module):
    """(packed_ids INT64 [P], counts INT64 [B], positions INT64 [L] = 0..L-1) -> FP32 [B, D].

    `counts` sums to P and its largest is at most L.
    """

    def __init__(self, model: nn.Module, *, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, packed_ids: Tensor, counts: Tensor, positions: Tensor) -> Tensor:
        """Return one embedding per sentence."""
        tokens, length = packed_ids.shape[0], positions.shape[0]
        ends = torch.cumsum(counts, 0)
        starts = ends - counts
        index = torch.arange(tokens)
        item = (index.unsqueeze(1) >= ends.unsqueeze(0)).to(torch.int64).sum(1)
        position = index - starts.index_select(0, item)
        real = positions.unsqueeze(0) < counts.unsqueeze(1)
        pad_index = torch.minimum(starts.unsqueeze(1) + positions.unsqueeze(0), torch.tensor(tokens - 1))
        states = self.model(
            input_ids=packed_ids.unsqueeze(0),
            position_ids=position.unsqueeze(0),
            pad_index=pad_index,
            unpad_index=item * length + position,
            key_bias=torch.where(real, 0.0, _MASKED)[:, None, None, :],
        ).last_hidden_state[0]
        padded = states.index_select(0, pad_index.reshape(-1)).reshape(pad_index.shape[0], length, states.shape[1])
        total = (padded * real.unsqueeze(-1).to(states.dtype)).sum(1)
        mean = total / torch.clamp(counts.unsqueeze(1), min=1).to(states.dtype)
        return nn.functional.normalize(mean, p=2.0, dim=1) if self.normalize else mean


def load_packed_encoder(checkpoint: EncoderCheckpoint) -> PackedEncoder:
    """Return the encoder of `checkpoint`, ready to export. Reads safetensors only."""
    AttentionInterface.register(_ATTENTION, _attention)
    model = AutoModel.from_pretrained(
        str(checkpoint.path), attn_implementation=_ATTENTION, use_safetensors=True, local_files_only=True
    )
    return PackedEncoder(model.eval(), normalize=checkpoint.normalize).eval()


class ReferenceEncoder:
    """The checkpoint as its authors run it: padded batches through the unmodified model, mean pooling, normalisation.

    Parity is measured against this; it shares no code with `PackedEncoder`.
    """

    def __init__(self, checkpoint: EncoderCheckpoint) -> None:
        self._model = AutoModel.from_pretrained(
            str(checkpoint.path), use_safetensors=True, local_files_only=True
        ).eval()
        self._normalize = checkpoint.normalize

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return FP32 [B, D] for `input_ids` and `attention_mask`, both INT64 [B, L]."""
        states = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return cast("Tensor", nn.functional.normalize(mean, p=2.0, dim=1) if self._normalize else mean)
