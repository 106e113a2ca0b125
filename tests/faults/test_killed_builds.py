"""Builds that are killed -9 anywhere: no half version, and the next build does only what was not finished.

Where they are killed is said by what they were about to do (`killed_builds`); two are killed from outside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.command_line import DEADLINE_S, run_here
from tests.embedded_triton import seconds_until
from tests.faults.killed_builds import KilledBuilds, killed_builds
from tests.faults.workshop import ALL, BUILD, PUBLISH, Workshop, built, left_in_staging, manifest_of, tried
from tests.tiny_packages import (
    FP32,
    GRAPH,
    INT8,
    PLAIN,
    REFUSED,
    write_graph,
    write_large_stage,
)

LARGE = 48 * 1024 * 1024
ENGINE = """\
[[targets]]
runtime = "tensorrt_rtx"
device = "sm_89"
precision = "fp32"
required = false
candidates = ["plain"]
"""


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledBuilds]:
    with killed_builds(tmp_path_factory.mktemp("builds") / "scratch") as process:
        yield process


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    write_graph(tmp_path / "repository", PLAIN, REFUSED)
    return Workshop(tmp_path / "repository", tmp_path / "site")


def kill_when(workshop: Workshop, reached: Callable[[psutil.Process], bool], *more: str) -> None:
    """Begin a build and kill -9 it as soon as it is where `reached` says."""
    with workshop.build_begun(*more) as process:
        seen = psutil.Process(process.pid)

        def is_there() -> bool:
            assert process.poll() is None, process.communicate()
            return reached(seen)

        seconds_until(is_there, DEADLINE_S)
        started = seen.children(recursive=True)
        process.kill()
        process.wait(DEADLINE_S)
    assert psutil.wait_procs(started, timeout=10)[1] == []


STAGED = "/.repository.staging/version-*"
STORED = "/.repository.artifacts"
VERSION = f"/repository/{GRAPH}/1"


@dataclass(frozen=True, slots=True)
class Moment:
    """What a build was about to do (the first or the last time), what is then left, and whether INT8 is tried again."""

    event: str
    which: int
    left: tuple[str, ...]
    tries_again: bool = False


MOMENTS = [
    Moment(f"os.mkdir {STAGED}/export", 0, ALL, tries_again=True),
    Moment(f"open {STAGED}/export/model.npz", 0, ALL, tries_again=True),
    Moment(f"os.mkdir {STORED}", 0, ALL, tries_again=True),
    Moment(f"open {STORED}/objects/*/*", 0, ALL, tries_again=True),  # the first file is there, nothing is flushed
    Moment(
        f"open {STORED}/artifacts/*/*.json", 0, (BUILD, PUBLISH), tries_again=True
    ),  # the record is there, not flushed
    Moment(f"os.mkdir {STAGED}/{FP32}", 0, (BUILD, PUBLISH), tries_again=True),
    Moment(f"open {STAGED}/{FP32}/candidate-0.onnx", 0, (BUILD, PUBLISH), tries_again=True),
    Moment(f"os.rename {STAGED}/{FP32}/{FP32}.onnx", 0, (BUILD, PUBLISH), tries_again=True),
    Moment(
        f"open {STORED}/objects/*/*", -1, (BUILD, PUBLISH), tries_again=True
    ),  # the target's file is there, its record is not
    Moment(f"os.mkdir {STAGED}/{INT8}", 0, (PUBLISH,), tries_again=True),
    Moment(f"open {STAGED}/{INT8}/candidate-0.onnx", 0, (PUBLISH,), tries_again=True),
    Moment(f"open {STORED}/artifacts/*/*.json", -1, (PUBLISH,)),  # that it is refused is recorded
    Moment(f"os.mkdir {STAGED}/content", 0, (PUBLISH,)),
    Moment(f"os.rename {STAGED}/content/{FP32}.onnx", 0, (PUBLISH,)),
    Moment(f"open {STAGED}/content/sbom.json", 0, (PUBLISH,)),
    Moment(f"open {STAGED}/content/manifest.json", 0, (PUBLISH,)),
    Moment(f"os.chmod {STAGED}/content/{FP32}.onnx", 0, (PUBLISH,)),
    Moment(f"os.rename {VERSION}", 0, (PUBLISH,)),
    Moment(f"open {VERSION}/config.pbtxt", 0, ()),  # renamed; the config beside it is not there
    Moment(f"os.rename /repository/{GRAPH}/config.pbtxt", 0, ()),
]


@pytest.fixture(scope="module")
def whole_build(tmp_path_factory: pytest.TempPathFactory, builds: KilledBuilds) -> list[str]:
    """Return what a build that nobody kills does to files, in order."""
    folder = tmp_path_factory.mktemp("whole")
    write_graph(folder / "repository", PLAIN, REFUSED)
    ended = builds.run(folder, "build", "-r", str(folder / "repository"), "--json")
    events = builds.events()
    assert built(ended) == [(1, True, list(ALL))]
    assert tried(ended) == [INT8]
    return events


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment.event}-{moment.which}")
def test_a_killed_build_leaves_no_half_version_and_the_next_goes_on_from_there(
    workshop: Workshop, builds: KilledBuilds, whole_build: list[str], moment: Moment
) -> None:
    folder, arguments = workshop.repository.parent, ("build", "-r", str(workshop.repository), "--json")
    kill_at = [number for number, name in enumerate(whole_build) if name == moment.event][moment.which]
    assert builds.run(folder, *arguments, kill_at=kill_at).code == -9
    assert workshop.versions() == ([] if PUBLISH in moment.left else ["1"])
    ended = builds.run(folder, *arguments)
    assert built(ended) == [(1, PUBLISH in moment.left, list(moment.left))]
    assert tried(ended) == ([INT8] if moment.tries_again else [])
    assert workshop.versions() == ["1"]
    assert left_in_staging(workshop) == ["lock"]
    package = workshop.repository / GRAPH
    assert (package / "config.pbtxt").read_bytes() == (package / "1" / "config.pbtxt").read_bytes()
    assert list(manifest_of(package / "1").missing) == [INT8]
    assert run_here(*arguments, "--plan").data[0]["steps"] == []


def test_a_build_killed_while_it_adds_a_large_file_to_the_store(workshop: Workshop) -> None:
    """The store's writer works in threads of its own, which no event tells of."""
    write_large_stage(workshop.repository, workshop.site, "large", LARGE)

    def is_being_written(_process: psutil.Process) -> bool:
        return any((workshop.store / "objects").glob("*/*#*"))

    kill_when(workshop, is_being_written, "large")
    assert workshop.versions("large") == []
    assert not list(workshop.store.glob("artifacts/*/*.json"))
    assert built(workshop.build("large")) == [(1, True, ["export", "publish 1"])]
    assert workshop.versions("large") == ["1"]


@pytest.mark.skipif(find_spec("tensorrt_rtx_bindings") is None, reason="TensorRT-RTX is not installed")
def test_a_build_killed_while_an_engine_is_compiled_leaves_no_compiler(tmp_path: Path) -> None:
    write_graph(tmp_path / "repository", PLAIN, ENGINE)
    workshop = Workshop(tmp_path / "repository", tmp_path / "site")
    kill_when(workshop, lambda process: len(process.children(recursive=True)) > 1)
    assert workshop.versions() == []
    done = workshop.build()
    assert built(done) == [(1, True, ["build tensorrt_rtx-sm_89-fp32", "publish 1"])]
    manifest = manifest_of(workshop.repository / GRAPH / "1")
    engine = manifest.targets["tensorrt_rtx-sm_89-fp32"]
    assert engine.unproven == "needs a GPU of sm_89"
    assert (workshop.repository / GRAPH / "1" / engine.filename).stat().st_size > 1000
    assert left_in_staging(workshop) == ["lock"]
