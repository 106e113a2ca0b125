"""A version put together: files named after targets, a config each, and nothing private among them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builders.assemble import _unproven
from builders.errors import ConfigError
from builders.forms import EVIDENCE_FILENAME
from builders.manifest import Manifest
from builders.pbtxt import parse_config
from builders.pipeline import build, builder_of
from tests.tiny_packages import FP32, GRAPH, INT8, PLAIN, QUANTIZED, write_graph

WITH_CONFIG = QUANTIZED + '[targets.config]\ninstance_group = [{ kind = "KIND_CPU", count = 3 }]\n'


def made(folder: Path, *targets: str) -> tuple[Path, Manifest]:
    write_graph(folder / "repository", *targets)
    result = build(builder_of(folder / "repository"), GRAPH)
    assert result.path is not None
    assert result.manifest is not None
    return result.path, result.manifest


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    return made(tmp_path_factory.mktemp("version"), WITH_CONFIG, PLAIN)


def test_files_are_named_after_targets_and_the_reference_set_stays_behind(version: tuple[Path, Manifest]) -> None:
    path, manifest = version
    assert sorted(each.name for each in path.iterdir()) == sorted(
        [
            f"{FP32}.onnx",
            f"{INT8}.onnx",
            "config.pbtxt",
            f"config.{INT8}.pbtxt",
            "manifest.json",
            "probes.json",
            "sbom.json",
        ]
    )
    assert set(manifest.files) == {each.name for each in path.iterdir()} - {"manifest.json"}


def test_every_target_has_a_config_that_names_its_file(version: tuple[Path, Manifest]) -> None:
    """The most precise target for ONNX Runtime on the CPU is the default one, wherever it stands in the spec."""
    path, manifest = version
    assert {name: target.config for name, target in manifest.targets.items()} == {
        FP32: "config.pbtxt",
        INT8: f"config.{INT8}.pbtxt",
    }
    for name, target in manifest.targets.items():
        text = (path / target.config).read_text()
        assert f'default_model_filename: "{name}.onnx"' in text
        assert (parse_config(text, path="").name, target.filename) == (GRAPH, f"{name}.onnx")
        assert ("count: 3" in text) == (name == INT8)
    assert (path.parent / "config.pbtxt").read_text() == (path / "config.pbtxt").read_text()


def test_the_manifest_says_how_each_target_was_made_and_how_close_it_is(version: tuple[Path, Manifest]) -> None:
    _, manifest = version
    fp32, int8 = manifest.targets[FP32], manifest.targets[INT8]
    assert (fp32.chosen, int8.chosen) == ("plain", "dynamic")
    assert fp32.proven
    assert fp32.parity is not None
    assert int8.parity is not None
    assert fp32.parity.max_abs_error == 0 < int8.parity.max_abs_error
    assert fp32.parity.items == int8.parity.items > 8
    assert set(fp32.toolchain) == {"onnx", "onnxruntime", "onnxslim"}
    assert manifest.sources.keys() == {"model.toml", "file/layer.onnx"}
    assert (manifest.command, manifest.licence) == (f"tritonfleet build {GRAPH}", "Apache-2.0")
    assert set(manifest.export) == {"key", "id"}


def test_the_bill_of_materials_names_package_version_and_files(version: tuple[Path, Manifest]) -> None:
    path, _ = version
    text = (path / "sbom.json").read_text()
    assert json.loads(text)["bomFormat"] == "CycloneDX"
    assert f"{FP32}.onnx" in text


def test_probes_are_answers_of_the_source(version: tuple[Path, Manifest]) -> None:
    path, _ = version
    probes = json.loads((path / "probes.json").read_text())
    assert [(it["inputs"][0]["name"], it["outputs"][0]["name"]) for it in probes] == [("x", "y")] * 2


def test_a_version_without_targets_says_what_its_export_says_of_itself(tmp_path: Path) -> None:
    assert _unproven(tmp_path) == ""
    (tmp_path / EVIDENCE_FILENAME).write_text('{"precision": "fp16", "unproven": "fp16 needs an NVIDIA GPU"}')
    assert _unproven(tmp_path) == "fp16 needs an NVIDIA GPU"


def test_a_config_that_triton_would_refuse_is_told_with_the_target(tmp_path: Path) -> None:
    wrong = PLAIN + '[targets.config]\ninput = [{ name = "x", data_type = "TYPE_FP32", dims = [0] }]\n'
    with pytest.raises(ConfigError, match=f"model.toml: the config generated for {FP32} is not one"):
        made(tmp_path, wrong)
    assert not (tmp_path / "repository" / GRAPH / "1").exists()


def test_a_wrong_override_is_told_before_anything_is_made(tmp_path: Path) -> None:
    batches = PLAIN + "[targets.config]\ndynamic_batching = { preferred_batch_size = [64] }\n"
    package = write_graph(tmp_path / "repository", batches)
    told: list[str] = []
    builder = replace(builder_of(tmp_path / "repository"), report=lambda progress: told.append(progress.step))
    with pytest.raises(ConfigError, match="preferred_batch_size 64 is above max_batch_size 8"):
        build(builder, package.name)
    assert "export" in told
    assert not any("candidate" in step for step in told)
