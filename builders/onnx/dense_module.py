"""The padded sentence encoder as a PyTorch module: `dense` exports it. Imports PyTorch and transformers.

Like the packed module it reuses the checkpoint's own model class through transformers' attention interface; only the
mask, which transformers would make with shapes that compilers do not like, is made here.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from builders.errors import SourceError
from builders.onnx.torch_export import first_line
from builders.sources.checkpoint import EncoderCheckpoint
from builders.sources.pretrained import POOLER, load_pretrained

_ATTENTION = "tritonfleet_dense"
_MASKED = -3.0e4
"""Added to the score of a place that holds no token: its weight is exactly 0, and FP16 and BF16 can hold the number."""


def _attention(  # noqa: PLR0913, PLR0917 - the signature is transformers' own
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    scaling: float,
    key_bias: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within each sentence: [B, heads, L, d] to [B, L, heads, d]; `key_bias` is FP32 [B, 1, 1, L]."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + key_bias
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2), None


class DenseEncoder(nn.Module):
    """(input_ids INT64 [B, L], token_count INT32 [B, 1]) -> FP32 [B, D]."""

    def __init__(self, model: nn.Module, *, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, input_ids: Tensor, token_count: Tensor) -> Tensor:
        """Return one embedding per sentence."""
        positions = torch.arange(input_ids.shape[1]).unsqueeze(0)
        real = positions < token_count.to(torch.int64)
        states = self.model(
            input_ids=torch.where(real, input_ids, 0),
            position_ids=positions,
            key_bias=torch.where(real, 0.0, _MASKED)[:, None, None, :],
        ).last_hidden_state
        weights = real.to(states.dtype).unsqueeze(1)
        mean = torch.matmul(weights, states).squeeze(1) / torch.clamp(weights.sum(2), min=1.0)
        if not self.normalize:
            return mean
        return mean / torch.clamp(torch.linalg.vector_norm(mean, dim=1, keepdim=True), min=1e-12)

    @staticmethod
    def example_inputs() -> tuple[Tensor, Tensor]:
        """Return inputs to export it with: two sentences of unlike length."""
        return torch.tensor([[1, 2, 3], [1, 2, 0]]), torch.tensor([[3], [2]], dtype=torch.int32)


def load(checkpoint: EncoderCheckpoint) -> DenseEncoder:
    """Return the encoder of `checkpoint`, ready to export. Raises SourceError where its architecture does not suit."""
    AttentionInterface.register(_ATTENTION, _attention)
    model = load_pretrained("AutoModel", checkpoint.path, attention=_ATTENTION, spare=POOLER)
    encoder = DenseEncoder(model, normalize=checkpoint.normalize).eval()
    with torch.no_grad():
        try:
            encoder(*encoder.example_inputs())
        except Exception as exc:  # whatever a model class that does not take these arguments raises
            raise SourceError(
                f"{checkpoint.path}: its architecture does not suit a sentence encoder's graph: {first_line(exc)}"
            ) from exc
    return encoder
