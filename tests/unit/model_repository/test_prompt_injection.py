"""The package `prompt_injection`: what its dataset holds, that its split leaks nothing, that its figures are true."""

import json
import random
import re
import runpy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from builders.sources.distribution import locate
from builders.sources.sklearn_training import Trained, embed_texts
from builders.spec import SklearnTrainingSource, read_spec

PACKAGE = Path(__file__).parents[3] / "model_repository" / "prompt_injection"
DATASET = PACKAGE / "dataset.jsonl"
ROWS = [json.loads(line) for line in DATASET.read_text(encoding="utf-8").split("\n") if line]
LANGUAGES = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "zh"]
# The encoder reads these in single characters or not at all, so that any two texts of them look alike to it.
HARDLY_READ = ("ar", "hi", "ja", "ko", "zh")

Embeddings = npt.NDArray[np.float32]
script = runpy.run_path(str(PACKAGE / "train.py"))
EXAMPLES = script["read_examples"](DATASET)
HELD_OUT: npt.NDArray[np.bool_] = script["is_held_out"](EXAMPLES)


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    """All texts through the real encoder: the one slow step, done once."""
    source = read_spec(PACKAGE).source
    assert isinstance(source, SklearnTrainingSource)
    return embed_texts(locate(source.encoder, PACKAGE), [row["text"] for row in ROWS])


@pytest.fixture(scope="module")
def trained(embeddings: Embeddings) -> Trained:
    result: Trained = script["train"](DATASET, lambda _texts: embeddings)
    return result


def test_every_row_says_what_it_is() -> None:
    assert len(ROWS) >= 600
    for row in ROWS:
        assert list(row) == ["text", "label", "family", "pattern", "language"]
        assert row["label"] in {0, 1}
        assert re.fullmatch(r"[a-z0-9_]+", row["family"])
        assert re.fullmatch(r"[a-z0-9_]+", row["pattern"])
        assert row["text"] == row["text"].strip()
        assert 5 <= len(row["text"]) <= 300
    assert len({" ".join(row["text"].casefold().split()) for row in ROWS}) == len(ROWS)


def test_labels_and_languages_are_balanced() -> None:
    attacks = Counter(row["language"] for row in ROWS if row["label"])
    harmless = Counter(row["language"] for row in ROWS if not row["label"])
    assert 0.4 <= attacks.total() / len(ROWS) <= 0.6
    assert sorted(attacks) == sorted(harmless) == LANGUAGES
    for language in LANGUAGES:
        assert attacks[language] >= 9, language
        # The language must not give the label away.
        assert 0.3 <= attacks[language] / (attacks[language] + harmless[language]) <= 0.6, language


def test_a_family_has_one_label_and_several_patterns() -> None:
    for family in {row["family"] for row in ROWS}:
        rows = [row for row in ROWS if row["family"] == family]
        assert len({row["label"] for row in rows}) == 1, family
        assert len({row["pattern"] for row in rows}) >= 2, family
        assert len(rows) >= 20, family
    assert len({row["family"] for row in ROWS if row["label"]}) >= 12


def test_the_split_keeps_families_and_patterns_apart() -> None:
    held_out = [row for row, out in zip(ROWS, HELD_OUT, strict=True) if out]
    training = [row for row, out in zip(ROWS, HELD_OUT, strict=True) if not out]
    assert not {(row["family"], row["pattern"]) for row in held_out} & {
        (row["family"], row["pattern"]) for row in training
    }
    new = script["HELD_OUT_FAMILIES"]
    assert new <= {row["family"] for row in held_out}
    assert not new & {row["family"] for row in training}
    assert {row["family"] for row in held_out} == {row["family"] for row in ROWS}, "every family is judged"
    assert {row["label"] for row in held_out if row["family"] in new} == {0, 1}
    assert {row["language"] for row in held_out if row["label"]} == set(LANGUAGES)
    assert 0.25 <= len(held_out) / len(ROWS) <= 0.45


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    order = list(range(len(EXAMPLES)))
    random.Random(3).shuffle(order)
    again = script["is_held_out"]([EXAMPLES[place] for place in order])
    assert [bool(HELD_OUT[place]) for place in order] == again.tolist()


def test_no_near_duplicates_by_characters() -> None:
    overlap = _overlaps([row["text"] for row in ROWS])
    across = overlap[np.ix_(HELD_OUT, ~HELD_OUT)]
    assert across.max() < 0.4, _pair(across)
    assert overlap.max() < 0.6, "two rows are one text in two shapes"


def test_a_near_duplicate_would_be_seen() -> None:
    text = ROWS[0]["text"]
    overlap = _overlaps([text, text.replace("previous", "earlier"), ROWS[1]["text"]])
    assert overlap[0, 1] > 0.6
    assert overlap[0, 2] < 0.4


