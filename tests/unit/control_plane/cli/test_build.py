"""`build` and `publish`: what they print, what they refuse, their exit codes, and how work is dealt out."""

import re
import shutil
from pathlib import Path

import pytest

from tests.command_line import Ended, run_here
from tests.tiny_packages import FP32, GRAPH, INT8, PLAIN, QUANTIZED, REFUSED, write_graph

REFUSED_FP32 = PLAIN + "tolerance = { min_score = 1.0 }\n"
"""FP32, required, with a score that cannot be told: there is no golden set."""
ELSEWHERE = """\
[[targets]]
runtime = "tensorrt"
device = "sm_75"
precision = "fp32"
"""
"""A required target for another machine: an older GPU than any that this is run on."""
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
    keys = "blocked build_key built bytes made package path reason seconds targets version"
    assert sorted(first) == keys.split()
    assert (first["made"], first["targets"], first["blocked"]) == (["publish 1"], [], [])
    assert Path(first["path"]) == repository / "one" / "1"
    again = run_here("build", "-r", str(repository), "--json")
    assert [(it["version"], it["built"]) for it in again.data] == [(1, False), (1, False)]


def test_progress_goes_to_standard_error_and_the_table_to_standard_output(repository: Path) -> None:
    ended = run_here("build", "two", "-r", str(repository))
    assert ended.code == 0
    assert "two 1 published: no version yet" in " ".join(ended.out.split())
    assert "two" in ended.err
    assert "\x1b" not in ended.out + ended.err
    assert not (repository / "one" / "1").exists()


def test_a_plan_builds_nothing_and_says_why(repository: Path) -> None:
    planned = run_here("build", "--plan", "--json", "-r", str(repository))
    assert (planned.code, planned.err) == (0, "")
    assert [(it["package"], it["version"], it["steps"], it["reason"]) for it in planned.data] == [
        ("one", 1, ["publish 1"], "no version yet"),
        ("two", 1, ["publish 1"], "no version yet"),
    ]
    assert "two publish 1 to do no version yet" in run_here("build", "--plan", "-r", str(repository)).flat
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
    assert "[bold]/model.toml:1: name: String should match pattern" in ended.flat


