"""Parity: proof that an artifact gives its source's answers, output by output, on every case of a reference set.

Whatever runs the artifact is passed in: `onnx_runner` for ONNX Runtime, an engine's runner for TensorRT. What is not
within the spec's tolerance comes back as sentences that name the tensor, how far it is and where it is worst.
`builders.onnx.departure` then says which layer departs first. Something that is not finite never passes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.artifacts import OutputParity, Parity
from builders.errors import MachineError, MissingExtraError, ParityError, TargetError
from builders.machine import is_machine_trouble
from builders.reference import Case, Tensors

if TYPE_CHECKING:
    from builders.spec import Tolerance


class CandidateError(TargetError):
    """One way to make a target's artifact does not work for this graph; the others may."""


def refusal(exc: Exception, told: str) -> CandidateError | MachineError:
    """Return what to raise with the sentence `told` where a tool failed on a graph by `exc`."""
    return MachineError(told) if is_machine_trouble(exc) else CandidateError(told)


_CUDA = "CUDAExecutionProvider"

Array = npt.NDArray[Any]
Run = Callable[[Tensors], dict[str, Array]]
"""Takes a call's inputs by name, returns its outputs by name. Raises CandidateError where the artifact refuses them,
MachineError where this machine cannot run it now."""


def onnx_runner(path: Path, *, threads: int = 0, cuda: bool = False) -> Run:
    """Return what runs the ONNX file `path` with `threads` threads (0: one for each core), on the CPU or with CUDA.

    Where it is to run with CUDA, it does: ONNX Runtime takes the CPU instead where it lacks CUDA, whose answers prove
    nothing of a GPU. Single nodes without a CUDA kernel stay on the CPU, as they do where the artifact serves.

    Raises CandidateError where ONNX Runtime does not load it, MachineError where it has no CUDA or no memory for it,
    and MissingExtraError where there is no ONNX Runtime.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError("onnxruntime", "cpu") from exc
    failures = onnx_failures()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised as well
    try:
        # Without its fallback, a provider that fails later, in a run, is not exchanged for the CPU either.
        provider = _CUDA if cuda else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
    except failures as exc:
        raise refusal(exc, f"{path.name}: ONNX Runtime does not load it: {_first_line(exc)}") from exc
    if cuda and _CUDA not in session.get_providers():
        raise MachineError(
            f"{path.name}: this ONNX Runtime runs it with {', '.join(session.get_providers())} alone, not with CUDA; "
            "it needs onnxruntime-gpu without onnxruntime beside it (the extra gpu, not cpu), and CUDA's libraries"
        )
    names = [output.name for output in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}

    def run(inputs: Tensors) -> dict[str, Array]:
        try:
            values = session.run(names, {name: value for name, value in inputs.items() if name in taken})
        except failures as exc:
            raise refusal(exc, f"{path.name}: ONNX Runtime does not run it: {_first_line(exc)}") from exc
        return dict(zip(names, values, strict=True))

    return run


def onnx_failures() -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises where it does not load or run a graph: it has no common root."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states  # noqa: PLC0415 - an optional extra

    own: list[type[Exception]] = [getattr(states, name) for name in _FAILURES]
    return (RuntimeError, ValueError, MemoryError, *own)


_FAILURES = (
    *("Fail", "InvalidArgument", "NoSuchFile", "NoModel", "EngineError", "RuntimeException", "InvalidProtobuf"),
    *("ModelLoaded", "NotImplemented", "InvalidGraph", "EPFail"),
)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).partition("\n")[0][:400]


def compare(run: Run, cases: Sequence[Case], tolerance: "Tolerance") -> tuple[Parity, tuple[str, ...]]:
    """Run every case and return how close the answers are, and the problems in sentences: none where it passes.

    An item is one row of an output whose first dimension is the case's batch; any other output is one item. Outputs
    that are not floating point must be equal: an element that is not counts as an error of 1, its item as cosine 0.
    Top-1 agreement is asked of outputs [B, classes] where `tolerance.min_top1` is given; there it is asked of whole
    numbers as well, one for each item, in place of equality.
    """
    if not cases:
        raise ParityError("the reference set is empty: nothing can be proven with it; build the package again")
    seen: dict[str, _Seen] = {name: _Seen(name) for name in cases[0].outputs}
    problems: list[str] = []
    actual_score, source_score = _Score(), _Score()
    for case in cases:
        actual = run(case.inputs)
        for name, expected in case.outputs.items():
            problem = seen[name].add(case, expected, actual.get(name), top1=tolerance.min_top1 is not None)
            if problem is not None:
                problems.append(problem)
        actual_score.add(case, actual)
        source_score.add(case, case.outputs)
    for output in seen.values():
        problems += output.problems(tolerance)
    score = actual_score.value
    if tolerance.min_score is not None and not (score is not None and score >= tolerance.min_score):
        said = "cannot be told: the golden set has no labels" if score is None else f"is {score:.4f}"
        problems.append(f"the golden set's score {said} (at least {tolerance.min_score:g} is asked for)")
    items = sum(case.batch for case in cases)
    outputs = {name: output.parity(top1=tolerance.min_top1 is not None) for name, output in seen.items()}
    return Parity(len(cases), items, outputs, score, source_score.value), tuple(dict.fromkeys(problems))


@dataclass(slots=True)
class _Seen:
    """What was seen of one output so far; `worst_*` say in which case and item."""

    name: str
    total_error: float = 0.0
    elements: int = 0
    max_error: float = 0.0
    max_error_at: str = ""
    min_cosine: float = 1.0
    min_cosine_at: str = ""
    agreeing: int = 0
    judged: int = 0
    unequal: int = 0
    exact: bool = False
    disagreement_at: str = ""
    broken: list[str] = field(default_factory=list)

    def add(self, case: Case, expected: Array, actual: Array | None, *, top1: bool) -> str | None:
        """Hold one case's answer against the source's; return a problem that makes them incomparable."""
        if actual is None:
            self._lost()
            return f"output {self.name}: the artifact has no such output"
        if actual.shape != expected.shape:
            self._lost()
            return (
                f"output {self.name}: shape {actual.shape} where the source has {expected.shape}, in case {case.name}"
            )
        if expected.size == 0:
            return None
        floating = _floating(expected)
        if floating is not None and not _is_number(actual):
            self._lost()
            return f"output {self.name}: {actual.dtype} where the source has {expected.dtype}"
        rows = case.batch if expected.ndim and expected.shape[0] == case.batch else 1
        if floating is None:
            self._add_exact(case, expected.reshape(rows, -1), actual.reshape(rows, -1), top1=top1)
            return None
        wanted, given = floating.reshape(rows, -1), actual.astype(np.float64).reshape(rows, -1)
        self._add_close(case, wanted, given)
        if top1 and expected.ndim == 2 and expected.shape[1] > 1:  # noqa: PLR2004 - [B, classes]
            self._add_top1(case, wanted.argmax(1) == given.argmax(1))
        return None

    def _add_close(self, case: Case, wanted: npt.NDArray[np.float64], given: npt.NDArray[np.float64]) -> None:
        finite = np.isfinite(wanted).all(1) & np.isfinite(given).all(1)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(finite, np.abs(wanted - given).max(1), math.inf)
            cosine = np.where(finite, _cosine(wanted, given), -1.0)
        self.total_error += float(np.abs(wanted - given).sum()) if finite.all() else math.inf
        self.elements += wanted.size
        if (worst := float(error.max())) > self.max_error:
            self.max_error, self.max_error_at = worst, _where(case, int(error.argmax()), len(error))
        if (lowest := float(cosine.min())) < self.min_cosine:
            self.min_cosine, self.min_cosine_at = lowest, _where(case, int(cosine.argmin()), len(cosine))
        if not finite.all():
            self.broken.append(_where(case, int(finite.argmin()), len(finite)))

    def _add_exact(self, case: Case, expected: Array, actual: Array, *, top1: bool) -> None:
        same = np.asarray(_comparable(expected) == _comparable(actual)) & np.ones(expected.shape, dtype=bool)
        if top1 and expected.shape[1] == 1 and expected.dtype.kind in "iu":
            self._add_top1(case, same[:, 0])
            self.elements += same.size
            return
        self.exact = True
        self.elements += same.size
        if not same.all():
            self.unequal += int((~same).sum())
            self.total_error += float((~same).sum())
            self.max_error, self.min_cosine = max(self.max_error, 1.0), 0.0
            self.max_error_at = self.max_error_at or _where(case, int(same.all(1).argmin()), len(same))

    def _add_top1(self, case: Case, agrees: npt.NDArray[np.bool_]) -> None:
        self.agreeing += int(agrees.sum())
        self.judged += agrees.size
        if not agrees.all() and not self.disagreement_at:
            self.disagreement_at = _where(case, int(agrees.argmin()), agrees.size)

    def _lost(self) -> None:
        self.max_error, self.total_error, self.min_cosine = math.inf, math.inf, -1.0

    def problems(self, tolerance: "Tolerance") -> list[str]:
        """Return in sentences what is not within `tolerance`."""
        found = [f"output {self.name}: not finite, in {self.broken[0]}"] if self.broken else []
        if self.unequal:
            found.append(
                f"output {self.name}: {self.unequal} of {self.elements} elements differ, in {self.max_error_at}"
            )
        if self.broken or self.exact or math.isinf(self.max_error):
            return found
        # "not >=" throughout: what compares as neither never passes.
        if tolerance.min_cosine is not None and not self.min_cosine >= tolerance.min_cosine:
            found.append(
                f"output {self.name}: cosine {self.min_cosine:.6f} (at least {tolerance.min_cosine} is asked for), "
                f"worst in {self.min_cosine_at}"
            )
        if tolerance.max_abs_error is not None and not self.max_error <= tolerance.max_abs_error:
            found.append(
                f"output {self.name}: largest error {self.max_error:.2e} (at most {tolerance.max_abs_error:.0e} is "
                f"asked for), worst in {self.max_error_at}"
            )
        if tolerance.mean_abs_error is not None and not self.mean_error <= tolerance.mean_abs_error:
            found.append(
                f"output {self.name}: mean error {self.mean_error:.2e} (at most {tolerance.mean_abs_error:.0e} is "
                f"asked for), worst in {self.max_error_at}"
            )
        if tolerance.min_top1 is not None and self.judged and not self.top1 >= tolerance.min_top1:
            found.append(
                f"output {self.name}: the largest element agrees for {self.top1:.2%} of items (at least "
                f"{tolerance.min_top1:.2%} is asked for), first not in {self.disagreement_at}"
            )
        return found

    @property
    def mean_error(self) -> float:
        return self.total_error / self.elements if self.elements else 0.0

    @property
    def top1(self) -> float:
        return self.agreeing / self.judged if self.judged else 1.0

    def parity(self, *, top1: bool) -> OutputParity:
        """Return the record of it."""
        asked = self.top1 if top1 and self.judged else None
        return OutputParity(self.max_error, self.mean_error, self.min_cosine, asked)


@dataclass(slots=True)
class _Score:
    """Accuracy against the labels of a golden set."""

    right: int = 0
    judged: int = 0

    def add(self, case: Case, outputs: Mapping[str, Array]) -> None:
        if case.labels is None:
            return
        predicted = _classes(case, outputs)
        self.right += int((predicted == case.labels.reshape(-1)).sum()) if predicted is not None else 0
        self.judged += case.batch

    @property
    def value(self) -> float | None:
        return self.right / self.judged if self.judged else None


def _classes(case: Case, outputs: Mapping[str, Array]) -> Array | None:
    """Return the predicted class of each item: a whole number for each, or else the largest of [B, classes]."""
    for value in outputs.values():
        if value.dtype.kind in "iu" and value.size == case.batch:
            return value.reshape(-1)
    for value in outputs.values():
        if value.dtype.kind == "f" and value.ndim == 2 and value.shape[0] == case.batch and value.shape[1] > 1:  # noqa: PLR2004
            largest: Array = value.argmax(1)
            return largest
    return None


def _floating(values: Array) -> npt.NDArray[np.float64] | None:
    """Return floating-point values as FP64, None where they are something else. `V` and ml_dtypes' types are floats."""
    return values.astype(np.float64) if values.dtype.kind == "f" or "float" in values.dtype.name else None


def _is_number(values: Array) -> bool:
    return values.dtype.kind in "fiu" or "float" in values.dtype.name


def _comparable(values: Array) -> Array:
    """Return text as Python strings: Triton and ONNX Runtime give bytes in places."""
    if values.dtype.kind not in "OSU":
        return values
    flat = [value.decode() if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]
    return np.asarray(flat, dtype=object).reshape(values.shape)


def _cosine(wanted: npt.NDArray[np.float64], given: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cosine of each row [B]; two rows of zeros are alike, one alone is not."""
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(given, axis=1)
    equal = (wanted == given).all(1)  # rounding aside; zeros have no direction
    cosine = (wanted * given).sum(1) / np.where(norms > 0, norms, 1.0)
    result: npt.NDArray[np.float64] = np.where(equal, 1.0, np.clip(cosine, -1.0, 1.0))
    return result


def _where(case: Case, item: int, items: int) -> str:
    return f"case {case.name}" if items == 1 else f"case {case.name}, item {item}"
