"""Calls of text models: every golden text once, the ends of the ranges, and measured batches like the golden set."""

from pathlib import Path

import pytest

from builders.errors import SourceError
from builders.sources.cases import GoldenText
from builders.sources.texts import Row, TextLimits, pad, text_calls, tokenize, usual_shape

LIMITS = TextLimits(max_tokens=50, max_batch=8, vocabulary=100)
GOLDEN = [Row((length,) * length, (0,) * length) for length in range(1, 22)]


def test_every_golden_text_is_asked_once_in_batches_that_the_model_takes() -> None:
    calls = [call for call in text_calls(GOLDEN, LIMITS, (1,)) if call.kind == "golden"]
    assert sorted(index for call in calls for index in call.golden) == list(range(len(GOLDEN)))
    assert all(call.rows == tuple(GOLDEN[index] for index in call.golden) for call in calls)
    assert {len(call.rows) for call in calls} == {8, 5}
    assert all(len({len(row) for row in call.rows}) > 1 for call in calls), "a batch of one length"


def test_measured_batches_are_spread_as_the_golden_set_is() -> None:
    calls = {len(call.rows): call for call in text_calls(GOLDEN, LIMITS, (1, 3, 8)) if call.kind == "measure"}
    assert [len(row) for row in calls[1].rows] == [11]
    assert sorted(len(row) for row in calls[3].rows) == [4, 11, 18]
    assert usual_shape(list(calls.values()), LIMITS) == (8, 16)


def test_calls_are_the_same_each_time_and_within_the_limits() -> None:
    calls = list(text_calls(GOLDEN, LIMITS, (1, 8)))
    assert calls == list(text_calls(GOLDEN, LIMITS, (1, 8)))
    for call in calls:
        assert 1 <= len(call.rows) <= LIMITS.max_batch
        assert all(1 <= len(row) <= LIMITS.max_tokens and max(row.ids) < LIMITS.vocabulary for row in call.rows)


def test_without_a_golden_set_measured_texts_are_random() -> None:
    calls = list(text_calls((), TextLimits(1, 1, 5), (1,)))
    assert [call.kind for call in calls] == ["random"] * 3 + ["range_end"] * 3 + ["measure"]


def test_every_calibration_text_is_asked_once_and_nothing_else_changes() -> None:
    calls = list(text_calls((), LIMITS, (1,), GOLDEN))
    asked = [call for call in calls if call.kind == "calibration"]
    assert sorted(len(row) for call in asked for row in call.rows) == list(range(1, 22))
    assert {len(call.rows) for call in asked} == {8, 5}
    assert not any(call.golden for call in calls)
    assert {call.name for call in calls if call.kind != "calibration"} == {c.name for c in text_calls((), LIMITS, (1,))}


def test_rows_are_padded_to_the_longest() -> None:
    assert pad([(1, 2), (3,)], padding=9).tolist() == [[1, 2], [3, 9]]


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(SourceError, match=r"tokenizer\.json: no such file"):
        tokenize(path, [GoldenText("a")], 8)
    path.write_text("{}")
    with pytest.raises(SourceError, match="cannot tokenise the package's texts"):
        tokenize(path, [GoldenText("a")], 8)