def test_a_config_that_triton_would_refuse_is_told_with_its_line_before_anything_is_made(tmp_path: Path) -> None:
    batches = PLAIN + "[targets.config]\ndynamic_batching.preferred_batch_size = [64]\n"
    package = write_graph(tmp_path / "graphs", batches)
    line = (package / "model.toml").read_text().splitlines().index("dynamic_batching.preferred_batch_size = [64]") + 1
    ended = run_here("build", "-r", str(tmp_path / "graphs"))
    assert (ended.code, ended.out) == (1, "")
    said = "targets.0.config.dynamic_batching: preferred_batch_size 64 is above max_batch_size 8"
    assert ended.err.endswith(f"error: {package / 'model.toml'}:{line}: {said}\n")
    assert not list(tmp_path.glob(".graphs*"))  # the store beside the repository


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Write a repository with one package of two targets."""
    write_graph(tmp_path / "graphs")
    return tmp_path / "graphs"


def run(command: str, repository: Path, *more: str) -> Ended:
    return run_here(command, "-r", str(repository), *more)


def made(ended: Ended) -> dict[str, list[str]]:
    assert ended.code == 0, ended
    return {it["package"]: it["made"] for it in ended.data}


def test_a_plan_says_of_every_target_whether_it_is_made_and_why(graph: Path) -> None:
    (planned,) = run("build", graph, "--plan", "--json").data
    assert planned["steps"] == ["export", f"build {FP32}", f"build {INT8}", "publish 1"]
    assert (planned["blocked"], planned["missing"]) == ([], {})
    assert [(it["target"], it["required"], it["state"], it["reason"]) for it in planned["targets"]] == [
        (FP32, True, "to do", "not made yet"),
        (INT8, False, "to do", "not made yet"),
    ]
    assert not list(graph.parent.glob(".graphs*"))
    assert run("build", graph, "--json").code == 0
    (planned,) = run("build", graph, "--plan", "--json").data
    assert (planned["steps"], planned["reason"]) == ([], "up to date")
    assert {it["state"] for it in planned["targets"]} == {"cached"}
    assert f"{GRAPH} build {INT8} cached made with onnx " in run("build", graph, "--plan").flat


def test_tables_say_of_every_target_and_candidate_what_came_of_it(tmp_path: Path) -> None:
    write_graph(tmp_path / "graphs", PLAIN, REFUSED)
    shown = run("build", tmp_path / "graphs", "--candidates")
    assert shown.code == 0
    assert f"{GRAPH} 1 published: no version yet" in shown.flat
    assert f"{FP32} built, proven" in shown.flat
    assert "1.000000 0.0e+00" in shown.flat
    assert f"{INT8} failed (optional): no candidate of {INT8} can be kept: dynamic: output y: largest" in shown.flat
    assert f"{GRAPH} {FP32} merged merging matrix products changes nothing" in shown.flat
    again = run("build", tmp_path / "graphs")
    assert f"{GRAPH} 1 up to date" in again.flat
    assert f"{FP32} cached, proven" in again.flat
    assert f"{INT8} failed (optional): no candidate" in again.flat


def test_a_required_target_that_failed_is_an_error_now_and_every_time(tmp_path: Path) -> None:
    write_graph(tmp_path / "graphs", REFUSED_FP32, QUANTIZED)
    first = run("build", tmp_path / "graphs", "--json")
    assert first.code == 1
    assert f"error: no candidate of {FP32} can be kept: plain: the golden set's score cannot be told" in first.err
    assert [(it["version"], it["made"], it["blocked"]) for it in first.data] == [
        (None, ["export", f"build {INT8}"], [FP32])
    ]
    again = run("build", tmp_path / "graphs", "--json")
    assert (again.code, again.data[0]["made"], again.data[0]["blocked"]) == (1, [], [FP32])
    assert f"error: {GRAPH} has no {FP32}: no candidate of {FP32} can be kept" in again.err
    assert "it is tried again when the package or a tool has changed" in again.err


def test_a_required_target_that_waits_for_another_machine_ends_with_4(tmp_path: Path) -> None:
    write_graph(tmp_path / "graphs", PLAIN, ELSEWHERE)
    waits = run("build", tmp_path / "graphs", "--json")
    assert waits.code == 4, waits
    assert "error" not in waits.err
    (result,) = waits.data
    assert (result["version"], result["made"]) == (None, ["export", f"build {FP32}"])
    assert result["blocked"] == ["tensorrt-sm_75-fp32"]
    shown = run("build", tmp_path / "graphs")
    assert shown.code == 4
    assert "pending (required): needs a GPU of sm_75" in shown.flat
    assert "not published: tensorrt-sm_75-fp32 missing" in shown.flat
    assert run("build", tmp_path / "graphs", "--no-publish").code == 0
    refused = run("publish", tmp_path / "graphs")
    assert refused.code == 1
    assert "tensorrt-sm_75-fp32: needs a GPU of sm_75" in refused.flat


def test_targets_are_made_where_they_are_asked_for_and_published_by_another_checkout(graph: Path) -> None:
    store = ("--store", f"file://{graph.parent}/shared", "--json")
    assert made(run("build", graph, *store, "-t", INT8)) == {GRAPH: ["export", f"build {INT8}"]}
    other = graph.parent / "checkout" / "graphs"
    shutil.copytree(graph, other)
    refused = run("publish", other, *store)
    assert (refused.code, refused.data) == (1, [])
    assert f"{GRAPH} cannot be published, since what it requires is missing: {FP32}: not built yet" in refused.err
    assert made(run("build", graph, *store, "--target", FP32)) == {GRAPH: [f"build {FP32}"]}
    assert made(run("publish", other, *store)) == {GRAPH: ["publish 1"]}
    assert made(run("publish", other, *store)) == {GRAPH: []}
    assert [path.name for path in (graph / GRAPH).iterdir() if path.is_dir()] == []
    assert not list(graph.parent.glob("**/.*.artifacts"))


def test_the_store_comes_from_the_environment(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFLEET_ARTIFACT_STORE", str(graph.parent / "shared"))
    assert made(run("build", graph, "--no-publish", "--json"))
    assert (graph.parent / "shared" / "artifacts").is_dir()
    monkeypatch.setenv("TRITONFLEET_ARTIFACT_STORE", "ftp://here")
    refused = run("build", graph)
    assert refused.code == 1
    assert "an artifact store is a folder or s3://<bucket>/<prefix>, not ftp://" in refused.flat


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shards_make_everything_together_and_nothing_twice(tmp_path: Path, count: int) -> None:
    """Each shard is planned before any is made, as on machines that begin at once."""
    for name in ("first", "second"):
        write_graph(tmp_path / "graphs", name=name)
    steps: list[tuple[str, str]] = []
    for number in range(1, count + 1):
        plans = run("build", tmp_path / "graphs", "--shard", f"{number}/{count}", "--plan", "--json").data
        steps += [(it["package"], step) for it in plans for step in it["steps"] if step.startswith("build ")]
    assert sorted(steps) == [(package, f"build {target}") for package in ("first", "second") for target in (FP32, INT8)]


def test_what_shards_made_is_published_as_one_version(graph: Path) -> None:
    parts = [run("build", graph, "--shard", f"{number}/2", "--json") for number in (1, 2)]
    # The second begins when the first is done, and yet has its own half; one that begins again has nothing to do.
    assert [made(part)[GRAPH] for part in parts] == [["export", f"build {FP32}"], [f"build {INT8}"]]
    assert made(run("build", graph, "--shard", "1/2", "--json")) == {GRAPH: []}
    assert made(run("publish", graph, "--json")) == {GRAPH: ["publish 1"]}


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_told(graph: Path, shard: str) -> None:
    ended = run("build", graph, "--shard", shard)
    assert ended.code == 2
    assert "--shard is i/n with 1 <= i <= n, such as 2/4" in ended.flat


def test_an_unknown_target_is_told_with_those_there_are(graph: Path) -> None:
    ended = run("build", graph, "--target", "tensorrt-sm_90-fp16", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert f"no package has the target tensorrt-sm_90-fp16; there are: {FP32}, {INT8}" in ended.flat


def test_names_and_all_exclude_each_other(repository: Path) -> None:
    assert run("build", repository, "--all", "one").code == 2
    assert len(run("build", repository, "--all", "--plan", "--json").data) == 2


def test_a_target_asked_for_by_name_fails_or_waits_though_it_is_optional(tmp_path: Path) -> None:
    write_graph(tmp_path, PLAIN, REFUSED, ELSEWHERE + "required = false\n")
    refused = run_here("build", "-r", str(tmp_path), "--target", INT8)
    assert (refused.code, f"no candidate of {INT8} can be kept" in refused.err) == (1, True)
    again = run_here("build", "-r", str(tmp_path), "--target", INT8)
    assert (again.code, f"{GRAPH} has no {INT8}: no candidate" in again.err) == (1, True)
    waits = run_here("build", "-r", str(tmp_path), "--target", "tensorrt-sm_75-fp32")
    assert waits.code == 4
    assert "needs a GPU of sm_75" in waits.flat
    assert run_here("build", "-r", str(tmp_path)).code == 0, "nothing required is missing"


def test_required_makes_what_a_version_cannot_be_without_and_publishes_it(tmp_path: Path) -> None:
    write_graph(tmp_path, PLAIN, QUANTIZED)
    add_package(tmp_path, "one")
    first = run_here("build", "-r", str(tmp_path), "--required", "--json")
    assert first.code == 0
    made = {it["package"]: it["made"] for it in first.data}
    assert made == {GRAPH: ["export", f"build {FP32}", "publish 1"], "one": ["publish 1"]}
    everything = run_here("build", "-r", str(tmp_path), "--json").data
    assert next(it for it in everything if it["package"] == GRAPH)["made"] == [f"build {INT8}", "publish 2"]
    assert run_here("build", "-r", str(tmp_path), "--required", "--target", FP32).code == 2


def test_the_members_of_members_are_built_too(tmp_path: Path) -> None:
    for name, member in (("a", "leaf"), ("outer", "a"), ("leaf", "none"), ("other", "none")):
        folder = add_package(tmp_path, name)
        text = ENSEMBLE.format(name=name).replace('"a" model_version', f'"{member}" model_version')
        (folder / "config.pbtxt").write_text(text)
    built = run_here("build", "outer", "-r", str(tmp_path), "--json").data
    assert {it["package"] for it in built} == {"a", "leaf", "outer"}


def test_the_makefile_gives_commands_that_there_are() -> None:
    makefile = (Path(__file__).parents[4] / "Makefile").read_text()
    called = re.findall(r"tritonfleet (\w+)(.*)", makefile)
    assert {name for name, _ in called} == {"demo", "build", "serve"}
    for name, rest in called:
        options = set(re.findall(r"--[a-z-]+", rest))
        told = run_here(name, "--help").out
        assert options <= set(re.findall(r"--[a-z-]+", told)), (name, options)
