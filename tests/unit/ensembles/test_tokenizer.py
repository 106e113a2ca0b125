"""The tokenizer stage against the tokenizers library used plainly, on a small vocabulary made here."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from ensembles.stages.base import Rejected, StageConfigError, Tensor
from ensembles.stages.tokenizer import Tokenizer

WORDS = ["a", "bb", "ccc"]


def rust_tokenizer() -> RustTokenizer:
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = RustTokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - not a password
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    # As saved by its authors: padding and truncation that are not the model's.
    tokenizer.enable_padding(length=7)
    tokenizer.enable_truncation(5)
    return tokenizer


def stage(max_seq_length: int = 6, max_characters: int = 100) -> Tokenizer:
    return Tokenizer(rust_tokenizer(), max_seq_length=max_seq_length, max_tokenized_characters=max_characters)


def texts(*values: str | bytes) -> dict[str, Tensor]:
    raw = [value if isinstance(value, bytes) else value.encode() for value in values]
    return {"text": np.array(raw, dtype=object).reshape(-1, 1)}


def accepted(result: dict[str, Tensor] | Rejected) -> dict[str, Tensor]:
    assert not isinstance(result, Rejected)
    return result


def test_each_request_keeps_its_own_width() -> None:
    short, long = map(accepted, stage().run([texts("a"), texts("a bb", "a bb ccc")]))
    assert short["input_ids"].tolist() == [[2, 4, 3]]
    assert long["input_ids"].tolist() == [[2, 4, 5, 3, 0], [2, 4, 5, 6, 3]]
    assert long["token_count"].tolist() == [[4], [5]]
    assert {tensor.dtype.name for tensor in long.values()} == {"int64", "int32"}


def test_truncates_to_the_models_limit_and_counts_the_rest() -> None:
    (result,) = map(accepted, stage(max_seq_length=4).run([texts("a a a a a")]))
    assert result["input_ids"].tolist() == [[2, 4, 4, 3]]
    assert (result["token_count"].item(), result["total_token_count"].item()) == (4, 7)


def test_a_text_that_is_not_utf8_is_rejected_alone() -> None:
    first, second = stage().run([texts("a", b"\xff\xfe"), texts("bb")])
    assert isinstance(first, Rejected)
    assert "text 1 is not UTF-8" in first.reason
    assert accepted(second)["input_ids"].tolist() == [[2, 5, 3]]


def test_work_for_one_text_is_bounded() -> None:
    (result,) = map(accepted, stage(max_characters=4).run([texts("a a a a a a")]))
    assert result["character_count"].item() == 11
    assert result["total_token_count"].item() == 4


@given(
    st.lists(st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), min_size=1, max_size=3), max_size=4)
)
def test_a_batch_gives_what_each_text_gives_alone(batch: list[list[str]]) -> None:
    together = stage().run([texts(*request) for request in batch])
    for request, result in zip(batch, map(accepted, together), strict=True):
        for row, text in enumerate(request):
            (alone,) = map(accepted, stage().run([texts(text)]))
            count = alone["token_count"].item()
            assert result["token_count"][row].item() == count
            assert result["input_ids"][row, :count].tolist() == alone["input_ids"][0].tolist()
            assert not result["input_ids"][row, count:].any()
            assert result["total_token_count"][row].item() == len(text.split()) + 2


def test_reads_the_versions_tokenizer_and_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StageConfigError, match=r"sentence_bert_config\.json of this version has no max_seq_length"):
        Tokenizer.create({}, tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    with pytest.raises(StageConfigError, match=r"tokenizer\.json of this version cannot be read"):
        Tokenizer.create({}, tmp_path)
    with pytest.raises(StageConfigError, match="max_seq_length is 8; the model's own limit is 4"):
        Tokenizer.create({"max_seq_length": "8"}, tmp_path)
    rust_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(StageConfigError, match="max_tokenized_characters is '-1'"):
        Tokenizer.create({"max_tokenized_characters": "-1"}, tmp_path)
    made = Tokenizer.create({}, tmp_path)
    assert accepted(made.run([texts("a a a a")])[0])["input_ids"].tolist() == [[2, 4, 4, 3]]
