"""An image classifier: logits of the checkpoint, of the size that its preprocessor says."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification

from builders.errors import SourceError
from builders.forms import ExportRequest, Form
from builders.reference import load_reference
from builders.sources.image_classifier import export_image_classifier


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=5)
    ResNetForImageClassification(config).save_pretrained(folder)
    preprocessor = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 12}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def form(checkpoint: Path, out: Path) -> Form:
    golden = out / "golden.npz"
    images = np.random.default_rng(1).standard_normal((6, 3, 16, 12), dtype=np.float32)
    with golden.open("wb") as stream:
        np.savez(stream, pixel_values=images, labels=np.asarray([0, 1, 2, 3, 4, 0]))
    (form,) = export_image_classifier(checkpoint, ExportRequest(out, golden, (), (1, 4), 4), out)
    return form


def test_the_graph_gives_the_checkpoints_logits(form: Form, out: Path) -> None:
    session = onnxruntime.InferenceSession(str(out / form.onnx), providers=["CPUExecutionProvider"])
    cases = load_reference(out / form.reference)
    assert {case.inputs["pixel_values"].shape for case in cases} >= {(1, 3, 16, 12), (4, 3, 16, 12)}
    for case in cases:
        logits = session.run(["logits"], dict(case.inputs))[0]
        assert logits.shape == (case.batch, 5)
        np.testing.assert_allclose(logits, case.outputs["logits"], atol=1e-4)
    labels = [case.labels.tolist() for case in cases if case.labels is not None]
    assert labels == [[0, 1, 2, 3], [4, 0]]


def test_only_the_batch_varies(form: Form) -> None:
    (pixels,) = form.inputs
    assert (pixels.min, pixels.opt, pixels.max) == ((1, 3, 16, 12), (4, 3, 16, 12), (4, 3, 16, 12))


@pytest.mark.parametrize("size", [0, -1, True, "224", {"height": 3}, [1, 2, 3], 2**40])
def test_a_size_that_is_none_is_refused(checkpoint: Path, tmp_path: Path, size: object) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint / name)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": size or {"shortest_edge": size}}))
    with pytest.raises(SourceError, match=r"the image size is .*; expected a positive number of pixels, or two"):
        export_image_classifier(tmp_path, ExportRequest(tmp_path, None, (), (1,), 4), tmp_path)
