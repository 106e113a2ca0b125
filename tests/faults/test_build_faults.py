"""Builds that run out of disk, meet each other or damage: a whole version or none, and the cause."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders.digests import tree_digests
from builders.manifest import altered_files
from tests.command_line import DEADLINE_S, Ended, run_here
from tests.faults.workshop import ALL, BUILD, EXPORT, Workshop, built, left_in_staging, manifest_of, tried
from tests.small_disk import SmallDisk, small_disk
from tests.tiny_packages import (
    ENSEMBLE,
    FP32,
    GRAPH,
    INT8,
    PLAIN,
    REFUSED,
    write_ensemble,
    write_graph,
)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    write_graph(tmp_path / "repository", PLAIN, REFUSED)
    return Workshop(tmp_path / "repository", tmp_path / "site")


def at_once(one: Workshop, other: Workshop, *more: str) -> list[Ended]:
    with one.build_begun(*more) as first, other.build_begun(*more) as second:
        printed = [process.communicate(timeout=DEADLINE_S) for process in (first, second)]
    codes = [first.returncode, second.returncode]
    return [Ended(code, *texts) for code, texts in zip(codes, printed, strict=True)]


def test_two_builds_at_once_make_one_version_and_damage_to_it_is_followed_by_another(workshop: Workshop) -> None:
    ended = at_once(workshop, workshop)
    done = sorted(made for each in ended for made in built(each))
    assert done == [(1, False, []), (1, True, list(ALL))]
    assert workshop.versions() == ["1"]
    assert left_in_staging(workshop) == ["lock"]
    model = workshop.repository / GRAPH / "1" / f"{FP32}.onnx"
    turn_a_bit(model)
    planned = run_here("build", "-r", str(workshop.repository), "--json", "--plan").data[0]
    assert planned["reason"] == f"version 1 was altered after it was published: {FP32}.onnx"
    again = run_here("build", "-r", str(workshop.repository), "--json")
    assert built(again) == [(2, True, ["publish 2"])]
    assert again.data[0]["reason"] == planned["reason"]
    second = workshop.repository / GRAPH / "2"
    assert altered_files(second, manifest_of(second)) == ()
    assert built(run_here("build", "-r", str(workshop.repository), "--json")) == [(2, False, [])]


def test_two_repositories_that_build_into_one_store_at_once_agree(tmp_path: Path) -> None:
    workshops = [Workshop(tmp_path / name / "repository", tmp_path / "site") for name in ("one", "other")]
    for workshop in workshops:
        write_graph(workshop.repository)
    ended = at_once(workshops[0], workshops[1], "--store", str(tmp_path / "store"))
    assert [[(version, new) for version, new, _ in built(each)] for each in ended] == [[(1, True)]] * 2
    one, other = (manifest_of(workshop.repository / GRAPH / "1") for workshop in workshops)
    assert list(one.targets) == [FP32, INT8]
    assert one == other
    digests = [tree_digests(workshop.repository / GRAPH / "1") for workshop in workshops]
    assert digests[0] == digests[1]
    assert len(list((tmp_path / "store").glob("artifacts/*/*.json"))) == 3


def turn_a_bit(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def objects_of(store: Path, target: str) -> list[Path]:
    """Return the files in a store of the artifact of `target` ("" for the export)."""
    records: list[dict[str, Any]] = [json.loads(path.read_text()) for path in store.glob("artifacts/*/*.json")]
    (record,) = (record for record in records if record["target"] == target)
    digests = [entry["sha256"] for entry in record["files"].values()]
    return [store / "objects" / digest[:2] / digest for digest in digests]


@pytest.mark.parametrize("damage", [turn_a_bit, Path.unlink, lambda path: os.truncate(path, 10)])
def test_a_damaged_artifact_is_found_and_made_again(workshop: Workshop, damage: Callable[[Path], None]) -> None:
    arguments = ("-r", str(workshop.repository), "--json")
    assert built(run_here("build", *arguments, "--no-publish")) == [(None, False, [EXPORT, BUILD])]
    (artifact,) = objects_of(workshop.store, FP32)
    damage(artifact)
    refused = run_here("publish", *arguments)
    assert (refused.code, refused.data) == (1, [])
    assert f"error: {FP32}.onnx of the artifact {FP32} " in refused.err
    assert refused.err.rstrip().endswith("; build it again, which replaces what is damaged")
    assert workshop.versions() == []
    # The export has the same file: this graph's candidate is the source as it is.
    assert built(run_here("build", *arguments)) == [(1, True, list(ALL))]
    assert workshop.versions() == ["1"]
    assert built(run_here("build", *arguments)) == [(1, False, [])]


def test_a_damaged_export_does_not_make_what_was_made_of_it_again(workshop: Workshop) -> None:
    arguments = ("-r", str(workshop.repository), "--json")
    assert built(run_here("build", *arguments, "--no-publish"))
    private = [path for path in objects_of(workshop.store, "") if path not in objects_of(workshop.store, FP32)]
    for path in private:
        turn_a_bit(path)
    done = run_here("build", *arguments)
    assert built(done) == [(1, True, ["export", "publish 1"])]
    assert tried(done) == []


@contextmanager
def on_a_small_disk(tmp_path: Path) -> Iterator[tuple[SmallDisk, Workshop]]:
    with small_disk(tmp_path / "disk", "4m") as disk:
        write_ensemble(disk.here / "repository")
        yield disk, Workshop(tmp_path / "disk" / "repository", tmp_path / "site")


def fails_for_want_of_space(ended: Ended, package: Path) -> None:
    """See that the build failed with one error of one line, and that nothing of a version is there."""
    assert ended.code == 1, ended
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended.err
    assert "the disk is full" in errors[0]
    assert errors[0].lower().endswith("free some space and run the build again")
    assert "Traceback" not in ended.err
    assert [path.name for path in package.iterdir() if path.is_dir()] == []
    assert [path.name for path in (package.parents[1] / ".repository.staging").iterdir()] == ["lock"]


def test_a_full_disk_while_exporting_making_and_publishing(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path) as (disk, workshop):
        graph = write_graph(disk.here / "repository")

        def build(package: str) -> Ended:
            return disk.run(workshop.arguments(package), workshop.environment())

        stored = []
        for pages in (0, 4, 9):  # on the way to a version there is less to do each time
            disk.leave(pages)
            fails_for_want_of_space(build(GRAPH), graph)
            stored.append(len(list((disk.here / ".repository.artifacts").glob("artifacts/*/*.json"))))
        assert stored == sorted(stored)
        disk.leave(pages=1)  # the ensemble's config, and nothing for the manifest
        fails_for_want_of_space(build(ENSEMBLE), disk.here / "repository" / ENSEMBLE)
        disk.free()
        for package in (GRAPH, ENSEMBLE):
            done = build(package)
            assert (done.code, [(it["version"], it["built"]) for it in done.data]) == (0, [(1, True)]), done
            version = disk.here / "repository" / package / "1"
            assert altered_files(version, manifest_of(version)) == ()


def test_a_store_whose_disk_is_full_is_told_and_nothing_is_published(tmp_path: Path, workshop: Workshop) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        store = ("--store", str(tmp_path / "disk" / "store"))
        disk.leave(pages=2)
        ended = disk.run(workshop.arguments(*store), workshop.environment())
        fails_for_want_of_space(ended, workshop.repository / GRAPH)
        assert f"in the artifact store {store[1]}: the disk is full" in ended.err
        disk.free()
        assert built(disk.run(workshop.arguments(*store), workshop.environment())) == [(1, True, list(ALL))]
        assert workshop.versions() == ["1"]


def test_a_read_only_repository_is_told_whether_or_not_something_was_built_there(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path) as (disk, workshop):

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
