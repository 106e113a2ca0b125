"""Importing Triton model folders: what is taken, what is refused and why, and that nothing is ever half there."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.digests import tree_digests
from builders.errors import BuildError, PublishError, SourceError, SpecError
from builders.manifest import altered_files, read_manifest
from builders.publish import staging_folder
from builders.sources.triton_import import ImportResult, ImportSettings, import_model
from builders.sources.triton_model import ImportPlan, import_plan
from builders.spec import read_spec
from builders.supply_chain.keys import Signer, generate_key, read_signer
from builders.supply_chain.signing import sign_version, verify_version

CONFIG = """\
name: "resnet"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with two versions, labels and data to warm up with."""
    model = tmp_path / "source" / "resnet"
    for version in ("2", "10"):
        (model / version / "weights").mkdir(parents=True)
        (model / version / "model.onnx").write_text(f"graph {version}")
        (model / version / "weights" / "w.bin").write_text(f"weights {version}")
    (model / "warmup").mkdir()
    (model / "warmup" / "x").write_text("data")
    (model / "labels.txt").write_text("cat\ndog\n")
    (model / "config.pbtxt").write_text(CONFIG)
    return model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def whole(package: Path) -> list[str]:
    """Return the package's versions; each must be as its manifest says, and nothing else may be left behind."""
    versions = sorted(path for path in package.iterdir() if path.is_dir() and path.name.isdigit())
    for version in versions:
        manifest = read_manifest(version)
        assert manifest is not None
        assert altered_files(version, manifest) == ()
        assert (manifest.package, str(manifest.version)) == (package.name, version.name)
    assert [path.name for path in staging_folder(package.parent).iterdir()] == ["lock"]
    return [version.name for version in versions]


def test_every_version_is_taken_under_its_number_with_all_its_files(model: Path, repository: Path) -> None:
    before = tree_digests(model)
    plan = import_plan(model)
    assert (plan.problems, plan.notes, plan.name) == ((), (), "resnet")
    assert list(plan.versions) == [2, 10]
    assert plan.shared == ("labels.txt", "warmup/x")
    result = import_model(plan, repository, ImportSettings(licence="MIT"))
    assert result == ImportResult(repository / "resnet", (2, 10))
    assert whole(result.path) == ["10", "2"]
    for name, digest in before.items():
        assert tree_digests(result.path)[name] == digest
    assert tree_digests(model) == before
    manifest = read_manifest(result.path / "10")
    assert manifest is not None
    assert manifest.licence == "MIT"
    assert sorted(manifest.files) == ["config.pbtxt", "model.onnx", "sbom.json", "weights/w.bin"]
    assert manifest.sources == {name: digest for name, digest in before.items() if not name.startswith("2/")}
    assert read_spec(result.path).source.kind == "triton_model"


def test_folders_beside_the_versions_are_shared_as_they_are(model: Path, repository: Path) -> None:
    add("env/bin/tool", b"#!/bin/sh\n")(model)
    (model / "env" / "bin" / "tool").chmod(0o755)
    add("weights/10/w.bin", b"w")(model)
    plan = import_plan(model)
    assert (plan.problems, list(plan.versions)) == ((), [2, 10])
    assert plan.shared == ("env/bin/tool", "labels.txt", "warmup/x", "weights/10/w.bin")
    assert plan.notes == (
        "env: no version; it is taken as it is, beside the versions, which share it",
        "weights: no version; it is taken as it is, beside the versions, which share it",
    )
    path = import_model(plan, repository).path
    assert (path / "env" / "bin" / "tool").stat().st_mode & 0o111 == 0o111
    before = tree_digests(model)
    assert {name: digest for name, digest in tree_digests(path).items() if name in before} == before
    manifest = read_manifest(path / "2")
    assert manifest is not None
    assert {name for name in manifest.sources if not name.startswith("2/")} == {*plan.shared, "config.pbtxt"}
    assert import_model(import_plan(model), repository).kept == (2, 10)
    add("weights/10/w.bin", b"other")(model)
    with pytest.raises(PublishError, match=r"was imported with another weights/10/w\.bin, which its versions share"):
        import_model(import_plan(model), repository)


