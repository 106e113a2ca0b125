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
