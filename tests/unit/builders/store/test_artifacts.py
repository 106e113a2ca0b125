"""What the artifact store refuses before it asks anybody. `tests/contract` holds what it does on each kind of store."""

from pathlib import Path

import pytest

from builders.artifacts import Artifact
from builders.manifest import FileEntry
from builders.store.artifacts import ArtifactStore, default_store
from builders.store.errors import StoreError
from builders.store.objects import open_objects

BAD = ["", "/etc/passwd", "../x", "a/../../x", "a/..", "a//b", "./a", "a\\b", "a\0b"]


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore(open_objects("memory://"))


def test_the_default_store_is_hidden_beside_the_repository(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert default_store(tmp_path / "models" / ".." / "models") == str(tmp_path / ".models.artifacts")


@pytest.mark.parametrize("name", BAD)
def test_a_file_outside_the_folder_is_neither_added_nor_fetched(
    store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match="is not the name of an artifact's file"):
        store.add_files(tmp_path, [name])
    artifact = Artifact("ab", "", {}, {name: FileEntry("0" * 64, 0)})
    with pytest.raises(ValueError, match="is not the name of an artifact's file"):
        store.fetch(artifact, tmp_path / "to")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_none_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="is not the name of an object"):
        store.find("../objects")


def test_a_file_that_is_not_there_is_told(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*/model.onnx: No such file or directory"):
        store.add_files(tmp_path, ["model.onnx"])


def test_only_files_of_the_artifact_are_fetched(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        store.fetch(Artifact("ab", "", {}, {}), tmp_path, ["model.onnx"])