def test_bytes_taken_are_reported_up_to_the_last(model: Path, repository: Path) -> None:
    reported: list[tuple[int, int]] = []
    plan = import_plan(model)
    import_model(plan, repository, ImportSettings(report=lambda done, total: reported.append((done, total))))
    done = [count for count, _ in reported]
    assert done == sorted(done)
    assert {total for _, total in reported} == {plan.total_bytes}
    assert done[-1] == plan.total_bytes - len(CONFIG)


def test_versions_are_signed_as_they_are_taken(model: Path, repository: Path, tmp_path: Path) -> None:
    signer: Signer = read_signer(generate_key(tmp_path / "keys").private)
    settings = ImportSettings(sign=lambda content: sign_version(content, signer))
    path = import_model(import_plan(model), repository, settings).path
    assert [verify_version(path / version, signer.public_key).state for version in ("2", "10")] == ["signed"] * 2


def test_importing_again_adds_what_is_new(model: Path, repository: Path) -> None:
    import_model(import_plan(model), repository)
    assert import_model(import_plan(model), repository) == ImportResult(repository / "resnet", (), (2, 10))
    (model / "11").mkdir()
    (model / "11" / "model.onnx").write_text("graph 11")
    (model / "config.pbtxt").write_text(CONFIG.replace("max_batch_size: 8", "max_batch_size: 16"))
    assert import_model(import_plan(model), repository) == ImportResult(repository / "resnet", (11,), (2, 10))
    assert whole(repository / "resnet") == ["10", "11", "2"]
    sizes = {
        path.parent.name: "max_batch_size: 16" in path.read_text() for path in repository.glob("resnet/**/config.pbtxt")
    }
    assert sizes == {"resnet": True, "11": True, "10": False, "2": False}


def test_a_published_version_is_never_replaced(model: Path, repository: Path) -> None:
    import_model(import_plan(model), repository)
    before = tree_digests(repository)
    (model / "2" / "extra").write_text("")
    with pytest.raises(PublishError, match="resnet/2 is there, made of other files; a published version is never"):
        import_model(import_plan(model), repository)
    (model / "2" / "extra").unlink()
    weights = (model / "2" / "weights" / "w.bin").rename(model.parent / "w.bin")
    with pytest.raises(PublishError, match="resnet/2 is there, made of other files"):
        import_model(import_plan(model), repository)
    weights.rename(model / "2" / "weights" / "w.bin")
    (model / "labels.txt").write_text("dog\ncat\n")
    with pytest.raises(PublishError, match=r"was imported with another labels\.txt, which its versions share"):
        import_model(import_plan(model), repository)
    assert tree_digests(repository) == before


def test_a_package_that_was_built_is_left_alone(model: Path, repository: Path) -> None:
    (repository / "resnet").mkdir()
    with pytest.raises(PublishError, match="is there and was not imported; import under another name"):
        import_model(import_plan(model), repository)
    assert list((repository / "resnet").iterdir()) == []
    with pytest.raises(SpecError, match="no such folder; --model-repository names the folder"):
        import_model(import_plan(model), repository / "nowhere")


def test_another_name_is_written_into_the_config(model: Path, repository: Path) -> None:
    (model / "config.pbtxt").write_text('output [ { name: "resnet" data_type: TYPE_FP32 dims: 1 } ]\n' + CONFIG)
    plan = import_plan(model, "renamed")
    assert plan.problems == ()
    assert plan.config.startswith('output [ { name: "resnet"')
    assert 'name: "renamed"\nbackend' in plan.config
    assert plan.notes == ("config.pbtxt: name is 'renamed' in the package, no longer 'resnet'",)
    assert whole(import_model(plan, repository).path) == ["10", "2"]


def test_a_config_without_a_name_is_taken_and_told(model: Path) -> None:
    (model / "config.pbtxt").write_text(CONFIG.replace('name: "resnet"\n', "", 1))
    plan = import_plan(model, "other")
    assert (plan.problems, plan.config) == ((), CONFIG.replace('name: "resnet"\n', "", 1))
    assert plan.notes == ("config.pbtxt gives no name; Triton takes the folder's, 'other'",)


