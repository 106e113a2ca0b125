"""Makes one target's artifact from an export: candidates made, held against the source, timed, the fastest kept.

Where the target cannot run on this machine, its graph is still held against the source in ONNX Runtime on the CPU, so
that a wrong conversion is found here; the artifact itself stays unproven. `pipeline` calls this for every step of a
plan; `builders.onnx` and `builders.tensorrt` do the work.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from builders.artifacts import SOURCE, CandidateResult, Parity
from builders.errors import MachineError, ParityError, SpecError
from builders.forms import DENSE, MODEL, Form
from builders.onnx.candidates import CandidateError, candidate_names, make_candidate
from builders.onnx.departure import first_departure
from builders.onnx.timing import fastest, time_candidates
from builders.parity import Run, compare, onnx_runner
from builders.plan import TargetStep
from builders.reference import Case, load_reference
from builders.spec import BuildSpec, Tolerance

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Made:
    """What `make_artifact` leaves: `files` lie in its working folder."""

    files: tuple[str, ...]
    chosen: str
    candidates: tuple[CandidateResult, ...]
    parity: Parity | None
    unproven: str = ""
    made: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A candidate that was made: its graph, and how close it is to the source (None: ONNX Runtime cannot run it)."""

    name: str
    path: Path
    parity: Parity | None


@dataclass(frozen=True, slots=True)
class Making:
    """One target's step, and where its export and its working folder are.

    `timing_cache` is a folder that TensorRT keeps its timings in from build to build. `engine_runner` returns what
    runs an engine on this machine's GPU; without one, engines stay unproven here.
    """

    spec: BuildSpec
    step: TargetStep
    export: Path
    form: Form
    work: Path
    report: Report
    timing_cache: Path | None = None
    engine_runner: Callable[[Path], Run] | None = None

    @property
    def source(self) -> Path:
        """The export's ONNX file."""
        return self.export / self.form.onnx

    @property
    def tolerance(self) -> Tolerance:
        """What the artifact is held to."""
        return self.spec.tolerance_of(self.step.spec)


def form_name(step: TargetStep, forms: Sequence[str]) -> str:
    """Return which form of an export the target is made from."""
    return DENSE if step.spec.runtime != "onnxruntime" and DENSE in forms else MODEL


def make_artifact(making: Making) -> Made:
    """Make the artifact; its files are in `making.work`. Raises BuildError: ParityError where nothing came close.

    MachineError where nothing is left and a candidate was not judged, for the lack of memory or of a GPU: that is no
    verdict on the model.
    """
    cases = load_reference(making.export / making.form.reference)
    results: list[CandidateResult] = []
    passed, trouble = _make_candidates(making, cases, results)
    if not passed:
        refusals = "; ".join(f"{result.name}: {result.refused}" for result in results)
        if trouble is not None:
            raise MachineError(f"{making.step.spec.target} cannot be made here now: {refusals}") from trouble
        raise ParityError(f"no candidate of {making.step.spec.target} can be kept: {refusals}")
    match making.step.spec.runtime:
        case "onnxruntime":
            return _onnxruntime(making, cases, passed, results)
        case "tensorrt" | "tensorrt_rtx":
            return _engine(making, cases, passed[0], results)
        case other:
            assert_never(other)


def _make_candidates(
    making: Making, cases: Sequence[Case], results: list[CandidateResult]
) -> tuple[list[_Candidate], Exception | None]:
    """Make every candidate and hold it against the source. `results` gets one entry for each that is refused.

    Returns those that pass, and what of this machine kept one from being judged: the others are tried all the same.
    """
    passed: list[_Candidate] = []
    trouble: Exception | None = None
    names = _names(making, cases)
    for number, name in enumerate(names):
        making.report(f"candidate {name}", number, len(names))
        path = making.work / f"candidate-{number}.onnx"
        try:
            make_candidate(name, making.step.spec.target, making.source, cases, path)
            parity, problems = _judge(making, path, cases)
        except (CandidateError, MachineError, MemoryError) as exc:
            results.append(CandidateResult(name, refused=str(exc) or "memory ran out"))
            trouble = trouble if isinstance(exc, CandidateError) else exc
            continue
        if parity is not None and problems:
            where = first_departure(making.source, path, _told_by(cases))
            told = [*problems, *([f"the first layer that departs is {where}"] if where else [])]
            results.append(_result(_Candidate(name, path, parity), refused="; ".join(told)))
            continue
        passed.append(_Candidate(name, path, parity))
        if not _timed(making):
            break
    return passed, trouble


def _on_cuda(making: Making) -> bool:
    return making.step.spec.device == "cuda" and not making.step.unproven


def _timed(making: Making) -> bool:
    """Whether candidates can be measured here. Where they cannot, the first one that is right, the simplest, is taken.

    Engines are made from one graph: compiling each candidate would cost minutes, and the compiler rewrites it anyway.
    """
    return making.step.spec.runtime == "onnxruntime" and not making.step.unproven


_CASES_TO_TELL_BY = 8


def _told_by(cases: Sequence[Case]) -> Sequence[Case]:
    """Return the cases by which to tell the layer that departs: golden ones first, for people know them."""
    return sorted(cases, key=lambda case: case.kind != "golden")[:_CASES_TO_TELL_BY]


