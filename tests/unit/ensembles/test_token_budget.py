"""The budget guard: what is within both limits passes untouched, what is not is refused with the text that is over."""

from pathlib import Path

import numpy as np
import pytest

from ensembles.stages.base import Rejected, StageConfigError, Tensor, column
from ensembles.stages.token_budget import TokenBudget


def request(characters: list[int], tokens: list[int]) -> dict[str, Tensor]:
    return {
        "input_ids": np.arange(2 * len(tokens), dtype=np.int64).reshape(-1, 2),
        "token_count": column([2] * len(tokens)),
        "total_token_count": column(tokens),
        "character_count": column(characters),
    }


def test_within_both_limits_passes_untouched() -> None:
    sent = request([10, 5], [4, 3])
    (result,) = TokenBudget(max_characters=10, max_tokens=4).run([sent])
    assert not isinstance(result, Rejected)
    assert result["input_ids"] is sent["input_ids"]
    assert result["token_count"] is sent["token_count"]


@pytest.mark.parametrize(
    ("characters", "tokens", "said"),
    [
        ([3, 11], [2, 2], "text 1 has 11 characters, the limit is 10 (max_characters)"),
        ([3, 4], [5, 2], "text 0 has 5 tokens, the limit is 4 (max_tokens)"),
        ([11, 4], [5, 2], "text 0 has 11 characters"),
    ],
)
def test_above_a_limit_is_refused_alone(characters: list[int], tokens: list[int], said: str) -> None:
    refused, passed = TokenBudget(max_characters=10, max_tokens=4).run([request(characters, tokens), request([1], [3])])
    assert isinstance(refused, Rejected)
    assert said in refused.reason
    assert not isinstance(passed, Rejected)


def test_parameters() -> None:
    folder = Path()
    (result,) = TokenBudget.create({"max_tokens": "3"}, folder).run([request([1], [4])])
    assert isinstance(result, Rejected)
    with pytest.raises(StageConfigError, match="max_tokens is 'many'; expected an integer above 0"):
        TokenBudget.create({"max_tokens": "many"}, folder)
