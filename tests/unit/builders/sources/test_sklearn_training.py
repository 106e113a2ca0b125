"""A head trained while building: the graph answers as scikit-learn does; a script's faults are told with its line."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.errors import SourceError
from builders.forms import ExportRequest, Form
from builders.parity import compare, onnx_runner
from builders.reference import load_reference
from builders.sources.sklearn_training import EMBEDDING, LABEL, PROBABILITY, embed_texts, export_sklearn_training
from builders.spec import Tolerance
from tests.tiny_encoder import DIMENSION, save_tiny_encoder

SCRIPT = """
import json
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Result:
    estimator: object
    threshold: object
    held_out_embeddings: object
    held_out_labels: object
    evaluation: dict


def train(dataset, embed):
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    vectors = embed([row["text"] for row in rows])
    labels = np.array([row["label"] for row in rows])
    fitted = LogisticRegression().fit(vectors[::2], labels[::2])
    return Result(fitted, 0.45, vectors[1::2], labels[1::2], {"rows": len(rows)})


def three_classes(dataset, embed):
    done = train(dataset, embed)
    done.estimator.classes_ = np.array([0, 1, 2])
    return done


def no_threshold(dataset, embed):
    done = train(dataset, embed)
    return Result(done.estimator, 0.0, done.held_out_embeddings, done.held_out_labels, {})


def wide(dataset, embed):
    done = train(dataset, embed)
    return Result(done.estimator, 0.5, done.held_out_embeddings.astype("float64"), done.held_out_labels, {})


def unlike(dataset, embed):
    return LogisticRegression()


def fails(dataset, embed):
    return 1 / 0
"""
FAILS_AT = 1 + SCRIPT.splitlines().index("    return 1 / 0")
ROWS = [{"text": f"w{number % 50} w{number % 7}", "label": number // 2 % 2} for number in range(60)]
MAX_BATCH_SIZE = 8


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    save_tiny_encoder(folder / "encoder")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "dataset.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return folder


@pytest.fixture(scope="module")
def exported(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    (form,) = _export(package, out, "train")
    assert [(entry.name, entry.min, entry.opt, entry.max) for entry in form.inputs] == [
        (EMBEDDING, (1, DIMENSION), (4, DIMENSION), (MAX_BATCH_SIZE, DIMENSION))
    ]
    return out


def _export(package: Path, out: Path, function: str, script: str = "train.py") -> tuple[Form, ...]:
    request = ExportRequest(package, None, (), (1, 4), MAX_BATCH_SIZE)
    return export_sklearn_training(
        package / script, function, package / "dataset.jsonl", package / "encoder", request, out
    )


def test_the_graph_gives_scikit_learns_answers(exported: Path) -> None:
    cases = load_reference(exported / "model.npz")
    parity, problems = compare(
        onnx_runner(exported / "model.onnx", threads=1), cases, Tolerance(max_abs_error=1e-6, min_top1=1.0)
    )
    assert problems == ()
    assert set(parity.outputs) == {PROBABILITY, LABEL}
    assert parity.score is not None
    assert parity.score == parity.source_score


def test_the_graph_needs_standard_operators_only(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    assert model.ir_version <= 10
    assert [(entry.domain, entry.version <= 18) for entry in model.opset_import] == [("", True)]
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        EMBEDDING: (onnx.TensorProto.FLOAT, ["batch", DIMENSION]),
        PROBABILITY: (onnx.TensorProto.FLOAT, ["batch", 1]),
        LABEL: (onnx.TensorProto.INT64, ["batch", 1]),
    }


def test_the_reference_set_has_held_out_rows_random_rows_and_ends(exported: Path) -> None:
    cases = load_reference(exported / "model.npz")
    golden = [case for case in cases if case.kind == "golden"]
    assert sum(case.batch for case in golden) == len(ROWS) // 2
    labels = np.concatenate([case.labels for case in golden if case.labels is not None])
    assert labels.tolist() == [row["label"] for row in ROWS[1::2]]
    assert sorted(case.batch for case in cases if case.kind == "range_end") == [1, MAX_BATCH_SIZE]
    assert [case.batch for case in cases if case.kind == "measure"] == [1, 4]
    for case in cases:
        assert np.allclose(np.linalg.norm(case.inputs[EMBEDDING], axis=1), 1.0, atol=1e-5)
        # The threshold is the script's, not one half.
        assert np.array_equal(case.outputs[LABEL], (case.outputs[PROBABILITY] >= np.float32(0.45)).astype(np.int64))
    assert {case.kind for case in cases} == {"golden", "random", "range_end", "measure"}


def test_the_scripts_evaluation_is_kept(exported: Path) -> None:
    assert json.loads((exported / "evaluation.json").read_text()) == {"rows": len(ROWS)}


def test_training_again_gives_the_same_bytes(package: Path, exported: Path, tmp_path: Path) -> None:
    _export(package, tmp_path, "train")
    assert (tmp_path / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()


def test_embeddings_do_not_depend_on_the_texts_beside_them(package: Path) -> None:
    texts = ["w1", "w2 w3 w4 w5 w6 w7", "w8 w9"]
    together = embed_texts(package / "encoder", texts)
    alone = np.concatenate([embed_texts(package / "encoder", [text]) for text in texts])
    assert together.dtype == np.float32
    assert np.allclose(together, alone, atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("fails", rf"train\.py:{FAILS_AT}: ZeroDivisionError: division by zero"),
        ("absent", r"train\.py: no function 'absent'"),
        ("unlike", "what unlike returns has no estimator, threshold, held_out_embeddings"),
        ("three_classes", "holds no fitted classifier of the classes 0 and 1"),
        ("no_threshold", "has the threshold 0.0; expected a probability between 0 and 1"),
        ("wide", r"holds held-out rows float64 \(30, 32\)"),
    ],
)
def test_what_a_script_does_wrong_is_told(package: Path, tmp_path: Path, function: str, said: str) -> None:
    before = set(sys.modules)
    with pytest.raises(SourceError, match=said):
        _export(package, tmp_path, function)
    assert not [name for name in set(sys.modules) - before if "training_script" in name]
    assert not list(package.rglob("__pycache__"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import json\ndef train(:\n", r"broken\.py:2: SyntaxError: invalid syntax"),
        ("\n\nimport a_module_that_nobody_has\n", r"broken\.py:3: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", r"broken\.py:1: SystemExit: 3"),
    ],
)
def test_a_script_that_does_not_load_is_told_with_its_line(package: Path, tmp_path: Path, text: str, said: str) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(text)
    with pytest.raises(SourceError, match=said):
        _export(package, tmp_path, "train", str(broken))
