"""One target made: candidates judged and timed, the fastest right one kept, a refusal told with its reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest

from builders.artifacts import SOURCE
from builders.digests import file_digest
from builders.errors import MachineError, ParityError, SpecError, TargetError
from builders.exporting import write_export
from builders.forms import DENSE, MODEL, load_forms
from builders.making import Making, form_name, make_artifact
from builders.plan import TargetStep, ToDo
from builders.spec import BuildSpec, TargetSpec, Tolerance, read_spec
from tests.tiny_packages import FP32, INT8, WIDTH, write_graph

CPU = {"runtime": "onnxruntime", "device": "cpu"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildSpec, Path]:
    """Return a package's spec and the folder of its export."""
    package = write_graph(tmp_path_factory.mktemp("package") / "repository")
    export = tmp_path_factory.mktemp("export")
    read = read_spec(package)
    write_export(read, package, export, lambda *_step: None)
    return read, export


Make = Callable[..., Making]


@pytest.fixture
def making(spec: tuple[BuildSpec, Path], tmp_path: Path) -> Make:
    """Return what makes a Making of a target; `unproven` says why it does not run here."""

    def make(precision: str = "fp32", *, unproven: str = "", **more: object) -> Making:
        target = TargetSpec.model_validate({**CPU, "precision": precision, **more})
        step = TargetStep(target, "key", ToDo("not made yet"), {}, unproven)
        read, export = spec
        return Making(read, step, export, load_forms(export)[MODEL], tmp_path, lambda *_step: None)

    return make


def test_the_kept_candidate_is_named_after_the_target_and_proven(making: Make, tmp_path: Path) -> None:
    made = make_artifact(making(candidates=["plain"]))
    assert (made.files, made.chosen, made.unproven) == ((f"{FP32}.onnx",), "plain", "")
    onnx.checker.check_model(str(tmp_path / f"{FP32}.onnx"))
    assert made.parity is not None
    assert made.parity.max_abs_error == 0
    (result,) = made.candidates
    assert sorted(result.seconds) == ["1", "4"]
    assert min(result.seconds.values()) > 0
    assert (result.min_cosine, result.refused) == (1.0, "")


def test_a_candidate_that_does_not_suit_the_graph_is_told_and_the_others_go_on(making: Make) -> None:
    made = make_artifact(making(candidates=["plain", "merged"]))
    refused = {result.name: result.refused for result in made.candidates}
    assert refused == {"plain": "", "merged": "merging matrix products changes nothing in this graph"}


def test_candidates_of_another_precision_are_timed_beside_the_source(making: Make) -> None:
    made = make_artifact(making("int8", candidates=["dynamic"], tolerance=Tolerance(min_cosine=0.5)))
    by_name = {result.name: result for result in made.candidates}
    assert set(by_name) == {"dynamic", SOURCE}
    assert by_name["dynamic"].seconds.keys() == by_name[SOURCE].seconds.keys()
    assert by_name[SOURCE].refused == "the source, to compare with"
    assert (made.chosen, made.files) == ("dynamic", (f"{INT8}.onnx",))
    assert made.parity is not None
    assert 0.5 <= made.parity.min_cosine < 1


def test_a_packages_own_calibration_data_gives_the_ranges(tmp_path: Path) -> None:
    package = write_graph(tmp_path / "repository", "[calibration]\n")
    items = [{"inputs": {"x": [end] * WIDTH}} for end in (-1.275, 1.275)]
    (package / "calibration.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    read, export, work = read_spec(package), tmp_path / "export", tmp_path / "work"
    export.mkdir()
    work.mkdir()
    write_export(read, package, export, lambda *_step: None)
    loose = {**CPU, "precision": "int8", "candidates": ["static"], "tolerance": {"min_cosine": 0.1}}
    step = TargetStep(TargetSpec.model_validate(loose), "key", ToDo("not made yet"), {}, "")
    make_artifact(Making(read, step, export, load_forms(export)[MODEL], work, lambda *_step: None))
    model = onnx.load(work / f"{INT8}.onnx")
    (node,) = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x"]
    (scale,) = [array for array in model.graph.initializer if array.name == node.input[1]]
    assert float(onnx.numpy_helper.to_array(scale)) == pytest.approx(0.01, rel=0.02)


def test_what_departs_is_refused_with_how_far_where_and_which_layer(making: Make, tmp_path: Path) -> None:
    told = (
        rf"no candidate of {INT8} can be kept: dynamic: output y: cosine 0\.\d+ \(at least 0\.9999999 is asked for\), "
        r"worst in case .*, item \d+; the first layer that departs is .* 'product"
    )
    with pytest.raises(ParityError, match=told):
        make_artifact(making("int8", candidates=["dynamic"], tolerance=Tolerance(min_cosine=0.9999999)))
    assert not (tmp_path / f"{INT8}.onnx").exists()


def test_what_does_not_run_here_is_the_simplest_right_candidate_unproven_and_not_timed(making: Make) -> None:
    made = make_artifact(making(unproven="needs an NVIDIA GPU", candidates=["plain", "slim"]))
    assert (made.chosen, made.unproven) == ("plain", "needs an NVIDIA GPU")
    assert [(result.name, result.seconds) for result in made.candidates] == [("plain", {})]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this one has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_what_this_machine_could_not_judge_is_no_verdict_on_the_model(making: Make) -> None:
    told = (
        r"onnxruntime-cuda-fp32 cannot be made here now: plain: .* not with CUDA; .*; merged: merging matrix products"
    )
    with pytest.raises(MachineError, match=told) as caught:
        make_artifact(making(device="cuda", candidates=["plain", "merged"]))
    assert not isinstance(caught.value, TargetError)


def test_an_unknown_candidate_is_told_with_those_there_are(making: Make) -> None:
    with pytest.raises(SpecError, match=f"{FP32} has no candidate fastest; it has: plain, slim"):
        make_artifact(making(candidates=["plain", "fastest"]))


def test_the_export_is_left_as_it_was(making: Make, spec: tuple[BuildSpec, Path]) -> None:
    source = spec[1] / "model.onnx"
    before = file_digest(source)
    make_artifact(making())
    assert file_digest(source) == before


def test_compilers_take_the_dense_form_where_there_is_one(making: Make) -> None:
    step = making().step
    engine = TargetSpec.model_validate({"runtime": "tensorrt", "device": "sm_90", "precision": "fp16"})
    assert form_name(step, (MODEL, DENSE)) == MODEL
    assert form_name(replace(step, spec=engine), (MODEL, DENSE)) == DENSE
    assert form_name(replace(step, spec=engine), (MODEL,)) == MODEL