def test_without_a_config_the_least_is_written_where_a_backend_completes_it(model: Path) -> None:
    (model / "config.pbtxt").unlink()
    plan = import_plan(model)
    assert (plan.problems, plan.config) == ((), 'name: "resnet"\nbackend: "onnxruntime"\n')
    assert "leaves all but backend onnxruntime to Triton" in plan.notes[0]
    (model / "10" / "model.onnx").rename(model / "10" / "model.other")
    assert "there is no config.pbtxt, and no file that tells which backend" in import_plan(model).problems[0]


def test_an_ensemble_needs_no_file(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "both" / "1").mkdir(parents=True)
    (tmp_path / "both" / "config.pbtxt").write_text(
        'platform: "ensemble"\ninput [ { name: "X" data_type: TYPE_FP32 dims: 1 } ]\n'
        'output [ { name: "Y" data_type: TYPE_FP32 dims: 1 } ]\nensemble_scheduling { step [ { model_name: "a" '
        'model_version: -1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "Y" } } ] }\n'
    )
    plan = import_plan(tmp_path / "both")
    assert (plan.problems, dict(plan.versions)) == ((), {1: ()})
    assert whole(import_model(plan, repository).path) == ["1"]


def link_out(model: Path) -> None:
    (model / "2" / "model.onnx").unlink()
    (model / "2" / "model.onnx").symlink_to("/etc/hostname")


def link_nowhere(model: Path) -> None:
    (model / "2" / "gone").symlink_to("nothing")


def link_circle(model: Path) -> None:
    (model / "2" / "circle").symlink_to("circle")


def link_folder(model: Path) -> None:
    (model / "3").symlink_to("2")


def add(name: str, content: bytes = b"") -> Callable[[Path], None]:
    def write(model: Path) -> None:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)

    return write


