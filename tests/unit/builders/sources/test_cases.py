"""Golden sets of texts: read, or refused with file and line."""

from pathlib import Path

import pytest

from builders.errors import SourceError
from builders.forms import ExportRequest
from builders.sources.cases import GoldenText, batch_sizes, class_numbers, read_golden_texts


def test_texts_pairs_and_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text('{"text": "a\u2028b", "label": 1}\n\n{"text": "c", "text_pair": "d", "label": "bad"}\n')
    assert read_golden_texts(path) == (GoldenText("a\u2028b", None, 1), GoldenText("c", "d", "bad"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"golden\.jsonl: it is empty; give it"),
        ('{"text": "a"}\n{', r"golden\.jsonl:2: not JSON"),
        ("[" * 100_000, r"golden\.jsonl:1: not JSON"),
        ('{"text": ' + "9" * 10_000 + "}", r"golden\.jsonl:1: not JSON"),
        ('["text"]', r"golden\.jsonl:1: expected a JSON object"),
        ('{"text": 3}', r'golden\.jsonl:1: expected a JSON object with "text"'),
        ('{"text": "a", "text_pair": 3}', r'golden\.jsonl:1: expected a JSON object with "text"'),
        ('{"text": "a", "label": true}', r"golden\.jsonl:1: label is True"),
        ('{"text": "a", "label": 0.5}', r"golden\.jsonl:1: label is 0\.5"),
    ],
)
def test_what_is_no_golden_set_is_told_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_golden_texts(path)


def test_labels_become_class_numbers_where_all_items_have_one() -> None:
    numbers = class_numbers([1, "bad", 0], {"good": 0, "bad": 1}, None)
    assert numbers is not None
    assert numbers.tolist() == [1, 1, 0]
    assert class_numbers([1, None], {}, None) is None
    assert class_numbers([], {}, None) is None
    with pytest.raises(SourceError, match="label 'odd' is no class of the model; it has: good, bad"):
        class_numbers(["odd"], {"good": 0, "bad": 1}, None)


@pytest.mark.parametrize(("largest", "sizes"), [(32, (1, 8, 32)), (16, (1, 8, 16)), (0, (1,))])
def test_batches_are_measured_as_far_as_the_model_takes_them(
    tmp_path: Path, largest: int, sizes: tuple[int, ...]
) -> None:
    assert batch_sizes(ExportRequest(tmp_path, None, (), (1, 8, 32), largest)) == sizes
