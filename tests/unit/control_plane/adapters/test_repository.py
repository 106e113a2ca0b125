"""The model repository on disk."""

import json
from pathlib import Path

import pytest

from control_plane.adapters.repository import RepositoryFolder
from control_plane.errors import LoadFailedError
from control_plane.state import ModelName

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
    assert [(it.name, it.versions, it.problems) for it in published] == [("m", (1, 2, 10), ())]


def test_what_triton_would_refuse_is_told_with_the_file(tmp_path: Path) -> None:
    package(tmp_path, "m", "1", more="dynamic_batching { preferred_batch_size: [ 32 ] }\n")
    folder = package(tmp_path, "torn", "1")
    (folder / "config.pbtxt").write_text('name: "torn\n')
    (tmp_path / "none" / "1").mkdir(parents=True)
    problems = {it.name: it.problems[0] for it in RepositoryFolder(tmp_path).read()}
    assert "preferred_batch_size 32 is above max_batch_size 4" in problems[ModelName("m")]
    assert f"{folder}/config.pbtxt:1" in problems[ModelName("torn")]
    assert "config.pbtxt: there is no such file" in problems[ModelName("none")]


def test_the_config_of_a_load_names_one_version(tmp_path: Path) -> None:
    package(tmp_path, "m", "1", "2")
    config = json.loads(RepositoryFolder(tmp_path).load_config(ModelName("m"), 2))
    assert config["version_policy"] == {"specific": {"versions": ["2"]}}
    assert (config["backend"], config["max_batch_size"]) == ("python", 4)


def test_a_config_that_cannot_be_read_is_a_failed_load(tmp_path: Path) -> None:
    with pytest.raises(LoadFailedError, match="there is no such file"):
        RepositoryFolder(tmp_path).load_config(ModelName("m"), 1)


def test_a_repository_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(RepositoryFolder(tmp_path / "none").read()) == []
