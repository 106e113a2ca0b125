"""Batching choice 1: every text padded to the model's longest, so that all requests have one shape."""

from collections.abc import Sequence

import numpy as np

from ensembles.stages.base import Rejected, Tensor, Tensors
from ensembles.stages.tokenizer import Tokenizer

WIDTH = 256


class FixedLengthTokenizer(Tokenizer):
    """The tokenizer stage, with `input_ids` always WIDTH wide."""

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, Tensor] | Rejected]:
        """Encode, then pad."""
        results = super().run(requests)
        for result in results:
            if not isinstance(result, Rejected):
                ids = result["input_ids"]
                result["input_ids"] = np.pad(ids, ((0, 0), (0, WIDTH - ids.shape[1])))
        return results
