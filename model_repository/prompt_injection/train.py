"""Trains the head of `prompt_injection` on embeddings of `dataset.jsonl`, and says how good it is on what it never saw.

`tritonfleet build` calls `train` with the sentence encoder's `embed`, and exports what comes back. Whole families of
attacks and of harmless texts are held out, and one source pattern of each other family: the same trick in other words
is not in both parts. Everything that is chosen (regularisation, threshold) is chosen on the training part alone.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
Figures = dict[str, Any]

SEED = 20_240_815
HELD_OUT_FAMILIES = frozenset(
    {
        "assistant_questions",
        "code_comment",
        "emotional_pressure",
        "quoted_attack",
        "system_admin",
        "translation_smuggling",
    }
)
"""Never trained on: three families of attacks, three of harmless texts (two of them hard negatives)."""
REGULARISATION = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Values of scikit-learn's `C` to choose from, strongest first."""
THRESHOLDS = np.round(np.arange(0.05, 0.951, 0.01), 2)
MOST_FALSE_ALARMS = 0.1
"""Share of harmless training examples, most of them hard negatives, that may be flagged out of fold."""
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the dataset. `label` is 1 for an attack; `pattern` names the trick that the text was written after."""

    text: str
    label: int
    family: str
    pattern: str
    language: str


@dataclass(frozen=True, slots=True)
class Trained:
    """What `tritonfleet build` exports: attack where the estimator's probability of class 1 is `threshold` or more."""

    estimator: LogisticRegression
    threshold: float
    held_out_embeddings: npt.NDArray[np.float32]
    held_out_labels: npt.NDArray[np.int64]
    evaluation: Figures


def train(dataset: Path, embed: Embed) -> Trained:
    """Return the head trained on the training part of `dataset`, with its figures on the held-out part.

    `embed` turns N texts into FP32 [N, D] of norm 1. The same embeddings give the same head.
    """
    examples = read_examples(dataset)
    held_out = is_held_out(examples)
    embeddings = embed([example.text for example in examples])
    labels = np.asarray([example.label for example in examples], dtype=np.int64)
    groups = np.asarray([f"{example.family}/{example.pattern}" for example in examples])

    known = ~held_out
    strength, out_of_fold = _choose(embeddings[known], labels[known], groups[known])
    threshold = _threshold(labels[known], out_of_fold)
    estimator = _head(strength).fit(embeddings[known], labels[known])
    probability = _attack(estimator, embeddings[held_out])
    evaluation: Figures = {
        "dataset": _counts(examples, held_out),
        "chosen_on_training": {
            "regularisation": strength,
            "threshold": threshold,
            "out_of_fold": _figures(labels[known], out_of_fold, threshold),
        },
        **_evaluate([example for example, out in zip(examples, held_out, strict=True) if out], probability, threshold),
    }
    return Trained(estimator, threshold, embeddings[held_out], labels[held_out], evaluation)


def read_examples(dataset: Path) -> list[Example]:
    """Return the rows of `dataset` (JSON lines), in order."""
    return [Example(**json.loads(line)) for line in dataset.read_text(encoding="utf-8").split("\n") if line]


def is_held_out(examples: Sequence[Example]) -> npt.NDArray[np.bool_]:
    """Return which examples are never trained on: held-out families, and of the others the last pattern by name."""
    last: dict[str, str] = {}
    for example in examples:
        last[example.family] = max(last.get(example.family, ""), example.pattern)
    return np.asarray(
        [example.family in HELD_OUT_FAMILIES or example.pattern == last[example.family] for example in examples]
    )


def _head(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000, random_state=SEED)


