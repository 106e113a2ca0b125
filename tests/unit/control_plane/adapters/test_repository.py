"""The model repository on disk."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from builders.manifest import Manifest, ManifestTarget
from control_plane.actions import Setting
from control_plane.adapters.repository import RepositoryFolder
from control_plane.errors import LoadFailedError
from control_plane.state import GENERATION, ModelName, Pin

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 4
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""


def package(root: Path, name: str, *entries: str, more: str = "") -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name) + more)
    for entry in entries:
        (folder / entry).mkdir()
    return folder


def test_packages_and_their_versions(tmp_path: Path) -> None:
    package(tmp_path, "m", "1", "10", "2", "0", "03", ".4", "1.tmp", "__pycache__")
    (tmp_path / "m" / "7").write_text("a file")
    package(tmp_path, ".hidden", "1")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("")
    published = RepositoryFolder(tmp_path).read()
    assert [(it.name, it.versions, it.draft.problems) for it in published] == [("m", (1, 2, 10), ())]


def test_what_triton_would_refuse_is_told_with_the_file(tmp_path: Path) -> None:
    package(tmp_path, "m", "1", more="dynamic_batching { preferred_batch_size: [ 32 ] }\n")
    folder = package(tmp_path, "torn", "1")
    (folder / "config.pbtxt").write_text('name: "torn\n')
    (tmp_path / "none" / "1").mkdir(parents=True)
    problems = {it.name: it.at(1).problems[0] for it in RepositoryFolder(tmp_path).read()}
    assert "preferred_batch_size 32 is above max_batch_size 4" in problems[ModelName("m")]
    assert f"{folder}/config.pbtxt:1" in problems[ModelName("torn")]
    assert "config.pbtxt: there is no such file" in problems[ModelName("none")]


def test_the_config_of_a_load_names_one_version(tmp_path: Path) -> None:
    package(tmp_path, "m", "1", "2")
    config = json.loads(RepositoryFolder(tmp_path).load_config(ModelName("m"), 2))
    assert config["version_policy"] == {"specific": {"versions": ["2"]}}
    assert (config["backend"], config["max_batch_size"]) == ("python", 4)


def test_the_config_of_a_load_says_how_many_instances_and_which_generation(tmp_path: Path) -> None:
    package(tmp_path, "m", "1")
    repository = RepositoryFolder(tmp_path)
    config = json.loads(repository.load_config(ModelName("m"), 1, Setting(instances=3, generation=2)))
    assert config["instance_group"] == [{"count": 3}]
    assert config["parameters"] == {GENERATION: {"string_value": "2"}}
    assert "parameters" not in json.loads(repository.load_config(ModelName("m"), 1))


def test_a_version_goes_by_its_own_config_whatever_becomes_of_the_package(tmp_path: Path) -> None:
    folder, repository = package(tmp_path, "m", "1", "2"), RepositoryFolder(tmp_path)
    (folder / "1" / "config.pbtxt").write_text(CONFIG.format(name="m").replace(": 4", ": 16"))
    (folder / "config.pbtxt").write_text('name: "m\n')
    published = repository.read().get(ModelName("m"))
    assert published is not None
    own = published.at(1)
    assert own.config is not None
    assert (own.config.max_batch_size, own.problems) == (16, ())
    assert json.loads(repository.load_config(ModelName("m"), 1))["max_batch_size"] == 16
    assert published.at(2) == published.draft
    assert f"{folder}/config.pbtxt:1" in published.draft.problems[0]
    with pytest.raises(LoadFailedError, match=r"m/config\.pbtxt:1"):
        repository.load_config(ModelName("m"), 2)


def test_what_is_wrong_with_a_versions_own_config_is_told_of_that_version_alone(tmp_path: Path) -> None:
    folder = package(tmp_path, "m", "1", "2")
    (folder / "2" / "config.pbtxt").write_text(CONFIG.format(name="other"))
    published = RepositoryFolder(tmp_path).read().get(ModelName("m"))
    assert published is not None
    assert (published.draft.problems, published.at(1).problems) == ((), ())
    assert f"{folder}/2/config.pbtxt: " in published.at(2).problems[0]


def test_a_config_that_cannot_be_read_is_a_failed_load(tmp_path: Path) -> None:
    with pytest.raises(LoadFailedError, match="there is no such file"):
        RepositoryFolder(tmp_path).load_config(ModelName("m"), 1)


def test_a_repository_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(RepositoryFolder(tmp_path / "none").read()) == []


FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"


def targeted(root: Path) -> tuple[Path, Manifest]:
    """Write version 1 of `m` with two targets, of which the first is the default one."""
    version = package(root, "m", "1") / "1"
    for name, size, config in ((FP32, 8, "config.pbtxt"), (INT8, 16, f"config.{INT8}.pbtxt")):
        own = CONFIG.format(name="m").replace(": 4", f": {size}").replace('"python"', '"onnxruntime"')
        (version / config).write_text(f'{own}default_model_filename: "{name}.onnx"\n')
    targets = {
        FP32: ManifestTarget(f"{FP32}.onnx", "config.pbtxt", {"onnxruntime": "1.20.1"}),
        INT8: ManifestTarget(f"{INT8}.onnx", f"config.{INT8}.pbtxt", {"onnxruntime": "1.20.1"}),
    }
    manifest = Manifest("m", 1, "key", "MIT", "tritonfleet build m", targets=targets)
    (version / "manifest.json").write_text(manifest.to_json())
    return version, manifest


def test_the_targets_of_a_version_and_the_config_of_each(tmp_path: Path) -> None:
    _, manifest = targeted(tmp_path)
    repository, name = RepositoryFolder(tmp_path), ModelName("m")
    published = repository.read()
    assert published.models[name].targets == {1: manifest.targets}
    for target, filename, size in (("", FP32, 8), (FP32, FP32, 8), (INT8, INT8, 16)):
        config = json.loads(repository.load_config(name, 1, Setting(target)))
        assert (config["default_model_filename"], config["max_batch_size"]) == (f"{filename}.onnx", size)
        assert config["version_policy"] == {"specific": {"versions": ["1"]}}
    with pytest.raises(LoadFailedError, match=f"has no target tensorrt-sm_90-fp16; there are: {FP32}, {INT8}"):
        repository.load_config(name, 1, Setting("tensorrt-sm_90-fp16"))


def test_a_version_without_targets_tells_why_it_is_unproven(tmp_path: Path) -> None:
    folder = package(tmp_path, "m", "1", "2")
    for version, unproven in ((1, "fp16 needs an NVIDIA GPU"), (2, "")):
        manifest = Manifest("m", version, "key", "MIT", "tritonfleet build m", unproven=unproven)
        (folder / str(version) / "manifest.json").write_text(manifest.to_json())
    published = RepositoryFolder(tmp_path).read()
    assert published.models[ModelName("m")].unproven == {1: "fp16 needs an NVIDIA GPU"}
    assert published.unproven_of(Pin(ModelName("m"), 1)) == "fp16 needs an NVIDIA GPU"
    assert published.unproven_of(Pin(ModelName("m"), 2)) == published.unproven_of(Pin(ModelName("none"), 1)) == ""


def test_a_target_whose_config_is_gone_is_not_served_with_another_one(tmp_path: Path) -> None:
    version, _ = targeted(tmp_path)
    (version / f"config.{INT8}.pbtxt").unlink()
    with pytest.raises(LoadFailedError, match=f"config.{INT8}.pbtxt: there is no such file"):
        RepositoryFolder(tmp_path).load_config(ModelName("m"), 1, Setting(INT8))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{", "cannot be read by this version of Tritonfleet; publish the version again"),
        ('{"schema": 1}', "cannot be read by this version of Tritonfleet; publish the version again"),
        (7, "onnxruntime-cpu-fp32.config: Input should be a valid string"),
        ("../../other/1/config.pbtxt", "../../other/1/config.pbtxt is no name of a file in the version's folder"),
    ],
)
def test_a_manifest_that_is_none_is_told_and_nothing_is_loaded_by_it(
    tmp_path: Path, written: object, told: str
) -> None:
    version, manifest = targeted(tmp_path)
    if isinstance(written, str) and written.startswith("{"):
        text = written
    else:
        fp32 = replace(manifest.targets[FP32], config=written)  # type: ignore[arg-type]
        text = replace(manifest, targets={FP32: fp32}).to_json()
    (version / "manifest.json").write_text(text)
    package = RepositoryFolder(tmp_path).read().models[ModelName("m")]
    assert told in package.at(1).problems[0]
    assert (package.draft.problems, package.targets) == ((), {})
    with pytest.raises(LoadFailedError, match=re.escape(told)):
        RepositoryFolder(tmp_path).load_config(ModelName("m"), 1, Setting(FP32))
