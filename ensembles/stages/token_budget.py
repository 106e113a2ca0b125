"""Token budget: the first guardrail. Refuses a request whose texts are longer than the operator allows, and says so.

It stands between tokenizer and model, so that what it refuses costs no inference. Truncation to the model's own
`max_seq_length` is not its business: a budget is about what a caller may send.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from ensembles.stages.base import Rejected, Tensor, Tensors, TensorSpec, positive_integer


class TokenBudget:
    """Passes `input_ids` and `token_count` on where every text of the request is within both limits."""

    inputs: ClassVar = (
        TensorSpec("input_ids", "TYPE_INT64", (-1,)),
        TensorSpec("token_count", "TYPE_INT32", (1,)),
        TensorSpec("total_token_count", "TYPE_INT32", (1,)),
        TensorSpec("character_count", "TYPE_INT32", (1,)),
    )
    outputs: ClassVar = (
        TensorSpec("input_ids", "TYPE_INT64", (-1,)),
        TensorSpec("token_count", "TYPE_INT32", (1,)),
    )

    def __init__(self, *, max_characters: int, max_tokens: int) -> None:
        self._max_characters = max_characters
        self._max_tokens = max_tokens

    @classmethod
    def create(cls, parameters: Mapping[str, str], folder: Path) -> Self:  # noqa: ARG003 - needs no file
        """Parameters: `max_characters` (default 131072) and `max_tokens` (default 32768), both of one text."""
        return cls(
            max_characters=positive_integer(parameters, "max_characters", 131_072),
            max_tokens=positive_integer(parameters, "max_tokens", 32_768),
        )

    def run(self, requests: Sequence[Tensors]) -> list[dict[str, Tensor] | Rejected]:
        """Pass each request on, or reject it with the first text that is over a limit."""
        return [self._check(request) for request in requests]

    def _check(self, request: Tensors) -> dict[str, Tensor] | Rejected:
        for name, limit, unit, parameter in (
            ("character_count", self._max_characters, "characters", "max_characters"),
            ("total_token_count", self._max_tokens, "tokens", "max_tokens"),
        ):
            counts = request[name].reshape(-1)
            if counts.size and int(counts.max()) > limit:
                over = int((counts > limit).argmax())
                return Rejected(
                    f"input budget: text {over} has {int(counts[over])} {unit}, the limit is {limit} ({parameter}); "
                    "send a shorter text or split it"
                )
        return {"input_ids": request["input_ids"], "token_count": request["token_count"]}
