"""Batching choice 4: texts batched before the encoder, tokenizer and ONNX Runtime together in one Python model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import onnxruntime

from ensembles.stages.base import Rejected, Tensor, Tensors, TensorSpec
from ensembles.stages.tokenizer import Tokenizer


class Embedder:
    """`text` BYTES [B, 1] to `embedding` FP32 [B, 384]: a padded batch through the plain graph."""

    inputs: ClassVar = (TensorSpec("text", "TYPE_STRING", (1,)),)
    outputs: ClassVar = (TensorSpec("embedding", "TYPE_FP32", (384,)),)

    def __init__(self, tokenizer: Tokenizer, session: onnxruntime.InferenceSession) -> None:
        self._tokenizer = tokenizer
        self._session = session

    @classmethod
    def create(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read `tokenizer.json` and `model.onnx` of the version."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_thread_count"])
        return cls(
            Tokenizer.create(parameters, folder), onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        )

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, Tensor] | Rejected]:
        """Embed every text of the batch in one session call."""
        sizes = [len(request["text"]) for request in requests]
        (tokens,) = self._tokenizer.run([{"text": np.concatenate([request["text"] for request in requests])}])
        if isinstance(tokens, Rejected):
            return [tokens for _ in requests]
        ids = tokens["input_ids"]
        mask = (np.arange(ids.shape[1]) < tokens["token_count"]).astype(np.int64)
        embeddings = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        parts = np.split(embeddings, np.cumsum(sizes)[:-1])
        return [{"embedding": np.ascontiguousarray(part)} for part in parts]
