"""Where a candidate departs from its source: the first layer, in the order of the graph, whose values differ too much.

Both graphs are run with their inner tensors as outputs and without ONNX Runtime's own rewriting, so that the names that
they share can be compared. `quantize` and `precision` learn from the same values how large each tensor gets.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders.errors import MachineError, MissingExtraError
from builders.onnx.optimise import copy_of
from builders.parity import CandidateError, onnx_failures, refusal
from builders.reference import Case, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto

Array = npt.NDArray[Any]


LIMITS = (1e-2, 1e-3, 1e-4)
"""Relative errors above which a layer counts as departed; the next lower one is asked where no layer exceeds it."""


def first_departure(source: Path, candidate: Path, cases: Sequence[Case]) -> str | None:
    """Return which layer of `candidate` departs first from `source`, as words; None where none does.

    A layer departs where the largest error of its output exceeds a limit times the largest element of the source's: the
    highest of LIMITS that is exceeded on any of `cases`. None as well where ONNX Runtime cannot run the candidate on
    this machine, or where the two share no names.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    first, second = onnx.load(str(source)), onnx.load(str(candidate))
    shared = _written(first) & _written(second)
    try:
        run_first, run_second = every_tensor(first, shared), every_tensor(second, shared)
        errors = [(case.name, _errors(run_first(case.inputs), run_second(case.inputs))) for case in cases]
    except (CandidateError, MachineError):
        return None
    for limit in LIMITS:
        for case, of_case in errors:
            for node in second.graph.node:
                for name in node.output:
                    if not of_case.get(name, 0.0) <= limit:
                        return (
                            f"{node.op_type} {node.name or name!r}, whose output {name!r} is off by "
                            f"{of_case[name]:.2%} of its largest element (limit {limit:.2%}), on case {case}"
                        )
    return None


def _errors(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> dict[str, float]:
    """Return the relative error of each tensor that can be compared."""
    both = ((name, _relative_error(expected[name], actual[name])) for name in expected.keys() & actual.keys())
    return {name: error for name, error in both if error is not None}


def every_tensor(model: "ModelProto", names: Collection[str] | None = None) -> Callable[[Tensors], dict[str, Array]]:
    """Return what runs `model` on the CPU and returns its tensors by name: those in `names`, or all.

    Tensors inside subgraphs are left out. Raises CandidateError where ONNX Runtime does not load or run it,
    MachineError where this machine is why.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    try:
        import onnxruntime  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError("onnxruntime", "cpu") from exc
    exposed = copy_of(model)
    already = {value.name for value in exposed.graph.output}
    wanted = _written(model) if names is None else _written(model) & set(names)
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(wanted - already))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnx_failures() as exc:
        raise refusal(exc, f"ONNX Runtime does not load the graph with its inner tensors: {exc}") from exc
    written = [value.name for value in session.get_outputs()]
    taken = {value.name for value in session.get_inputs()}

    def run(inputs: Tensors) -> dict[str, Array]:
        try:
            values = session.run(written, {name: value for name, value in inputs.items() if name in taken})
        except onnx_failures() as exc:
            raise refusal(exc, f"ONNX Runtime does not run the graph with its inner tensors: {exc}") from exc
        return {name: value for name, value in zip(written, values, strict=True) if isinstance(value, np.ndarray)}

    return run


def _written(model: "ModelProto") -> set[str]:
    return {name for node in model.graph.node for name in node.output if name}


def _relative_error(expected: Array, actual: Array) -> float | None:
    """Return the largest error over the largest element; None where the two cannot be compared."""
    if expected.dtype.kind != "f" or actual.dtype.kind != "f" or expected.shape != actual.shape or not expected.size:
        return None
    wanted, given = expected.astype(np.float64), actual.astype(np.float64)
    same = wanted == given  # equal infinities are equal
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.where(same, 0.0, np.abs(wanted - given)).max())
        scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    return error / scale if scale else (0.0 if error == 0.0 else float("inf"))
