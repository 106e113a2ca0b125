"""Candidates: every one that a target has is valid ONNX that gives the source's answers, or says why there is none."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.onnx.candidates import SOURCE, CandidateError, candidate_names, make_candidate
from builders.onnx.optimise import fuse, merge_products, with_opsets
from builders.onnx.quantize import calibration_inputs
from builders.parity import compare, onnx_runner
from builders.reference import Case, CaseKind
from builders.spec import Tolerance
from builders.targets import Precision, Target
from tests.unit.builders.onnx.tiny_graphs import block, cases, save

CPU_FP32 = Target("onnxruntime", "cpu", "fp32")
CPU_INT8 = Target("onnxruntime", "cpu", "int8")


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return block(tmp_path_factory.mktemp("source") / "model.onnx")


def test_names_are_the_simplest_first_and_need_calibration_where_ranges_are_fixed() -> None:
    assert candidate_names(CPU_FP32, calibrated=False)[0] == SOURCE
    assert candidate_names(CPU_INT8, calibrated=False) == (
        *("dynamic7", "dynamic7+merged+fused", "dynamic", "dynamic+merged+fused"),
    )
    assert {"split7", "static"} <= set(candidate_names(CPU_INT8, calibrated=True))
    assert candidate_names(Target("tensorrt", "sm_89", "fp8"), calibrated=False) == ()
    assert candidate_names(Target("onnxruntime", "cpu", "fp8"), calibrated=True) == ()


@pytest.mark.parametrize("name", ["plain", "fused", "merged", "merged+fused"])
def test_fp32_candidates_give_the_same_answers(source: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.onnx"
    make_candidate(name, CPU_FP32, source, (), out)
    parity, problems = compare(onnx_runner(out, threads=1), cases(source), Tolerance(max_abs_error=1e-5))
    assert problems == ()
    assert parity.items == 24


def test_rewrites_do_what_their_names_say(source: Path) -> None:
    model = onnx.load(source)
    merged = merge_products(model)
    counted = Counter(node.op_type for node in merged.graph.node)
    assert (counted["MatMul"], counted["Split"]) == (2, 1)
    assert not {"w0", "w1", "w2"} & {tensor.name for tensor in merged.graph.initializer}
    fused = fuse(model)
    assert {"BiasGelu", "Gelu"} & {node.op_type for node in fused.graph.node}
    assert "com.microsoft" in {opset.domain for opset in fused.opset_import}
    with pytest.raises(CandidateError, match="merging matrix products changes nothing"):
        merge_products(merged)


def test_onnxslim_folds_what_is_constant(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Add", ["one", "one"], ["two"]), onnx.helper.make_node("Mul", ["x", "two"], ["y"])]
    source = save(tmp_path / "model.onnx", nodes, {"one": 1.0})
    make_candidate("slim", CPU_FP32, source, (), tmp_path / "slim.onnx")
    assert operators(tmp_path / "slim.onnx") == {"Mul": 1}
    with pytest.raises(CandidateError, match="onnxslim changes nothing in this graph"):
        make_candidate("slim", CPU_FP32, tmp_path / "slim.onnx", (), tmp_path / "again.onnx")


def test_doubled_opset_imports_become_one(source: Path) -> None:
    model = onnx.load(source)
    model.opset_import.add(domain="ai.onnx", version=18)
    assert [(opset.domain, opset.version) for opset in with_opsets(model).opset_import] == [("", 18)]


@pytest.mark.parametrize("name", ["dynamic7", "dynamic7+merged+fused", "static7", "split7+merged+fused", "split8"])
def test_int8_candidates_compute_in_int8_and_come_close(tmp_path: Path, name: str) -> None:
    source = block(tmp_path / "model.onnx", outlier=4.0)
    out = tmp_path / "out.onnx"
    known = cases(source)
    make_candidate(name, CPU_INT8, source, known, out)
    assert {"MatMulInteger", "QuantizeLinear"} & set(operators(out))
    parity, _ = compare(onnx_runner(out, threads=1), known, Tolerance())
    assert parity.max_abs_error > 1e-6
    assert parity.min_cosine > 0.98


def test_channels_that_stand_out_are_taken_out_where_that_helps(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx", outlier=200.0)
    known = cases(source)
    closeness = {}
    for name in ("dynamic7", "split7"):
        make_candidate(name, CPU_INT8, source, known, tmp_path / "out.onnx")
        closeness[name] = compare(onnx_runner(tmp_path / "out.onnx", threads=1), known, Tolerance())[0]
    error = {name: parity.outputs["y"].mean_abs_error for name, parity in closeness.items()}
    assert error["split7"] < 0.7 * error["dynamic7"]
    relu = save(tmp_path / "relu.onnx", [onnx.helper.make_node("Relu", ["x"], ["y"])], {})
    with pytest.raises(CandidateError, match="no product of this graph has channels that stand out"):
        make_candidate("split7", CPU_INT8, relu, known, tmp_path / "out.onnx")


@pytest.mark.parametrize("name", ["cast", "cast+merged+fused"])
def test_fp16_keeps_inputs_and_outputs_and_what_would_overflow(source: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out.onnx"
    known = cases(source)
    make_candidate(name, Target("onnxruntime", "cuda", "fp16"), source, known, out)
    model = onnx.load(out)
    types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert types == {onnx.TensorProto.FLOAT}
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert weights["w3/low"] == onnx.TensorProto.FLOAT16
    assert weights["huge"] == onnx.TensorProto.FLOAT
    assert "w3" not in weights
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    assert softmax.input[0] == "masked"
    parity, problems = compare(onnx_runner(out, threads=1), known, Tolerance(min_cosine=0.9999))
    assert problems == ()
    assert parity.max_abs_error > 0


def test_a_tensor_that_grows_too_large_for_fp16_stays_fp32(tmp_path: Path) -> None:
    source = block(tmp_path / "model.onnx", outlier=8e3)
    make_candidate("cast", Target("onnxruntime", "cuda", "fp16"), source, cases(source), tmp_path / "out.onnx")
    written = {name for node in onnx.load(tmp_path / "out.onnx").graph.node for name in node.output}
    assert "h/low" not in written
    assert "p3/low" in written
    run = onnx_runner(tmp_path / "out.onnx", threads=1)
    parity, problems = compare(run, cases(source), Tolerance(min_cosine=0.999))
    assert problems == (), parity


def test_bf16_weights_are_bf16(source: Path, tmp_path: Path) -> None:
    make_candidate("cast", Target("tensorrt", "sm_89", "bf16"), source, cases(source), tmp_path / "out.onnx")
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert weights["w0/low"] == onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize(("precision", "cosine"), [("int8", 0.995), ("fp8", 0.98)])
def test_pairs_for_gpus_are_symmetric(source: Path, tmp_path: Path, precision: Precision, cosine: float) -> None:
    out = tmp_path / "out.onnx"
    known = cases(source)
    make_candidate("qdq", Target("tensorrt_rtx", "sm_89", precision), source, known, out)
    model = onnx.load(out)
    zeros = [tensor for tensor in model.graph.initializer if tensor.name.endswith("/zero_point")]
    assert len(zeros) == 6  # two activations, four weights
    assert not any(onnx.numpy_helper.to_array(tensor).astype(float).any() for tensor in zeros)
    assert operators(out)["QuantizeLinear"] == 2
    parity, _ = compare(onnx_runner(out, threads=1), known, Tolerance())
    assert cosine < parity.min_cosine < 0.999999


def test_a_package_calibrates_with_its_own_data_where_it_has_some() -> None:
    kinds: list[CaseKind] = ["golden", "calibration", "random", "calibration", "measure"]
    cases = [Case(kind, kind, 1, {"x": np.asarray([n])}, {}) for n, kind in enumerate(kinds)]
    assert [int(inputs["x"][0]) for inputs in calibration_inputs(cases)] == [1, 3]
    others = [case for case in cases if case.kind != "calibration"]
    assert [int(inputs["x"][0]) for inputs in calibration_inputs(others)] == [0, 2, 4]


def test_what_cannot_be_made_is_refused_in_a_sentence(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(CandidateError, match="onnxruntime-cpu-fp32 has no candidate 'dynamic'"):
        make_candidate("dynamic", CPU_FP32, source, (), out)
    with pytest.raises(CandidateError, match="calibration needs cases, and there is none"):
        make_candidate("qdq", Target("tensorrt", "sm_89", "int8"), source, (), out)