def test_no_near_duplicates_by_meaning_across_the_split(embeddings: Embeddings) -> None:
    cosine = embeddings @ embeddings.T
    across = cosine[np.ix_(HELD_OUT, ~HELD_OUT)]
    assert across.max() < 0.95, _pair(across)
    read = np.asarray([row["language"] not in HARDLY_READ for row in ROWS])
    across = np.where(np.outer(read[HELD_OUT], read[~HELD_OUT]), across, 0.0)
    assert across.max() < 0.85, _pair(across)


def test_the_committed_figures_are_those_of_a_new_training(trained: Trained) -> None:
    stated = json.loads((PACKAGE / "evaluation.json").read_text(encoding="utf-8"))
    found = trained.evaluation
    assert stated.keys() == found.keys()
    assert stated["dataset"] == found["dataset"]
    chosen = ("regularisation", "threshold")
    assert [stated["chosen_on_training"][name] for name in chosen] == [
        found["chosen_on_training"][name] for name in chosen
    ]
    for part in ("held_out", "held_out_new_families", "held_out_new_patterns"):
        assert stated[part] == pytest.approx(found[part], abs=0.02), part
    for part in ("by_language", "by_family"):
        assert stated[part].keys() == found[part].keys()
        for name, figures in stated[part].items():
            # Another CPU's rounding may move one text over the threshold.
            assert figures == pytest.approx(found[part][name], abs=1.01 / max(figures.get("attacks", 8), 3)), name


def test_the_figures_are_better_than_chance_and_not_too_good(trained: Trained) -> None:
    area = trained.evaluation["held_out"]["roc_auc"]
    assert 0.65 < area < 0.9, "far above what a linear head on this encoder can know: look for a leak"


def test_nothing_is_chosen_on_the_held_out_part(tmp_path: Path) -> None:
    rows = ROWS[::6]
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((len(rows), 12)).astype(np.float32)
    out = script["is_held_out"]([script["Example"](**row) for row in rows])
    heads = []
    for turned in (False, True):
        written = [
            {**row, "label": 1 - row["label"] if turned and held else row["label"]}
            for row, held in zip(rows, out, strict=True)
        ]
        path = tmp_path / f"{turned}.jsonl"
        path.write_text("\n".join(map(json.dumps, written)), encoding="utf-8")
        moved = vectors + (5.0 * out[:, None] if turned else 0.0)
        heads.append(script["train"](path, lambda _texts, moved=moved: moved.astype(np.float32)))
    first, second = heads
    assert first.threshold == second.threshold
    assert np.array_equal(first.estimator.coef_, second.estimator.coef_)
    assert first.evaluation["held_out"] != second.evaluation["held_out"]


def test_the_model_card_states_the_figures() -> None:
    card = (PACKAGE / "MODEL_CARD.md").read_text(encoding="utf-8")
    stated = json.loads((PACKAGE / "evaluation.json").read_text(encoding="utf-8"))
    rows = {line.split("|")[1].strip(): line for line in card.splitlines() if line.startswith("|")}
    parts = {
        "All held out": stated["held_out"],
        "New families": stated["held_out_new_families"],
        "New patterns": stated["held_out_new_patterns"],
        **stated["by_language"],
    }
    for name, figures in parts.items():
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")[1:]]
        names = ("examples", "attacks", "precision", "recall", "false_alarms", "roc_auc")
        assert cells == [_cell(figures[key]) for key in names], name
    for family, figures in stated["by_family"].items():
        assert _cell(figures["flagged"]) in rows[family], family
    assert f"{stated['chosen_on_training']['threshold']}" in card
    assert "a seed, not as a product's filter" in card


def _cell(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"


def _overlaps(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Jaccard overlap of character 4-grams of every two texts [N, N], 0 on the diagonal."""
    grams = [_grams(text) for text in texts]
    number = {gram: place for place, gram in enumerate(sorted(set().union(*grams)))}
    present = np.zeros((len(texts), len(number)), dtype=np.float32)
    for row, own in zip(present, grams, strict=True):
        row[[number[gram] for gram in own]] = 1.0
    shared = present @ present.T
    sizes = present.sum(1)
    overlap: npt.NDArray[np.float32] = shared / (sizes[:, None] + sizes[None, :] - shared)
    np.fill_diagonal(overlap, 0.0)
    return overlap


def _grams(text: str) -> set[str]:
    plain = " ".join(text.casefold().split())
    return {plain[start : start + 4] for start in range(max(1, len(plain) - 3))}


def _pair(across: npt.NDArray[Any]) -> str:
    held, known = np.unravel_index(int(across.argmax()), across.shape)
    first = [row for row, out in zip(ROWS, HELD_OUT, strict=True) if out][held]
    second = [row for row, out in zip(ROWS, HELD_OUT, strict=True) if not out][known]
    return f"{first['text']!r} and {second['text']!r}"
