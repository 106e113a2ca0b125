"""The catalogue: every kind of source has its tools and modules, and every file that decides is in its digests."""

import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from builders.errors import SourceError
from builders.observe import observe_package
from builders.sources.catalogue import export_modules, export_tools, module_digest, source_digests
from builders.spec import BuildSpec, read_spec
from builders.store.artifacts import ArtifactStore
from builders.store.objects import open_objects
from tests.tiny_packages import ENSEMBLE, GRAPH, write_ensemble, write_graph, write_large_stage, write_layer

FOLDER = {"path": "checkpoint"}
SOURCES: list[dict[str, Any]] = [
    {"kind": "huggingface_encoder", "checkpoint": FOLDER},
    {"kind": "huggingface_sequence_classifier", "checkpoint": FOLDER},
    {"kind": "huggingface_image_classifier", "checkpoint": FOLDER},
    {"kind": "onnx", "file": {"path": "layer.onnx"}},
    {"kind": "torch", "callable": "script.py:load"},
    {"kind": "sklearn_training", "script": "script.py:train", "dataset": "dataset.jsonl", "encoder": FOLDER},
    {"kind": "causal_lm", "checkpoint": FOLDER},
    {"kind": "stage", "stage": "ensembles.stages.token_budget:TokenBudget"},
]


def spec_of(source: dict[str, Any], **more: object) -> BuildSpec:
    return BuildSpec.model_validate({"name": "m", "summary": "s", "licence": "x", "source": source, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a package's folder with a file for whatever a source names."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "more").mkdir()
    names = ("checkpoint/weights", "layer.onnx", "script.py", "dataset.jsonl", "config.pbtxt", "golden.jsonl")
    for name in (*names, "weights.safetensors", "more/module.py", "MODEL_CARD.md"):
        (tmp_path / name).write_text(name)
    return tmp_path


def changed(spec: BuildSpec, folder: Path, name: str) -> set[str]:
    """Return the sources whose digest differs after the file `name` was changed."""
    before = source_digests(spec, folder)
    (folder / name).write_text("other")
    after = source_digests(spec, folder)
    return {key for key in {*before, *after} if before.get(key) != after.get(key)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source["kind"]))
def test_every_module_that_makes_an_export_is_there(source: dict[str, Any]) -> None:
    modules = export_modules(spec_of(source))
    assert len(module_digest(modules)) == 64
    assert (not modules) == (source["kind"] == "stage")
    assert bool(export_tools(spec_of(source))) == bool(modules)


@pytest.mark.parametrize(
    ("source", "file", "name"),
    [
        (SOURCES[0], "checkpoint/weights", "checkpoint/weights"),
        (SOURCES[2], "checkpoint/weights", "checkpoint/weights"),
        (SOURCES[3], "layer.onnx", "file/layer.onnx"),
        (SOURCES[4], "script.py", "script.py"),
        (SOURCES[4], "weights.safetensors", "weights.safetensors"),
        (SOURCES[4], "more/module.py", "more/module.py"),
        (SOURCES[5], "script.py", "script.py"),
        (SOURCES[5], "dataset.jsonl", "dataset.jsonl"),
        (SOURCES[5], "checkpoint/weights", "encoder/weights"),
        (SOURCES[6], "checkpoint/weights", "checkpoint/weights"),
        (SOURCES[6], "config.pbtxt", "config.pbtxt"),
        (SOURCES[7], "config.pbtxt", "config.pbtxt"),
    ],
)
def test_a_changed_file_changes_its_digest_alone(folder: Path, source: dict[str, Any], file: str, name: str) -> None:
    assert changed(spec_of(source), folder, file) == {name}


def test_a_changed_golden_set_and_spec_count_and_a_changed_summary_does_not(folder: Path) -> None:
    spec = spec_of(SOURCES[3], golden={})
    assert changed(spec, folder, "golden.jsonl") == {"golden.jsonl"}
    digests = source_digests(spec, folder)
    assert source_digests(spec.model_copy(update={"summary": "t"}), folder) == digests
    assert source_digests(spec.model_copy(update={"licence": "y"}), folder) != digests


@pytest.mark.parametrize("source", [SOURCES[3], SOURCES[4]])
def test_changed_calibration_data_count(folder: Path, source: dict[str, Any]) -> None:
    spec = spec_of(source, golden={}, calibration={"file": "dataset.jsonl"})
    assert changed(spec, folder, "dataset.jsonl") == {"dataset.jsonl"}


def test_the_spec_beside_an_onnx_file_of_its_name_is_no_external_data(folder: Path) -> None:
    (folder / "layer.onnx").rename(folder / "model.onnx")
    (folder / "model.toml").write_text("# a comment")
    spec = spec_of({"kind": "onnx", "file": {"path": "model.onnx"}})
    assert set(source_digests(spec, folder)) == {"model.toml", "file/model.onnx"}


def test_a_stage_is_all_of_its_modules(folder: Path) -> None:
    names = set(source_digests(spec_of(SOURCES[7]), folder))
    assert "stage/model.py" in names
    assert any(name.endswith("token_budget.py") for name in names)


@pytest.mark.parametrize("source", [SOURCES[0], SOURCES[3], SOURCES[4], SOURCES[5]])
def test_a_source_that_is_not_there_is_told(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(SourceError):
        source_digests(spec_of(source), tmp_path)


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(SourceError, match=r"builders\.nowhere of this installation is missing; install"):
        module_digest(("builders.nowhere",))


def test_an_observed_package_has_the_tools_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    write_graph(tmp_path / "repository")
    write_ensemble(tmp_path / "repository")
    write_large_stage(tmp_path / "repository", tmp_path / "site", "stage", 10)
    store = ArtifactStore(open_objects(str(tmp_path / "store")))
    graph, ensemble, stage = (
        observe_package(tmp_path / "repository", name, store) for name in (GRAPH, ENSEMBLE, "stage")
    )
    assert set(graph.toolchains) == set(graph.recipes) == {"", "onnxruntime"}
    assert graph.export_lacks is None
    assert set(graph.sources) == {"model.toml", "file/layer.onnx"}
    assert read_spec(tmp_path / "repository" / GRAPH) == graph.spec
    assert set(ensemble.sources) == {"model.toml", "config.pbtxt"}
    assert "files/large.bin" in stage.sources
    assert not os.path.lexists(tmp_path / "store")


def test_external_data_counts_whatever_its_file_is_called(tmp_path: Path) -> None:
    write_layer(tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    onnx.save(model, tmp_path / "layer.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert changed(spec_of(SOURCES[3]), tmp_path, "weights.bin") == {"file/weights.bin"}


def test_texts_for_people_change_nothing(folder: Path) -> None:
    assert changed(spec_of(SOURCES[4]), folder, "MODEL_CARD.md") == set()
