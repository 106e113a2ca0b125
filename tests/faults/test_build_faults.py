"""Builds that are killed, run out of disk, meet each other or damage: a whole version or none, and the cause."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from builders.manifest import altered_files, read_manifest
from builders.publish import staging_folder
from tests.command_line import DEADLINE_S, Ended, command_line, environment
from tests.embedded_triton import seconds_until
from tests.small_disk import SmallDisk, small_disk
from tests.tiny_packages import ENCODER, ENSEMBLE, write_distribution, write_encoder, write_ensemble, write_large_stage

LARGE = 48 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Workshop:
    """A repository, the distributions that its packages are built from, and builds in processes of their own."""

    repository: Path
    site: Path

    @property
    def staging(self) -> Path:
        return staging_folder(self.repository)

    def arguments(self, *more: str) -> list[str]:
        return command_line("build", "-r", str(self.repository), "--json", *more)

    def environment(self) -> dict[str, str]:
        apart = environment()
        return {**apart, "PYTHONPATH": f"{self.site}{os.pathsep}{apart['PYTHONPATH']}"}

    @contextmanager
    def build_begun(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a build; killed afterwards if it still runs."""
        with subprocess.Popen(
            self.arguments(*more),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def build(self, *more: str) -> Ended:
        with self.build_begun(*more) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        return Ended(process.returncode, out, err)

    def versions(self, package: str = ENCODER) -> list[str]:
        """Return what folders the package has; each must be a whole version, with nothing else beside the sources."""
        folders = sorted(path for path in (self.repository / package).iterdir() if path.is_dir())
        for folder in folders:
            manifest = read_manifest(folder)
            assert manifest is not None, f"{folder} is half a version: {list(folder.iterdir())}"
            assert altered_files(folder, manifest) == ()
        return [folder.name for folder in folders]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_distribution(tmp_path_factory.mktemp("installed") / "site")


@pytest.fixture
def workshop(tmp_path: Path, site: Path) -> Workshop:
    write_encoder(tmp_path / "repository")
    return Workshop(tmp_path / "repository", site)


def kill_when(workshop: Workshop, reached: Callable[[Path], bool], *more: str) -> None:
    """Begin a build and kill -9 it as soon as its staged version is where `reached` says."""
    with workshop.build_begun(*more) as process:

        def is_there() -> bool:
            assert process.poll() is None, process.communicate()
            return any(reached(path) for path in workshop.staging.glob("version-*"))

        seconds_until(is_there, DEADLINE_S)
        started = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(DEADLINE_S)
    assert psutil.wait_procs(started, timeout=10)[1] == []


def left_in_staging(workshop: Workshop) -> list[str]:
    return [path.name for path in workshop.staging.iterdir()]


def test_a_build_killed_during_export_and_during_proof_leaves_nothing_that_the_next_does_not_clear(
    workshop: Workshop,
) -> None:
    kill_when(workshop, lambda staged: (staged / "content").is_dir())
    assert workshop.versions() == []
    first = {name for name in left_in_staging(workshop) if name != "lock"}
    assert len(first) == 1
    kill_when(workshop, lambda staged: staged.name not in first and (staged / "content" / "model.onnx").exists())
    assert workshop.versions() == []
    assert not first & set(left_in_staging(workshop))
    done = workshop.build()
    assert (done.code, [(it["version"], it["built"]) for it in done.data]) == (0, [(1, True)]), done
    assert workshop.versions() == ["1"]
    assert left_in_staging(workshop) == ["lock"]


@pytest.mark.parametrize("last", ["large.bin", "config.pbtxt", "manifest.json"])
def test_a_build_killed_while_it_publishes_leaves_a_whole_version_or_none(tmp_path: Path, last: str) -> None:
    """`last` is the file that had been begun when the build was killed: while copying, digesting, and flushing."""
    workshop = Workshop(tmp_path / "repository", tmp_path / "site")
    write_large_stage(workshop.repository, workshop.site, "large", LARGE)
    with workshop.build_begun() as process:
        seconds_until(
            lambda: process.poll() is not None or any(workshop.staging.glob(f"version-*/content/{last}")), DEADLINE_S
        )
        process.kill()
        process.wait(DEADLINE_S)
    # From the manifest on, the rename may have come first.
    before = workshop.versions("large")
    assert before in ([[]] if last != "manifest.json" else [[], ["1"]])
    done = workshop.build()
    assert (done.code, [(it["version"], it["built"]) for it in done.data]) == (0, [(1, not before)]), done
    assert workshop.versions("large") == ["1"]
    assert left_in_staging(workshop) == ["lock"]


@pytest.fixture(scope="module")
def built_twice_at_once(tmp_path_factory: pytest.TempPathFactory, site: Path) -> tuple[Workshop, list[Ended]]:
    workshop = Workshop(tmp_path_factory.mktemp("twice") / "repository", site)
    write_encoder(workshop.repository)
    with workshop.build_begun() as one, workshop.build_begun() as other:
        printed = [process.communicate(timeout=DEADLINE_S) for process in (one, other)]
    codes = [one.returncode, other.returncode]
    return workshop, [Ended(code, *texts) for code, texts in zip(codes, printed, strict=True)]


def test_two_builds_at_once_make_one_version(built_twice_at_once: tuple[Workshop, list[Ended]]) -> None:
    workshop, ended = built_twice_at_once
    assert [it.code for it in ended] == [0, 0], ended
    assert sorted((it.data[0]["version"], it.data[0]["built"]) for it in ended) == [(1, False), (1, True)]
    assert workshop.versions() == ["1"]
    assert left_in_staging(workshop) == ["lock"]


def test_a_damaged_version_is_told_and_followed_by_a_new_one(
    built_twice_at_once: tuple[Workshop, list[Ended]], tmp_path: Path
) -> None:
    built, _ = built_twice_at_once
    workshop = Workshop(tmp_path / "repository", built.site)
    shutil.copytree(built.repository, workshop.repository)
    model = workshop.repository / ENCODER / "1" / "model.onnx"
    content = model.read_bytes()
    model.chmod(0o644)
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    planned = workshop.build("--plan").data[0]
    assert planned["reason"] == "version 1 was altered after it was published: model.onnx"
    (done,) = workshop.build().data
    assert (done["version"], done["built"], done["reason"]) == (2, True, planned["reason"])
    manifest = read_manifest(workshop.repository / ENCODER / "2")
    assert manifest is not None
    assert altered_files(workshop.repository / ENCODER / "2", manifest) == ()
    assert [it["built"] for it in workshop.build().data] == [False]


@contextmanager
def on_a_small_disk(tmp_path: Path, site: Path) -> Iterator[tuple[SmallDisk, Workshop]]:
    with small_disk(tmp_path / "disk", "4m") as disk:
        write_encoder(disk.here / "repository")
        write_ensemble(disk.here / "repository")
        yield disk, Workshop(tmp_path / "disk" / "repository", site)


def fails_for_want_of_space(ended: Ended, disk: SmallDisk, package: str) -> None:
    """See that the build failed with one error of one line, and that nothing of a version is there."""
    assert (ended.code, json.loads(ended.out)) == (1, []), ended
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    assert "the disk is full (0 MB free); nothing was published. Free some space and run the build again" in errors[0]
    assert "Traceback" not in ended.err
    assert [path.name for path in (disk.here / "repository" / package).iterdir() if path.is_dir()] == []
    assert [path.name for path in (disk.here / ".repository.staging").iterdir()] == ["lock"]


def test_a_full_disk_while_exporting_and_while_writing_the_manifest(tmp_path: Path, site: Path) -> None:
    with on_a_small_disk(tmp_path, site) as (disk, workshop):

        def build(package: str) -> Ended:
            return disk.run(workshop.arguments(package), workshop.environment())

        def size_of(package: str, name: str) -> int:
            return (disk.here / "repository" / package / "1" / name).stat().st_size

        disk.leave(pages=4)
        fails_for_want_of_space(build(ENCODER), disk, ENCODER)
        disk.leave(pages=1)  # the ensemble's config, and nothing for the manifest
        fails_for_want_of_space(build(ENSEMBLE), disk, ENSEMBLE)
        disk.leave(pages=0)
        fails_for_want_of_space(build(ENSEMBLE), disk, ENSEMBLE)
        disk.free()
        for package in (ENCODER, ENSEMBLE):
            done = build(package)
            assert (done.code, [(it["version"], it["built"]) for it in done.data]) == (0, [(1, True)]), done
            manifest = read_manifest(disk.here / "repository" / package / "1")
            assert manifest is not None
            assert altered_files(disk.here / "repository" / package / "1", manifest) == ()
        assert size_of(ENCODER, "model.onnx") > 4 * 4096


def test_a_read_only_repository_is_told_whether_or_not_something_was_built_there(tmp_path: Path, site: Path) -> None:
    with on_a_small_disk(tmp_path, site) as (disk, workshop):

        def build(*more: str) -> Ended:
            return disk.run(workshop.arguments(ENSEMBLE, *more), workshop.environment())

        disk.remount("ro")  # before the staging folder is there
        refused = build()
        assert (refused.code, json.loads(refused.out)) == (1, [])
        assert "Read-only file system" in refused.flat
        assert "; nothing was published" in refused.flat
        assert build("--plan").code == 0
        disk.remount("rw")
        assert build().code == 0
        config = disk.here / "repository" / ENSEMBLE / "config.pbtxt"
        config.write_text(config.read_text() + "# changed\n")
        disk.remount("ro")  # with the staging folder and its lock
        refused = build()
        assert (refused.code, json.loads(refused.out)) == (1, [])
        assert "Read-only file system" in refused.flat
        assert "; nothing was published" in refused.flat
        assert "Traceback" not in refused.err
