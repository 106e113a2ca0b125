"""The packed sentence encoder as a PyTorch module: `packed` exports it. Imports PyTorch and transformers.

It reuses the checkpoint's own model class through transformers' attention interface: the whole batch runs as one
sequence of P real tokens. Where it matters that these are several sentences, an operator is left open for `packed`.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic
from transformers import AttentionInterface
from transformers.activations import GELUActivation

from builders.sources.checkpoint import EncoderCheckpoint
from builders.sources.pretrained import POOLER, load_pretrained

_ATTENTION = "tritonfleet_packed"


class PackedEncoder(nn.Module):
    """(packed_ids INT64 [P], position INT64 [P] in its sentence, counts INT64 [B]) -> FP32 [B, D]. To be exported only.

    Two operators of `domain` stay open: Attention (query, key, value FP32 [1, P, heads * d]) -> FP32 [1, P, heads, d],
    within each sentence, and Mean (states FP32 [1, P, D]) -> FP32 [B, D], of each sentence.
    """

    def __init__(self, model: nn.Module, *, normalize: bool, domain: str) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.domain = domain

    def forward(self, packed_ids: Tensor, position: Tensor, counts: Tensor) -> Tensor:
        """Return one embedding per sentence."""
        states = self.model(
            input_ids=packed_ids.unsqueeze(0), position_ids=position.unsqueeze(0), domain=self.domain
        ).last_hidden_state
        width = states.shape[2]
        shape, flat = (counts.shape[0], width), {"sentence": (-1, width)}
        mean = symbolic(f"{self.domain}::Mean", [states], {**flat}, dtype=states.dtype, shape=shape, version=1)
        return nn.functional.normalize(mean, p=2.0, dim=1) if self.normalize else mean


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers' own
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float,
    domain: str,
    **_: object,
) -> tuple[Tensor, None]:
    """Leave open how [1, heads, P, d] attends within each sentence."""
    heads, tokens, width = query.shape[1:]
    inputs = [states.transpose(1, 2).reshape(1, tokens, heads * width) for states in (query, key, value)]
    shape = (1, tokens, heads, width)
    attributes: dict[str, float | tuple[int, ...]] = {"scale": scaling, "heads": (-1, heads, width)}
    return symbolic(f"{domain}::Attention", inputs, {**attributes}, dtype=query.dtype, shape=shape, version=1), None


def _gelu(states: Tensor) -> Tensor:
    """Return GELU in the order in which ONNX Runtime recognises it; PyTorch's exporter writes another."""
    return states * (1.0 + torch.erf(states / math.sqrt(2.0))) * 0.5


def example_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs of `PackedEncoder` to export it with: two sentences of two and three tokens."""
    return torch.arange(5), torch.tensor([0, 1, 0, 1, 2]), torch.tensor([2, 3])


def load_packed_encoder(checkpoint: EncoderCheckpoint, *, domain: str) -> PackedEncoder:
    """Return the encoder of `checkpoint`, ready to export. Reads safetensors only."""
    AttentionInterface.register(_ATTENTION, _attention)
    model = load_pretrained("AutoModel", checkpoint.path, attention=_ATTENTION, spare=POOLER)
    for module in model.modules():
        if isinstance(module, GELUActivation):
            module.act = _gelu
    return PackedEncoder(model, normalize=checkpoint.normalize, domain=domain).eval()


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
