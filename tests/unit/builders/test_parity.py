"""Parity: what is within tolerance passes, everything else is told with its tensor, how far it is and where."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from builders.errors import MachineError, ParityError, TargetError
from builders.parity import CandidateError, Run, compare, onnx_runner, refusal
from builders.reference import Case, Tensors
from builders.spec import Tolerance
from tests.tiny_packages import write_layer

Array = npt.NDArray[Any]
SCORES = np.asarray([[0.1, 0.9], [0.8, 0.2]], np.float32)


def case(outputs: dict[str, Array], labels: list[int] | None = None, name: str = "a") -> Case:
    known = None if labels is None else np.asarray(labels)
    return Case(name, "golden", 2, {"x": np.zeros((2, 1), np.float32)}, outputs, known)


def answering(**outputs: Array) -> Run:
    def run(_inputs: Tensors) -> dict[str, Array]:
        return dict(outputs)

    return run


def test_equal_answers_pass_everything() -> None:
    exact = Tolerance(min_cosine=1, max_abs_error=1e-12, mean_abs_error=1e-12, min_top1=1, min_score=1)
    parity, problems = compare(answering(y=SCORES), [case({"y": SCORES}, [1, 0])], exact)
    assert problems == ()
    assert (parity.cases, parity.items, parity.score, parity.source_score) == (1, 2, 1.0, 1.0)
    assert parity.outputs["y"].top1 == 1.0
    assert parity.outputs["y"].min_cosine == pytest.approx(1)


def test_each_bound_says_which_tensor_how_far_and_where() -> None:
    given = np.asarray([[0.1, 0.9], [0.3, 0.7]], np.float32)
    asked = Tolerance(min_cosine=0.99, max_abs_error=0.01, mean_abs_error=0.001, min_top1=0.9, min_score=0.9)
    parity, problems = compare(answering(y=given), [case({"y": SCORES}, [1, 0])], asked)
    cosine = (0.8 * 0.3 + 0.2 * 0.7) / math.hypot(0.8, 0.2) / math.hypot(0.3, 0.7)
    assert parity.outputs["y"].min_cosine == pytest.approx(cosine)
    assert parity.outputs["y"].max_abs_error == pytest.approx(0.5)
    assert parity.outputs["y"].mean_abs_error == pytest.approx(0.25)
    assert parity.score == 0.5
    assert problems == (
        f"output y: cosine {cosine:.6f} (at least 0.99 is asked for), worst in case a, item 1",
        "output y: largest error 5.00e-01 (at most 1e-02 is asked for), worst in case a, item 1",
        "output y: mean error 2.50e-01 (at most 1e-03 is asked for), worst in case a, item 1",
        (
            "output y: the largest element agrees for 50.00% of items (at least 90.00% is asked for), first not in "
            "case a, item 1"
        ),
        "the golden set's score is 0.5000 (at least 0.9 is asked for)",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("in_source", [False, True])
def test_what_is_not_finite_never_passes(value: float, in_source: bool) -> None:  # noqa: FBT001 - a test's parameter
    broken = SCORES.copy()
    broken[1, 0] = value
    source = broken if in_source else SCORES
    parity, problems = compare(answering(y=broken), [case({"y": source})], Tolerance())
    assert problems == ("output y: not finite, in case a, item 1",)
    assert parity.max_abs_error == math.inf
    assert parity.min_cosine == -1


def test_missing_outputs_and_other_shapes_are_told() -> None:
    cases = [case({"y": SCORES, "z": SCORES})]
    _, problems = compare(answering(y=SCORES[:1]), cases, Tolerance())
    assert problems == (
        "output y: shape (1, 2) where the source has (2, 2), in case a",
        "output z: the artifact has no such output",
    )


def test_whole_numbers_and_texts_are_compared_exactly() -> None:
    source: dict[str, Array] = {"ids": np.asarray([[1, 2], [3, 4]]), "text": np.asarray(["a", "b"], object)}
    bytes_too = {"ids": source["ids"], "text": np.asarray([b"a", b"b"], object)}
    assert compare(answering(**bytes_too), [case(source)], Tolerance())[1] == ()
    given = answering(ids=np.asarray([[1, 2], [3, 5]]), text=np.asarray(["a", "c"], object))
    parity, problems = compare(given, [case(source)], Tolerance())
    assert problems == (
        "output ids: 1 of 4 elements differ, in case a, item 1",
        "output text: 1 of 2 elements differ, in case a, item 1",
    )
    assert parity.outputs["ids"].mean_abs_error == 0.25
    assert parity.min_cosine == 0


def test_a_predicted_class_is_held_to_top1_where_that_is_asked_for() -> None:
    source = {"label": np.asarray([1, 0])}
    parity, problems = compare(answering(label=np.asarray([1, 1])), [case(source, [1, 0])], Tolerance(min_top1=0.5))
    assert problems == ()
    assert parity.outputs["label"].top1 == 0.5
    assert (parity.score, parity.source_score) == (0.5, 1.0)


def test_zeros_are_like_zeros_only() -> None:
    zeros = np.zeros((2, 2), np.float32)
    assert compare(answering(y=zeros), [case({"y": zeros})], Tolerance(min_cosine=1))[1] == ()
    assert compare(answering(y=SCORES), [case({"y": zeros})], Tolerance(min_cosine=0.5))[0].min_cosine == 0


def test_a_score_without_labels_and_an_empty_set_prove_nothing() -> None:
    _, problems = compare(answering(y=SCORES), [case({"y": SCORES})], Tolerance(min_score=0.5))
    assert problems == (
        "the golden set's score cannot be told: the golden set has no labels (at least 0.5 is asked for)",
    )
    with pytest.raises(ParityError, match="the reference set is empty"):
        compare(answering(), [], Tolerance())


def test_what_onnx_runtime_refuses_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(CandidateError, match=r"^model\.onnx: ONNX Runtime does not load it: "):
        onnx_runner(tmp_path / "model.onnx")


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this one has CUDA")
def test_what_is_to_run_with_cuda_never_runs_on_the_cpu_instead(tmp_path: Path) -> None:
    write_layer(tmp_path / "model.onnx")
    said = r"^model\.onnx: this ONNX Runtime runs it with CPUExecutionProvider alone, not with CUDA; it needs "
    with (
        pytest.warns(UserWarning, match="'CUDAExecutionProvider' is not in available provider names"),
        pytest.raises(MachineError, match=said),
    ):
        onnx_runner(tmp_path / "model.onnx", cuda=True)


@pytest.mark.parametrize(
    ("exc", "of_machine"),
    [
        (RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 5368709120"), True),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=x"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (OSError(28, "No space left on device"), True),
        (RuntimeError("Could not find an implementation for Gelu(20) node"), False),
        (RuntimeError("Exception during initialization: Type Error: Type (tensor(float16)) of output"), False),
    ],
)
def test_trouble_of_the_machine_is_no_refusal_of_the_graph(exc: Exception, of_machine: bool) -> None:  # noqa: FBT001
    raised = refusal(exc, "told")
    assert isinstance(raised, MachineError) == of_machine
    assert isinstance(raised, TargetError) != of_machine
    assert str(raised) == "told"