def _names(making: Making, cases: Sequence[Case]) -> tuple[str, ...]:
    there = candidate_names(making.step.spec.target, calibrated=bool(cases))
    asked = making.step.spec.candidates
    if asked is None:
        return there
    unknown = [name for name in asked if name not in there]
    if unknown:
        raise SpecError(f"{making.step.spec.target} has no candidate {', '.join(unknown)}; it has: {', '.join(there)}")
    return tuple(name for name in there if name in asked)


def _judge(making: Making, path: Path, cases: Sequence[Case]) -> tuple[Parity | None, tuple[str, ...]]:
    """Hold a candidate's graph against the source in ONNX Runtime, on the CPU unless it is for CUDA and a GPU is here.

    None where ONNX Runtime has no kernels for a graph that TensorRT compiles.
    """
    try:
        run = onnx_runner(path, threads=making.spec.measure.threads, cuda=_on_cuda(making))
    except CandidateError:
        if making.step.spec.runtime == "onnxruntime":
            raise
        return None, ()
    return compare(run, cases, making.tolerance)


def _onnxruntime(
    making: Making, cases: Sequence[Case], passed: Sequence[_Candidate], refused: Sequence[CandidateResult]
) -> Made:
    measured = [case for case in cases if case.kind == "measure"]
    paths = {candidate.name: candidate.path for candidate in passed}
    timings: Mapping[str, Mapping[int, float]] = {}
    if _timed(making) and measured:
        making.report("time candidates", 0, 0)
        plan = making.spec.measure
        timed = paths if SOURCE in paths else {SOURCE: making.source, **paths}
        timings = time_candidates(timed, measured, threads=plan.threads, seconds=plan.seconds, cuda=_on_cuda(making))
    chosen = fastest(timings, tuple(paths)) if timings else passed[0].name
    results = [_result(candidate, timings.get(candidate.name)) for candidate in passed]
    if timings and SOURCE not in paths:
        size = making.source.stat().st_size
        results.append(CandidateResult(SOURCE, _by_batch(timings[SOURCE]), size, refused="the source, to compare with"))
    kept = next(candidate for candidate in passed if candidate.name == chosen)
    filename = f"{making.step.spec.target}.onnx"
    kept.path.rename(making.work / filename)
    return Made((filename,), chosen, (*results, *refused), kept.parity, making.step.unproven)


def _engine(making: Making, cases: Sequence[Case], graph: _Candidate, refused: Sequence[CandidateResult]) -> Made:
    from builders.tensorrt.compile import compile_engine  # noqa: PLC0415 - only these targets need it
    from builders.tensorrt.request import EngineRequest  # noqa: PLC0415

    step = making.step
    filename = f"{step.spec.target}.engine"
    request = EngineRequest(
        onnx=graph.path,
        target=step.spec.target,
        inputs=making.form.inputs,
        workspace_mib=step.spec.workspace_mib,
        version_compatible=step.spec.version_compatible,
        hardware_compatible=step.spec.hardware_compatible,
        timing_cache=making.timing_cache,
        memory_limit_bytes=step.spec.memory_limit_mib * 2**20,
        time_limit_s=step.spec.time_limit_s,
    )
    result = compile_engine(request, making.work / filename, lambda doing: making.report(doing, 0, 0))
    files = [filename]
    if result.inspector is not None:
        inspector = making.work / f"{step.spec.target}.inspector.json"
        result.inspector.rename(inspector)
        files.append(inspector.name)
    parity, unproven = _prove_engine(making, cases, result.engine)
    made = {
        "compile_s": f"{result.seconds:.1f}",
        "compiler_peak_bytes": str(result.peak_bytes),
        "timing_cache": result.timing_cache,
    }
    return Made(tuple(files), graph.name, (_result(graph), *refused), parity, unproven, made)


def _prove_engine(making: Making, cases: Sequence[Case], engine: Path) -> tuple[Parity | None, str]:
    """Run the engine where its GPU is here; return its parity, or why it is unproven."""
    if making.step.unproven:
        return None, making.step.unproven
    if making.engine_runner is None:
        return None, "nothing here runs engines; prove it with tritonfleet verify"
    making.report("prove the engine", 0, 0)
    parity, problems = compare(making.engine_runner(engine), cases, making.tolerance)
    if problems:
        raise ParityError(f"the engine for {making.step.spec.target} departs from its source: {'; '.join(problems)}")
    return parity, ""


def _result(candidate: _Candidate, seconds: Mapping[int, float] | None = None, refused: str = "") -> CandidateResult:
    parity = candidate.parity
    return CandidateResult(
        candidate.name,
        _by_batch(seconds or {}),
        candidate.path.stat().st_size,
        None if parity is None else parity.min_cosine,
        None if parity is None else parity.max_abs_error,
        refused,
    )


def _by_batch(seconds: Mapping[int, float]) -> dict[str, float]:
    """Return seconds by batch size as a record has them: JSON's keys are texts."""
    return {str(batch): value for batch, value in sorted(seconds.items())}
