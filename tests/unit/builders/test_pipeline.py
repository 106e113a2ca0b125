"""The pipeline on a package that is built in a moment: what is made, kept, published and refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from builders.errors import MachineError, MissingTargetError, ParityError, SourceError
from builders.manifest import altered_files
from builders.pipeline import Builder, Progress, _Work, build, builder_of, publish_package
from builders.spec import read_spec
from tests.tiny_packages import (
    ENSEMBLE,
    FP32,
    GRAPH,
    INT8,
    PLAIN,
    QUANTIZED,
    REFUSED,
    write_ensemble,
    write_graph,
    write_large_stage,
    write_layer,
)

BLOCKING = PLAIN + "tolerance = { min_top1 = 1.0, min_score = 0.5 }\n"
"""FP32 with a score that cannot be told: there is no golden set."""


def graph(folder: Path, *targets: str) -> Builder:
    write_graph(folder / "repository", *targets)
    return builder_of(folder / "repository")


def chosen(builder: Builder, *targets: str) -> frozenset[object]:
    spec = read_spec(builder.repository / GRAPH)
    return frozenset(each.target for each in spec.graph_targets if str(each.target) in targets)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Build a repository with one version, and its store. Tests do not write to it."""
    builder = graph(tmp_path_factory.mktemp("whole"))
    build(builder, GRAPH)
    return builder


def copy(builder: Builder, folder: Path) -> Builder:
    """Return another checkout of the repository, without its versions, that shares the store."""
    kept = shutil.ignore_patterns("1", "config.pbtxt")
    shutil.copytree(builder.repository, folder / "repository", ignore=kept)
    return replace(builder, repository=folder / "repository")


def test_a_build_makes_everything_once_and_tells_what_it_does(tmp_path: Path) -> None:
    told: list[Progress] = []
    builder = replace(graph(tmp_path), report=told.append)
    first = build(builder, GRAPH)
    assert first.made == ("export", f"build {FP32}", f"build {INT8}", "publish 1")
    assert (first.built, first.errors, first.path) == (True, (), builder.repository / GRAPH / "1")
    assert first.manifest is not None
    assert altered_files(builder.repository / GRAPH / "1", first.manifest) == ()
    steps = [progress.step for progress in told]
    assert steps.index("export") < steps.index(f"{FP32}: candidate plain") < steps.index(f"{FP32}: time candidates")
    assert steps.index(f"{FP32}: time candidates") < steps.index(f"{INT8}: candidate dynamic") < steps.index("publish")
    told.clear()
    second = build(builder, GRAPH)
    assert (second.made, second.built, second.manifest) == ((), False, first.manifest)
    assert [progress.step for progress in told] == ["observe"]


def test_an_optional_target_that_is_refused_is_told_once_and_missing(tmp_path: Path) -> None:
    builder = graph(tmp_path, PLAIN, REFUSED)
    first = build(builder, GRAPH)
    assert [target for target, _ in first.errors] == [INT8]
    assert isinstance(first.errors[0][1], ParityError)
    assert first.manifest is not None
    assert first.manifest.missing == {INT8: str(first.errors[0][1])}
    assert f"no candidate of {INT8} can be kept: dynamic: output y: largest error" in first.manifest.missing[INT8]
    assert list(first.manifest.targets) == [FP32]
    second = build(builder, GRAPH)
    assert (second.made, second.errors, second.built) == ((), (), False)
    write_layer(builder.repository / GRAPH / "layer.onnx", factor=2.0)
    third = build(builder, GRAPH)
    assert third.made == ("export", f"build {FP32}", "publish 2")
    assert [target for target, _ in third.errors] == [INT8]


def test_a_required_target_that_is_refused_keeps_the_version_back(tmp_path: Path) -> None:
    builder = graph(tmp_path, BLOCKING, QUANTIZED)
    first = build(builder, GRAPH)
    assert first.made == ("export", f"build {INT8}")
    assert (first.built, first.manifest, first.plan.blocked) == (False, None, (FP32,))
    assert "the golden set's score cannot be told" in str(dict(first.errors)[FP32])
    with pytest.raises(MissingTargetError, match=rf"{GRAPH} cannot be published, .* missing: {FP32}: no candidate of"):
        publish_package(builder, GRAPH)
    assert [path.name for path in (builder.repository / GRAPH).iterdir() if path.is_dir()] == []


def test_an_error_that_is_not_the_targets_own_is_the_reason_and_tried_again(tmp_path: Path) -> None:
    def out_of_memory(progress: Progress) -> None:
        if progress.step.startswith(f"{INT8}: candidate"):
            raise MachineError("there is no memory left")

    builder = replace(graph(tmp_path, PLAIN, QUANTIZED), report=out_of_memory)
    first = build(builder, GRAPH)
    assert first.manifest is not None
    assert first.manifest.missing[INT8] == "there is no memory left"
    second = build(builder, GRAPH)
    assert ([target for target, _ in second.errors], second.made, second.built) == ([INT8], (), False)
    assert second.manifest == first.manifest
    third = build(replace(builder, report=lambda _progress: None), GRAPH)
    assert third.made == (f"build {INT8}", "publish 2")


