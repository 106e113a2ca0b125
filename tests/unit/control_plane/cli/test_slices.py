"""`placement show|plan|apply|explain|defrag` against the real REST API, over GPUs in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from control_plane.slicing import Seat
from tests.command_line import run_here
from tests.embedded_triton import seconds_until
from tests.fakes.rest import answering
from tests.fakes.rig import Rig
from tests.fakes.world import a_package

PACKAGES = tuple(a_package(name) for name in "abc")


@contextmanager
def cut_gpus() -> Iterator[tuple[Rig, str]]:
    """Two GPUs, each half full with a 3g."""
    rig = Rig(packages=PACKAGES, gpus=("h100-80gb,h100-80gb",))
    with answering(rig) as url:
        for name, profile in (("c", "7g.80gb"), ("a", "3g.40gb")):
            made = run_here("deploy", name, "--require-mig", profile, "--wait", "10", "--url", url)
            assert made.code == 0, made.err
        assert run_here("undeploy", "c", "--wait", "10", "--url", url).code == 0
        seconds_until(lambda: len(rig.slices.kept) == 1, 30)
        assert run_here("deploy", "b", "--require-mig", "4g.40gb", "--wait", "10", "--url", url).code == 0
        yield rig, url


def seats(rig: Rig) -> dict[str, Seat]:
    return {str(it.replica): it.seat for it in rig.slices.kept.values() if not it.leaving}


def moved_together(rig: Rig) -> bool:
    """Whether all is on one GPU, and what was left is gone; clients have time to notice meanwhile."""
    rig.clock.move(1)
    return len({it.gpu for it in seats(rig).values()}) == 1 and len(rig.slices.kept) == 2


def test_gpus_are_shown_with_who_is_on_them_and_drawn(tmp_path: Path) -> None:
    drawing = tmp_path / "new" / "gpus.svg"
    with cut_gpus() as (_, url):
        shown = run_here("placement", "show", "--svg", str(drawing), "--url", url)
        data = run_here("placement", "show", "--json", "--url", url).data
    assert (shown.code, shown.err) == (0, "")
    assert "|3g a/0" in shown.out
    assert "fits: 3g.40gb" in shown.flat or "fits: 4g.40gb" in shown.flat
    assert [it["state"] for gpu in data["gpus"] for it in gpu["slices"]] == ["running", "running"]
    assert {it["deployment"] for gpu in data["gpus"] for it in gpu["slices"]} == {"a", "b"}
    assert ET.fromstring(drawing.read_text()).tag.endswith("svg")  # noqa: S314 - our own


def test_a_drawing_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with cut_gpus() as (_, url):
        failed = run_here("placement", "show", "--svg", str(tmp_path / "file" / "x.svg"), "--url", url)
    assert failed.code == 1
    assert "x.svg: cannot be written" in failed.err


def test_the_whole_is_planned_and_carried_out_and_then_there_is_nothing_to_do() -> None:
    with cut_gpus() as (rig, url):
        before = seats(rig)
        assert before["a/0"].gpu != before["b/0"].gpu
        assert "nothing is to be done" in run_here("placement", "plan", "--url", url).out
        planned = run_here("placement", "plan", "--whole", "--url", url)
        assert "proved to be the least" in planned.out
        tidy = run_here("placement", "defrag", "--dry-run", "--url", url)
        assert "empty GPUs: 0 now, 1 after 1 moves" in tidy.out
        assert seats(rig) == before, "nothing was touched"
        applied = run_here("placement", "apply", "--json", "--url", url).data
        assert applied["changed"] == 2
        seconds_until(lambda: moved_together(rig), 30)
        assert "nothing is to be done" in run_here("placement", "defrag", "--url", url).out
        assert run_here("placement", "show", "--json", "--url", url).data["moves_left"] == 11


def test_each_replica_is_explained_and_one_without_a_slice_with_what_it_takes() -> None:
    with cut_gpus() as (_, url):
        told = run_here("placement", "explain", "a/0", "--url", url)
        assert "3g.40gb can hold it" in told.flat
        assert "would take it" in told.flat
        unknown = run_here("placement", "explain", "nobody", "--url", url)
        assert (unknown.code, "There are: a, b" in unknown.flat) == (1, True)
        assert run_here("placement", "explain", "a/7", "--url", url).code == 2
        asked = ("--require-mig", "7g.80gb", "--replicas", "2")
        refused = run_here("deploy", "c", *asked, "--url", url)
        assert refused.code == 1
        assert "it takes one 7g.80gb of h100-80gb more" in refused.flat
        assert run_here("deploy", "c", *asked, "--anyway", "--wait", "0", "--url", url).code == 0
        seconds_until(lambda: "c/1" in run_here("placement", "explain", "c", "--url", url).out, 20)
        told = run_here("placement", "explain", "c/1", "--url", url)
        assert "nowhere" in told.out
        shown = run_here("placement", "show", "--url", url)
        assert "without a slice" in shown.flat


def test_a_dry_run_names_the_slice_that_would_be_cut_and_cuts_none() -> None:
    rig = Rig(packages=PACKAGES, gpus=("h100-80gb",))
    with answering(rig) as url:
        assert rig.slicer is not None
        slicer = rig.slicer
        seconds_until(lambda: bool(slicer.view.gpus), 20)
        shown = run_here("deploy", "a", "--require-mig", "3g.40gb", "--dry-run", "--url", url)
        assert (shown.code, rig.slices.kept, rig.nodes[0].calls) == (0, {}, [])
    assert "load n0-" in shown.flat
    assert "3g.40gb" in shown.flat


def test_where_no_gpus_are_cut_that_is_told_with_what_to_do() -> None:
    with answering(Rig()) as url:
        told = run_here("placement", "show", "--url", url)
    assert told.code == 1
    assert "tritonfleet serve --simulate" in told.flat
