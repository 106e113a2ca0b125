"""The packed sentence encoder as a PyTorch module: `packed` exports it. Imports PyTorch and transformers.

It reuses the checkpoint's own model class through transformers' attention interface: the whole batch runs as one
sequence of P real tokens, and only `_attention` knows that it is several sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from builders.sources.checkpoint import EncoderCheckpoint
from builders.sources.pretrained import POOLER, load_pretrained

_ATTENTION = "tritonfleet_packed"
_MASKED = -3.0e38
"""Added to the score of a place that holds no token: close to FP32's lowest, so that its weight is exactly 0."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Sentences of like length: where each padded place [N, L] reads its token, and FP32 [N, 1, 1, L] to mask it by."""

    pad_index: Tensor
    key_bias: Tensor


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers' own
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float,
    buckets: Sequence[_Bucket],
    unpad_index: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within each sentence: each bucket of [1, heads, P, d] is padded to [N, heads, L, d] and packed again."""
    heads, tokens, width = query.shape[1], query.shape[2], query.shape[3]
    flat = [states.transpose(1, 2).reshape(tokens, heads * width) for states in (query, key, value)]
    mixed = []
    for bucket in buckets:
        batch, length = bucket.pad_index.shape
        places = bucket.pad_index.reshape(-1)
        queries, keys, values = (
            states.index_select(0, places).reshape(batch, length, heads, width).transpose(1, 2) for states in flat
        )
        scores = torch.matmul(queries, keys.transpose(2, 3)) * scaling + bucket.key_bias
        attended = torch.matmul(torch.softmax(scores, dim=-1), values)
        mixed.append(attended.transpose(1, 2).reshape(batch * length, heads * width))
    return torch.cat(mixed).index_select(0, unpad_index).reshape(1, tokens, heads, width), None


class PackedEncoder(nn.Module):
    """(packed_ids INT64 [P], counts INT64 [B], bucket INT64 [B], grouping) -> FP32 [B, D].

    `counts` sums to P; `bucket` says which group each sentence stands in. `grouping` holds for each group the numbers
    of its sentences INT64 [N], then for each group its positions INT64 [L] = 0..L-1.
    """

    def __init__(self, model: nn.Module, *, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, packed_ids: Tensor, counts: Tensor, bucket: Tensor, *grouping: Tensor) -> Tensor:
        """Return one embedding per sentence."""
        tokens = packed_ids.shape[0]
        ends = torch.cumsum(counts, 0)
        starts = ends - counts
        index = torch.arange(tokens)
        item = (index.unsqueeze(1) >= ends.unsqueeze(0)).to(torch.int64).sum(1)
        position = index - starts.index_select(0, item)
        buckets = []
        before, row_start = 0, torch.zeros_like(counts)  # where each sentence's padded row begins
        for number, (sentences, positions) in enumerate(_pairs(grouping)):
            places = starts.index_select(0, sentences).unsqueeze(1) + positions.unsqueeze(0)
            real = positions.unsqueeze(0) < counts.index_select(0, sentences).unsqueeze(1)
            bias = torch.where(real, 0.0, _MASKED)[:, None, None, :]
            buckets.append(_Bucket(torch.minimum(places, torch.tensor(tokens - 1)), bias))
            inside = (bucket == number).to(torch.int64)
            row_start = row_start + inside * (before + (torch.cumsum(inside, 0) - 1) * positions.shape[0])
            before = before + sentences.shape[0] * positions.shape[0]
        states = self.model(
            input_ids=packed_ids.unsqueeze(0),
            position_ids=position.unsqueeze(0),
            buckets=buckets,
            unpad_index=row_start.index_select(0, item) + position,
        ).last_hidden_state[0]
        owns = (item.unsqueeze(0) == torch.arange(counts.shape[0]).unsqueeze(1)).to(states.dtype)
        mean = torch.matmul(owns, states) / torch.clamp(counts.unsqueeze(1), min=1).to(states.dtype)
        return nn.functional.normalize(mean, p=2.0, dim=1) if self.normalize else mean


def _pairs(grouping: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    half = len(grouping) // 2
    return list(zip(grouping[:half], grouping[half:], strict=True))


def example_inputs(buckets: int) -> tuple[Tensor, ...]:
    """Return inputs of `PackedEncoder` to export it with: two sentences in each of `buckets` groups."""
    numbers = torch.arange(2 * buckets)
    counts, bucket = numbers + 2, numbers % buckets
    sentences = [torch.nonzero(bucket == number)[:, 0] for number in range(buckets)]
    positions = [torch.arange(int(counts[chosen].max())) for chosen in sentences]
    return (torch.arange(int(counts.sum())), counts, bucket, *sentences, *positions)


def load_packed_encoder(checkpoint: EncoderCheckpoint) -> PackedEncoder:
    """Return the encoder of `checkpoint`, ready to export. Reads safetensors only."""
    AttentionInterface.register(_ATTENTION, _attention)
    model = load_pretrained("AutoModel", checkpoint.path, attention=_ATTENTION, spare=POOLER)
    return PackedEncoder(model, normalize=checkpoint.normalize).eval()


class ReferenceEncoder:
    """The checkpoint as its authors run it: padded batches through the unmodified model, mean pooling, normalisation.

    Parity is measured against this; it shares no code with `PackedEncoder`.
    """

    def __init__(self, checkpoint: EncoderCheckpoint) -> None:
        self._model = load_pretrained("AutoModel", checkpoint.path, spare=POOLER)
        self._normalize = checkpoint.normalize

    @torch.no_grad()
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return FP32 [B, D] for `input_ids` and `attention_mask`, both INT64 [B, L]."""
        states = self._model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return cast("Tensor", nn.functional.normalize(mean, p=2.0, dim=1) if self._normalize else mean)
