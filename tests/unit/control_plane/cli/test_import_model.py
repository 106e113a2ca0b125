"""`import`: what it prints, how it ends, and that a plan takes nothing."""

import pickle
from pathlib import Path

import pytest

from builders.supply_chain.keys import generate_key, read_public_key
from builders.supply_chain.signing import verify_version
from tests.command_line import run_here

CONFIG = 'name: "resnet"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = tmp_path / "source" / "resnet"
    for version in ("1", "3"):
        (model / version).mkdir(parents=True)
        (model / version / "model.onnx").write_text("0123456789")
    (model / "labels.txt").write_text("cat\ndog\n")
    (model / "config.pbtxt").write_text(CONFIG)
    return model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def shown(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_versions_are_imported_once(model: Path, repository: Path) -> None:
    first = run_here("import", str(model), "-r", str(repository))
    assert (first.code, first.err) == (0, "")
    assert shown(first.out) == ["package version", "resnet 1 imported", "resnet 3 imported"]
    again = run_here("import", str(model), "-r", str(repository), "--json")
    assert again.code == 0
    assert (again.data["imported"], again.data["kept"]) == ([], [1, 3])
    assert again.data["path"] == str(repository / "resnet")


def test_a_plan_takes_nothing(model: Path, repository: Path) -> None:
    planned = run_here("import", str(model), "-r", str(repository), "--plan")
    assert planned.code == 0
    assert shown(planned.out) == [
        "package version files size",
        "resnet 1 1 10 B",
        "resnet 3 1 10 B",
        "resnet shared 1 8 B",
    ]
    as_json = run_here("import", str(model), "-r", str(repository), "--plan", "--json").data
    assert as_json["versions"] == {"1": ["1/model.onnx"], "3": ["3/model.onnx"]}
    assert as_json["problems"] == []
    assert list(repository.iterdir()) == []


def test_every_problem_is_told_and_nothing_is_taken(model: Path, repository: Path) -> None:
    (model / "1" / "model.pt").write_bytes(pickle.dumps({}))
    (model / "03").mkdir()
    for more in ((), ("--plan",)):
        ended = run_here("import", str(model), "-r", str(repository), *more)
        assert ended.code == 1
        assert "error: 1/model.pt is or holds a pickle" in ended.err
        assert "error: 03 is no version" in ended.err
    assert list(repository.iterdir()) == []
    (model / "03").rmdir()
    allowed = run_here("import", str(model), "-r", str(repository), "--allow-pickle", "1/model.pt")
    assert allowed.code == 0


def test_name_licence_and_summary_reach_the_package(model: Path, repository: Path) -> None:
    options = ("--name", "mine", "--licence", "MIT", "--summary", "Tells cats from dogs")
    ended = run_here("import", str(model), "-r", str(repository), *options)
    assert ended.code == 0
    assert "note: config.pbtxt: name is 'mine' in the package, no longer 'resnet'" in ended.err
    text = (repository / "mine" / "model.toml").read_text()
    assert text == (
        'name = "mine"\nsummary = "Tells cats from dogs"\nlicence = "MIT"\n\n[source]\nkind = "triton_model"\n'
    )


def test_versions_are_signed_with_the_key_of_the_environment(
    model: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = generate_key(tmp_path / "keys")
    monkeypatch.setenv("TRITONFLEET_SIGNING_KEY", str(pair.private))
    assert run_here("import", str(model), "-r", str(repository)).code == 0
    assert verify_version(repository / "resnet" / "3", read_public_key(pair.public)).ok
    monkeypatch.setenv("TRITONFLEET_SIGNING_KEY", str(tmp_path / "nowhere"))
    lost = run_here("import", str(model), "-r", str(repository), "--name", "two")
    assert (lost.code, "nowhere: no such file; a private key is expected there" in lost.flat) == (1, True)
    assert not (repository / "two").exists()


def test_what_is_no_folder_is_told(tmp_path: Path, repository: Path) -> None:
    ended = run_here("import", str(tmp_path / "nowhere"), "-r", str(repository))
    assert (ended.code, "no such folder; name the folder of one model" in ended.flat) == (1, True)