def _attack(estimator: LogisticRegression, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    probability: npt.NDArray[np.float64] = estimator.predict_proba(embeddings)[:, 1]
    return probability


def _choose(
    embeddings: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], groups: npt.NDArray[np.str_]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the regularisation of highest out-of-fold ROC AUC, the strongest of equals, and those probabilities.

    A fold keeps every pattern whole, so that it asks what the held-out part asks: a trick that was not trained on.
    """
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED).split(embeddings, labels, groups))
    best: tuple[float, float, npt.NDArray[np.float64]] | None = None
    for strength in REGULARISATION:
        out_of_fold = np.empty(len(labels))
        for known, asked in folds:
            out_of_fold[asked] = _attack(_head(strength).fit(embeddings[known], labels[known]), embeddings[asked])
        area = round(float(roc_auc_score(labels, out_of_fold)), 3)  # rounded: another CPU's last digit decides nothing
        if best is None or area > best[0]:
            best = (area, strength, out_of_fold)
    assert best is not None, "there is a value to choose"  # noqa: S101 - for the type checker
    return best[1], best[2]


def _threshold(labels: npt.NDArray[np.int64], probability: npt.NDArray[np.float64]) -> float:
    """Return the lowest threshold that flags at most `MOST_FALSE_ALARMS` of the harmless examples."""
    harmless = probability[labels == 0]
    allowed = [float(value) for value in THRESHOLDS if (harmless >= value).mean() <= MOST_FALSE_ALARMS]
    return min(allowed, default=float(THRESHOLDS[-1]))


def _figures(labels: npt.NDArray[np.int64], probability: npt.NDArray[np.float64], threshold: float) -> Figures:
    """Return counts and figures; None for a figure that these examples do not define (one class, nothing flagged)."""
    flagged = probability >= threshold
    attacks = int(labels.sum())
    return {
        "examples": len(labels),
        "attacks": attacks,
        "precision": _rounded(precision_score(labels, flagged)) if flagged.any() else None,
        "recall": _rounded(recall_score(labels, flagged)) if attacks else None,
        "false_alarms": _rounded(flagged[labels == 0].mean()) if attacks < len(labels) else None,
        "roc_auc": _rounded(roc_auc_score(labels, probability)) if 0 < attacks < len(labels) else None,
    }


def _evaluate(examples: Sequence[Example], probability: npt.NDArray[np.float64], threshold: float) -> Figures:
    """Return the figures of the held-out part: all of it, new families, new patterns, each language, each family."""
    labels = np.asarray([example.label for example in examples], dtype=np.int64)
    new_family = np.asarray([example.family in HELD_OUT_FAMILIES for example in examples])
    languages = np.asarray([example.language for example in examples])
    families = np.asarray([example.family for example in examples])

    def part(chosen: npt.NDArray[np.bool_]) -> Figures:
        return _figures(labels[chosen], probability[chosen], threshold)

    flagged = probability >= threshold
    return {
        "held_out": part(np.ones(len(labels), dtype=bool)),
        "held_out_new_families": part(new_family),
        "held_out_new_patterns": part(~new_family),
        "by_language": {language: part(languages == language) for language in sorted(set(languages.tolist()))},
        "by_family": {
            family: {
                "label": int(labels[families == family][0]),
                "new_family": family in HELD_OUT_FAMILIES,
                "examples": int((families == family).sum()),
                "flagged": _rounded(flagged[families == family].mean()),
            }
            for family in sorted(set(families.tolist()))
        },
    }


def _counts(examples: Sequence[Example], held_out: npt.NDArray[np.bool_]) -> Figures:
    """Return how many examples there are, [attacks, harmless], by part and by language."""

    def both(chosen: Sequence[Example]) -> list[int]:
        attacks = sum(example.label for example in chosen)
        return [attacks, len(chosen) - attacks]

    return {
        "all": both(examples),
        "training": both([example for example, out in zip(examples, held_out, strict=True) if not out]),
        "held_out": both([example for example, out in zip(examples, held_out, strict=True) if out]),
        "families": len({example.family for example in examples}),
        "patterns": len({(example.family, example.pattern) for example in examples}),
        "languages": {
            language: both([example for example in examples if example.language == language])
            for language in sorted({example.language for example in examples})
        },
    }


def _rounded(value: float) -> float:
    return round(float(value), 4)
