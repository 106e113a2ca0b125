"""A sequence classifier: logits of the checkpoint, for any batch and length, with labels beside the golden set."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from builders.errors import SourceError
from builders.forms import ExportRequest, Form
from builders.reference import Case, load_reference
from builders.sources.sequence_classifier import export_sequence_classifier
from tests.tiny_encoder import VOCABULARY, save_tiny_encoder

MAX_TOKENS = 16
GOLDEN = [("w1 w2", "w3", "bad"), ("w4", "w5 w6", "good"), ("w7 " * 40, "w8", "bad")]


def config() -> BertConfig:
    torch.manual_seed(3)
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=1.0,
        id2label={0: "good", 1: "bad", 2: "odd"},
        label2id={"good": 0, "bad": 1, "odd": 2},
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_encoder(tmp_path_factory.mktemp("checkpoint") / "tiny")
    BertForSequenceClassification(config()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def form(checkpoint: Path, out: Path) -> Form:
    golden = out / "golden.jsonl"
    lines = [json.dumps({"text": text, "text_pair": pair, "label": label}) for text, pair, label in GOLDEN]
    golden.write_text("\n".join(lines))
    (form,) = export_sequence_classifier(checkpoint, ExportRequest(out, golden, (), (1, 4), 4), out)
    return form


@pytest.fixture(scope="module")
def cases(form: Form, out: Path) -> tuple[Case, ...]:
    return load_reference(out / form.reference)


def test_the_graph_gives_the_checkpoints_logits(form: Form, out: Path, cases: tuple[Case, ...]) -> None:
    session = onnxruntime.InferenceSession(str(out / form.onnx), providers=["CPUExecutionProvider"])
    assert {case.inputs["input_ids"].shape for case in cases} >= {(1, 1), (1, MAX_TOKENS), (4, MAX_TOKENS)}
    for case in cases:
        logits = session.run(["logits"], dict(case.inputs))[0]
        assert logits.shape == (case.batch, 3)
        np.testing.assert_allclose(logits, case.outputs["logits"], atol=1e-4)


def test_the_reference_is_the_checkpoint_asked_directly(checkpoint: Path, cases: tuple[Case, ...]) -> None:
    model = BertForSequenceClassification.from_pretrained(checkpoint).eval()
    case = next(case for case in cases if case.kind == "golden")
    with torch.no_grad():
        logits = model(**{name: torch.from_numpy(value) for name, value in case.inputs.items()}).logits
    np.testing.assert_allclose(case.outputs["logits"], logits.numpy(), atol=1e-5)


def test_pairs_bring_token_types_and_labels_stay_with_their_texts(form: Form, cases: tuple[Case, ...]) -> None:
    assert [entry.name for entry in form.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {entry.max for entry in form.inputs} == {(4, MAX_TOKENS)}
    golden = next(case for case in cases if case.kind == "golden")
    assert golden.labels is not None
    # The tokenizer of the test marks the end of each text; only the first has two ids of "good".
    counts = golden.inputs["attention_mask"].sum(1).tolist()
    assert dict(zip(counts, golden.labels.tolist(), strict=True))[MAX_TOKENS] == 1
    assert golden.inputs["token_type_ids"].any()


def test_a_checkpoint_without_a_head_is_refused(tmp_path: Path) -> None:
    BertModel(config()).save_pretrained(tmp_path)
    message = "lacks 2 weights of AutoModelForSequenceClassification, such as classifier.bias"
    with pytest.raises(SourceError, match=message):
        export_sequence_classifier(tmp_path, ExportRequest(tmp_path, None, (), (1,), 4), tmp_path)


def test_a_label_that_is_no_class_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"text": "w1", "label": "ugly"}')
    with pytest.raises(SourceError, match="label 'ugly' is no class of the model; it has: good, bad, odd"):
        export_sequence_classifier(checkpoint, ExportRequest(tmp_path, golden, (), (1,), 4), tmp_path)
