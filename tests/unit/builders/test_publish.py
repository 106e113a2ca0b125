"""Publishing: all of a version or nothing, never over another, one build at a time."""

from pathlib import Path

import pytest
from filelock import FileLock

from builders.digests import tree_digests
from builders.errors import PublishError
from builders.manifest import FileEntry, Manifest, altered_files, read_manifest
from builders.publish import publish, restore_config, staging, staging_folder


def manifest(files: dict[str, FileEntry] | None = None) -> Manifest:
    return Manifest("m", 1, "key", "Apache-2.0", "tritonfleet build m", files=files or {})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository" / "m").mkdir(parents=True)
    return tmp_path / "repository"


def stage_content(staged: Path, text: str = "hello") -> Path:
    content = staged / "content"
    content.mkdir()
    (content / "model.onnx").write_text(text)
    return content


def test_a_version_appears_whole_and_reads_back(repository: Path) -> None:
    with staging(repository) as staged:
        content = stage_content(staged)
        entry = FileEntry(tree_digests(content)["model.onnx"], 5)
        path = publish(staged, repository, manifest({"model.onnx": entry}))
    assert path == repository / "m" / "1"
    found = read_manifest(path)
    assert found == manifest({"model.onnx": entry})
    assert found.total_bytes == 5
    assert altered_files(path, found) == ()
    assert list(staging_folder(repository).iterdir()) == [staging_folder(repository) / "lock"]


def test_a_published_file_is_never_written_and_a_program_can_still_be_started(repository: Path) -> None:
    with staging(repository) as staged:
        content = stage_content(staged)
        (content / "model.onnx").chmod(0o600)
        (content / "tool").write_text("#!/bin/sh\n")
        (content / "tool").chmod(0o755)
        path = publish(staged, repository, manifest())
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.iterdir()}
    assert modes == {"model.onnx": 0o444, "tool": 0o555, "manifest.json": 0o444}


def test_alteration_is_seen(repository: Path) -> None:
    with staging(repository) as staged:
        content = stage_content(staged)
        entries = {"model.onnx": FileEntry(tree_digests(content)["model.onnx"], 5), "gone": FileEntry("0", 1)}
        path = publish(staged, repository, manifest(entries))
    (path / "model.onnx").chmod(0o644)
    (path / "model.onnx").write_text("jello")
    found = read_manifest(path)
    assert found is not None
    assert altered_files(path, found) == ("gone", "model.onnx")


def test_a_published_version_is_never_replaced(repository: Path) -> None:
    for text in ("first", "second"):
        with staging(repository) as staged:
            stage_content(staged, text)
            if text == "first":
                publish(staged, repository, manifest())
            else:
                with pytest.raises(PublishError, match="already exists; a published version is never replaced"):
                    publish(staged, repository, manifest())
    assert (repository / "m" / "1" / "model.onnx").read_text() == "first"


def test_a_signature_is_part_of_the_version_and_a_refusal_to_sign_publishes_nothing(repository: Path) -> None:
    def sign(content: Path) -> None:
        (content / "signature.json").write_text((content / "manifest.json").read_text())

    def refuse(_content: Path) -> None:
        raise PermissionError(13, "Permission denied", "key.pem")

    with staging(repository) as staged:
        stage_content(staged)
        with pytest.raises(PublishError, match=r"Permission denied \(key.pem\); nothing was published"):
            publish(staged, repository, manifest(), refuse)
        assert not (repository / "m" / "1").exists()
    with staging(repository) as staged:
        stage_content(staged)
        path = publish(staged, repository, manifest(), sign)
    assert (path / "signature.json").read_text() == (path / "manifest.json").read_text()
    assert {each.stat().st_mode & 0o222 for each in path.iterdir()} == {0}


def test_the_package_gets_the_config_of_its_version(repository: Path) -> None:
    (repository / "m" / "config.pbtxt").write_text("older")
    with staging(repository) as staged:
        (stage_content(staged) / "config.pbtxt").write_text("newer")
        publish(staged, repository, manifest())
        restore_config(repository / "m", 1, staged)
    assert (repository / "m" / "config.pbtxt").read_text() == "newer"
    with staging(repository) as staged, pytest.raises(PublishError, match="cannot copy the config at"):
        restore_config(repository / "m", 2, staged)
    assert (repository / "m" / "config.pbtxt").read_text() == "newer"


def test_what_a_killed_build_left_is_removed(repository: Path) -> None:
    leftover = staging_folder(repository) / "version-old" / "content"
    leftover.mkdir(parents=True)
    with staging(repository) as staged:
        assert not leftover.exists()
        assert list(staged.iterdir()) == []


def test_a_second_build_is_told_of_the_first(repository: Path) -> None:
    staging_folder(repository).mkdir()
    with FileLock(staging_folder(repository) / "lock"), pytest.raises(PublishError, match="another build has held"):  # noqa: SIM117
        with staging(repository, wait_s=0.05):
            pytest.fail("two builds at once")


def test_no_manifest_where_none_can_be_read(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    for text in ("", "[]", "{}", '{"files": {"a": {"sha256": 1}}, "parity": null}', '{"files": 3, "parity": null}'):
        (tmp_path / "manifest.json").write_text(text)
        assert read_manifest(tmp_path) is None
