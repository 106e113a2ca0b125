"""`build` on packages that need no export: what it prints, what it refuses, and how it goes on after a failure."""

from pathlib import Path

import pytest

from tests.command_line import run_here

ENSEMBLE = """\
name: "{name}"
platform: "ensemble"
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [ {{ model_name: "a" model_version: -1
  input_map {{ key: "X" value: "X" }} output_map {{ key: "Y" value: "Y" }} }} ] }}
"""


def add_package(repository: Path, name: str) -> Path:
    folder = repository / name
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(ENSEMBLE.format(name=name))
    (folder / "model.toml").write_text(
        f'name = "{name}"\nsummary = "s"\nlicence = "Apache-2.0"\n[source]\nkind = "ensemble"\n'
    )
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        add_package(tmp_path / "repository", name)
    return tmp_path / "repository"


def test_json_says_what_was_built_where_and_why(repository: Path) -> None:
    ended = run_here("build", "-r", str(repository), "--json")
    assert ended.code == 0
    assert [(it["package"], it["version"], it["built"], it["reason"]) for it in ended.data] == [
        ("one", 1, True, "no version yet"),
        ("two", 1, True, "no version yet"),
    ]
    first = ended.data[0]
    assert sorted(first) == ["build_key", "built", "bytes", "package", "parity", "path", "reason", "seconds", "version"]
    assert Path(first["path"]) == repository / "one" / "1"
    again = run_here("build", "-r", str(repository), "--json")
    assert [(it["version"], it["built"]) for it in again.data] == [(1, False), (1, False)]


def test_progress_goes_to_standard_error_and_the_table_to_standard_output(repository: Path) -> None:
    ended = run_here("build", "two", "-r", str(repository))
    assert ended.code == 0
    assert "two 1 built: no version yet" in " ".join(ended.out.split())
    assert "two" in ended.err
    assert "\x1b" not in ended.out + ended.err
    assert not (repository / "one" / "1").exists()


def test_a_plan_builds_nothing_and_says_why(repository: Path) -> None:
    planned = run_here("build", "--plan", "--json", "-r", str(repository))
    assert (planned.code, planned.err) == (0, "")
    assert [(it["package"], it["version"], it["steps"], it["reason"]) for it in planned.data] == [
        ("one", 1, ["Publish"], "no version yet"),
        ("two", 1, ["Publish"], "no version yet"),
    ]
    assert "two 1 no version yet Publish" in run_here("build", "--plan", "-r", str(repository)).flat
    assert [path.name for path in (repository / "one").iterdir() if path.is_dir()] == []


def test_a_package_that_cannot_be_built_keeps_no_other_from_it(repository: Path) -> None:
    (repository / "one" / "config.pbtxt").write_text("name: 3")
    add_package(repository, "three")
    (repository / "three" / "model.toml").write_text("[source")
    ended = run_here("build", "-r", str(repository), "--json")
    assert ended.code == 1
    assert [it["package"] for it in ended.data] == ["two"]
    assert f"error: {repository}/one/config.pbtxt:1: " in ended.err
    assert f"error: {repository}/three/model.toml: not TOML" in ended.err
    shown = run_here("build", "-r", str(repository))
    assert shown.code == 1
    assert "two 1 up to date" in " ".join(shown.out.split())


@pytest.mark.parametrize(
    ("packages", "said"), [(["three"], "has no package three; it has: one, two"), (["[/x]"], "has no package [/x]")]
)
def test_an_unknown_package_is_told_with_those_there_are(repository: Path, packages: list[str], said: str) -> None:
    ended = run_here("build", *packages, "-r", str(repository), "--json")
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.flat


def test_a_repository_that_is_none_or_empty_is_told(tmp_path: Path) -> None:
    nowhere = run_here("build", "-r", str(tmp_path / "nowhere"))
    assert nowhere.code == 1
    assert "no such folder; --model-repository names the folder that holds the packages" in nowhere.flat
    empty = run_here("build", "-r", str(tmp_path))
    assert empty.code == 1
    assert "holds no package; a package is a folder with a model.toml" in empty.flat


def test_the_repository_comes_from_the_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFLEET_MODEL_REPOSITORY", str(repository))
    assert [it["package"] for it in run_here("build", "--plan", "--json").data] == ["one", "two"]


def test_an_odd_folder_name_is_shown_as_it_is(repository: Path) -> None:
    add_package(repository, "[bold]")
    ended = run_here("build", "[bold]", "-r", str(repository))
    assert ended.code == 1
    assert "[bold]/model.toml: name: String should match pattern" in ended.flat