def test_no_version_is_made_of_optional_targets_that_are_all_missing(tmp_path: Path) -> None:
    result = build(graph(tmp_path, REFUSED), GRAPH)
    assert (result.built, result.made, result.plan.blocked) == (False, ("export",), (INT8,))


def test_another_checkout_publishes_from_the_store_and_makes_nothing(whole: Builder, tmp_path: Path) -> None:
    builder = copy(whole, tmp_path)
    result = publish_package(builder, GRAPH)
    assert (result.built, result.made) == (True, ("publish 1",))
    versions = [each.repository / GRAPH / "1" / "manifest.json" for each in (builder, whole)]
    assert versions[0].read_text() == versions[1].read_text()
    assert not (tmp_path / ".repository.artifacts").exists()
    assert publish_package(builder, GRAPH).built is False


def test_nothing_is_published_from_an_empty_store_and_nothing_is_made(tmp_path: Path) -> None:
    builder = graph(tmp_path)
    with pytest.raises(MissingTargetError, match=f"is missing: export: not built yet; {FP32}: its export: not built"):
        publish_package(builder, GRAPH)
    assert not (tmp_path / ".repository.artifacts").exists()


def test_targets_are_made_apart_and_published_together(tmp_path: Path) -> None:
    builder = graph(tmp_path)
    for target, steps in ((INT8, ("export", f"build {INT8}")), (FP32, (f"build {FP32}",))):
        result = build(builder, GRAPH, chosen(builder, target), release=False)  # type: ignore[arg-type]
        assert (result.made, result.built, result.manifest) == (steps, False, None)
        if target == INT8:
            with pytest.raises(MissingTargetError, match=f"{FP32}: not built yet"):
                publish_package(builder, GRAPH)
    assert publish_package(builder, GRAPH).made == ("publish 1",)


def test_a_version_without_an_optional_target_is_followed_by_one_with_it(tmp_path: Path) -> None:
    builder = graph(tmp_path)
    first = build(builder, GRAPH, chosen(builder, FP32))  # type: ignore[arg-type]
    assert first.manifest is not None
    assert (first.made[-1], first.manifest.missing) == ("publish 1", {INT8: "not built yet"})
    second = build(builder, GRAPH)
    assert second.made == (f"build {INT8}", "publish 2")
    assert second.plan.reason == "other artifacts or tools"


def test_a_source_that_changes_under_a_build_stops_it(tmp_path: Path) -> None:
    builder = graph(tmp_path)

    def change(progress: Progress) -> None:
        if progress.step == f"{FP32}: candidate plain":
            write_layer(builder.repository / GRAPH / "layer.onnx", factor=3.0)

    with pytest.raises(SourceError, match="a source changed while it was built; build again"):
        build(replace(builder, report=change), GRAPH)
    assert not (builder.repository / GRAPH / "1").exists()
    result = build(builder, GRAPH)
    assert result.made == ("export", f"build {FP32}", f"build {INT8}", "publish 1")


def test_a_version_is_signed_before_it_is_seen(whole: Builder, tmp_path: Path) -> None:
    def sign(content: Path) -> None:
        assert not (tmp_path / "repository" / GRAPH / "1").exists()
        assert json.loads((content / "manifest.json").read_text())["version"] == 1
        (content / "signature.json").write_text("signed")

    builder = replace(copy(whole, tmp_path), sign=sign)
    assert build(builder, GRAPH).built
    assert (builder.repository / GRAPH / "1" / "signature.json").read_text() == "signed"


def test_a_config_that_a_killed_build_did_not_copy_is_put_back(whole: Builder, tmp_path: Path) -> None:
    builder = copy(whole, tmp_path)
    build(builder, GRAPH)
    config = builder.repository / GRAPH / "config.pbtxt"
    text = config.read_text()
    for damage in (config.unlink, lambda: config.write_text("edited")):
        damage()
        result = build(builder, GRAPH)
        assert (result.plan.steps, result.built, config.read_text()) == (("restore config.pbtxt",), False, text)
    assert build(builder, GRAPH).plan.steps == ()


def test_packages_without_a_graph_are_published_from_their_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ensemble(tmp_path / "repository")
    write_large_stage(tmp_path / "repository", tmp_path / "site", "stage", 1000)
    monkeypatch.syspath_prepend(tmp_path / "site")
    builder = builder_of(tmp_path / "repository")
    assert build(builder, ENSEMBLE).made == ("publish 1",)
    result = publish_package(builder, "stage")
    assert result.made == ("export", "publish 1")
    assert result.path is not None
    assert (result.path / "large.bin").stat().st_size == 1000
    assert result.manifest is not None
    assert (result.manifest.targets, result.manifest.missing) == ({}, {})


def test_a_compilers_log_is_kept_and_named_in_place_of_the_one_that_goes(tmp_path: Path) -> None:
    builder = graph(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    building = _Work(builder, GRAPH, tmp_path)
    assert building._with_kept_log("it crashed", work, "t") == "it crashed"
    log = work / "t.engine.log"
    log.write_text("out of memory")
    kept = tmp_path / ".repository.logs" / f"{GRAPH}-t.log"
    assert building._with_kept_log(f"it crashed (log: {log})", work, "t") == f"it crashed (log: {kept})"
    assert building._with_kept_log("it crashed", work, "t") == f"it crashed (whole log: {kept})"
    assert kept.read_text() == "out of memory"