def pipe(model: Path) -> None:
    os.mkfifo(model / "2" / "pipe")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (link_out, "2/model.onnx is a link that leaves the folder; put the file itself there"),
        (link_nowhere, "2/gone leads nowhere: No such file or directory"),
        (link_circle, "2/circle leads nowhere:"),
        (link_folder, "3 is a link to a folder; put the folder itself there"),
        (pipe, "2/pipe is neither a file nor a folder"),
        (add("03/model.onnx"), "03 is no version: Triton reads folders named 1, 2, 3 and so on; rename it"),
        (add("assets/data.pkl"), "assets/data.pkl is or holds a pickle"),
        (add("99999999999999999999/model.onnx"), "99999999999999999999 is no version"),
        (add("model.toml"), "model.toml is there, so this is a package of Tritonfleet already"),
        (add("2/manifest.json"), "2/manifest.json: a version gets a manifest.json of its own"),
        (add("2/signature.json"), "2/signature.json: a version gets a signature.json of its own"),
        (add("2/a\nb"), "'2/a\\nb': a name with control characters"),
        (
            add("2/model.pt", b"x"),
            "2/model.pt is or holds a pickle, which runs code where it is loaded; --allow-pickle",
        ),
        (add("2/state", pickle.dumps({"a": 1})), "2/state is or holds a pickle"),
        (add("data.pkl"), "data.pkl is or holds a pickle"),
        (add("config.pbtxt", b"name: 3"), "config.pbtxt:1: "),
        (add("config.pbtxt", b"\xff"), "config.pbtxt cannot be read: "),
        (add("config.pbtxt", b'max_batch_size: -1 backend: "python"'), "max_batch_size is -1"),
    ],
)
def test_what_cannot_be_taken_is_told(model: Path, repository: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(model)
    plan = import_plan(model)
    assert len(plan.problems) == 1, plan.problems
    assert said in plan.problems[0]
    with pytest.raises(SourceError, match="cannot be imported"):
        import_model(plan, repository)
    assert list(repository.iterdir()) == []


def test_what_is_no_folder_of_a_model_is_told(tmp_path: Path, model: Path) -> None:
    with pytest.raises(SourceError, match="no such folder; name the folder of one model"):
        import_plan(tmp_path / "nowhere")
    assert any("holds no version" in problem for problem in import_plan(model / "warmup").problems)
    assert any("'a b' is no name for a package" in problem for problem in import_plan(model, "a b").problems)


def test_a_pickle_is_taken_by_name(model: Path, repository: Path) -> None:
    add("2/model.pt", pickle.dumps({"a": 1}))(model)
    add("10/model.pt", pickle.dumps({"a": 2}))(model)
    assert len(import_plan(model).problems) == 2
    assert [problem.split()[0] for problem in import_plan(model, None, ["2/model.pt"]).problems] == ["10/model.pt"]
    plan = import_plan(model, None, ["model.pt"])
    assert plan.problems == ()
    assert import_model(plan, repository).imported == (2, 10)
    assert import_plan(model, None, ["model.pt", "x.pt"]).problems == ("--allow-pickle x.pt: there is no such file",)


def test_what_stays_behind_is_told(model: Path, repository: Path) -> None:
    add(".git/config")(model)
    add("2/__pycache__/model.cpython-311.pyc")(model)
    (model / "2" / "empty").mkdir()
    (model / "2" / "linked").symlink_to("../labels.txt")
    plan = import_plan(model)
    assert plan.problems == ()
    assert plan.notes == (
        ".git: left behind",
        "2/__pycache__: left behind",
        "2/empty: an empty folder is left behind",
        "2/linked: a link; the file it leads to is taken",
    )
    path = import_model(plan, repository).path
    assert sorted(entry.name for entry in (path / "2").iterdir()) == [
        "config.pbtxt",
        "linked",
        "manifest.json",
        "model.onnx",
        "sbom.json",
        "weights",
    ]
    assert not (path / "2" / "linked").is_symlink()


def test_serving_python_code_cannot_alter_its_version(model: Path, repository: Path) -> None:
    add("2/model.py", b"import sub.stage\n")(model)
    add("2/sub/stage.py", b"ANSWER = 42\n")(model)
    plan = import_plan(model)
    assert plan.notes == ("a file __pycache__ is put beside Python code, so that serving a version alters nothing",)
    version = import_model(plan, repository).path / "2"
    before = tree_digests(version)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import model; assert model.sub.stage.ANSWER == 42"
    subprocess.run([sys.executable, "-c", code, str(version)], env={"PATH": os.environ["PATH"]}, check=True, timeout=60)
    assert tree_digests(version) == before
    assert import_model(import_plan(model), repository).kept == (2, 10)


class Interrupted(Exception):  # noqa: N818 - stands for a kill
    pass


def fails_at(plan: ImportPlan, repository: Path, count: int, change: Callable[[], object] | None = None) -> None:
    """Import until `count` files are taken, and be interrupted, or have `change` done, then."""
    calls = iter(range(1000))

    def report(_done: int, _total: int) -> None:
        if next(calls) == count:
            if change is None:
                raise Interrupted
            change()

    import_model(plan, repository, ImportSettings(report=report))


@pytest.mark.parametrize("count", range(6))
def test_a_new_package_is_there_whole_or_not_at_all(model: Path, repository: Path, count: int) -> None:
    with pytest.raises(Interrupted):
        fails_at(import_plan(model), repository, count)
    assert list(repository.iterdir()) == []
    assert import_model(import_plan(model), repository).imported == (2, 10)
    assert whole(repository / "resnet") == ["10", "2"]


def test_a_source_that_changes_meanwhile_is_refused(model: Path, repository: Path) -> None:
    plan = import_plan(model)
    with pytest.raises(SourceError, match=r"2/weights/w\.bin changed while it was taken; import again"):
        fails_at(plan, repository, 0, lambda: (model / "2" / "weights" / "w.bin").write_text("longer than before"))
    plan = import_plan(model)
    with pytest.raises(SourceError, match=r"10/model\.onnx went away while it was taken; import again"):
        fails_at(plan, repository, 0, (model / "10" / "model.onnx").unlink)
    assert list(repository.iterdir()) == []


def test_a_repository_that_cannot_be_written_is_told(model: Path, repository: Path) -> None:
    (repository / "resnet").symlink_to("nowhere")
    with pytest.raises(BuildError, match="is there and was not imported"):
        import_model(import_plan(model), repository)


def test_odd_texts_give_a_spec_that_reads_back(model: Path, repository: Path) -> None:
    summary = 'a "quoted" \\ line\nand \x7f 😀'
    path = import_model(import_plan(model), repository, ImportSettings(summary=summary)).path
    assert read_spec(path).summary == summary
    assert json.loads((path / "2" / "sbom.json").read_text())["metadata"]["component"]["description"] == summary
