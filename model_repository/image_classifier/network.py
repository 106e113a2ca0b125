"""The network of `image_classifier`: a ResNet-18 of half width, with weights from a seed and no training.

It exercises images: building, measuring and serving them. What it answers means nothing, but it is the same everywhere.
"""

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

CLASSES = 1000
EXAMPLES = 2
SIDE = 224
_SEED = 20_240_815


class Classifier(nn.Module):
    """`pixel_values` FP32 [B, 3, 224, 224], normalised as for ImageNet, to `logits` FP32 [B, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        config = ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 128, 256],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=CLASSES,
        )
        self.network = ResNetForImageClassification(config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network(pixel_values=pixel_values).logits
        return logits


def make() -> tuple[nn.Module, dict[str, Tensor], tuple[str, ...]]:
    """Return the network, example inputs by tensor name, and the names of its outputs."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.random.fork_rng(devices=()):  # transformers draws weights too; whoever calls keeps his own randomness
        network = Classifier()
    _fill(network, generator)
    return network.eval(), {"pixel_values": torch.randn(EXAMPLES, 3, SIDE, SIDE, generator=generator)}, ("logits",)


@torch.no_grad()
def _fill(network: nn.Module, generator: torch.Generator) -> None:
    """Give every layer weights from `generator`, in the order of the layers: none is left to a library's default.

    Normalisation layers get statistics as if trained: with means of 0 and variances of 1 they would do nothing, and a
    build that folds them wrongly would not be found out. The last layer's rows sum to 0, which takes out much of what
    all images have in common: two images' answers must differ by more than an artifact may.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.0, generator=generator)
            layer.bias.normal_(0.0, 0.1, generator=generator)
            for statistic, low, high in ((layer.running_mean, -0.2, 0.2), (layer.running_var, 0.8, 1.6)):
                if statistic is not None:
                    statistic.uniform_(low, high, generator=generator)
        if isinstance(layer, nn.Linear):
            layer.weight -= layer.weight.mean(1, keepdim=True)
