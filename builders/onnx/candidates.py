"""Candidates: the ways to make a target's ONNX graph from an export. None is believed to be best; each is measured.

A name says what is done, as in "dynamic+fused": how precision is lowered, and how the graph is rewritten before. The
pipeline makes all candidates of a target, holds them against the source and times those that pass, side by side.
`optimise`, `precision` and `quantize` do the work; here is the list, and the check that what came out is ONNX.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builders.onnx.optimise import copy_of, fuse, merge_products, slim, told, with_opsets
from builders.onnx.precision import LowType, lower
from builders.onnx.quantize import (
    QdqType,
    measured_largest,
    quantize_dynamic,
    quantize_static,
    quantize_symmetric,
    split_outliers,
)
from builders.parity import CandidateError
from builders.reference import Case
from builders.targets import Precision, Target

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["SOURCE", "CandidateError", "candidate_names", "make_candidate"]

SOURCE = "plain"
"""The export as it is."""

_REWRITES: Mapping[str, Callable[["ModelProto"], "ModelProto"]] = {
    "merged": merge_products,
    "slim": slim,
    "fused": fuse,
}
"""In the order in which they are done."""

_GRAPHS = (SOURCE, "slim", "fused", "slim+fused", "merged", "merged+fused")
_CPU_INT8 = ("dynamic7", "dynamic", "split7", "split8", "static7", "static")
"""The figure is how many bits of the weights are used where those are not 8 signed ones."""
_INT8 = tuple(f"{how}{graph}" for how in _CPU_INT8 for graph in ("", "+merged+fused"))

_ONNXRUNTIME: Mapping[Precision, tuple[str, ...]] = {
    "fp32": _GRAPHS,
    "fp16": ("cast", "cast+fused", "cast+merged+fused"),
    "int8": _INT8,
}
_TENSORRT: Mapping[Precision, tuple[str, ...]] = {
    "fp32": (SOURCE, "slim"),
    "fp16": ("cast", "cast+slim"),
    "bf16": ("cast", "cast+slim"),
    "int8": ("qdq", "qdq+slim"),
    "fp8": ("qdq", "qdq+slim"),
}
_NEED_CALIBRATION = ("split", "static", "qdq")


def candidate_names(target: Target, *, calibrated: bool) -> tuple[str, ...]:
    """Return the names of a target's candidates, the simplest first.

    Those that need ranges of activations are left out unless the target is `calibrated`; none may be left.
    """
    table = _ONNXRUNTIME if target.runtime == "onnxruntime" else _TENSORRT
    names = table.get(target.precision, ())
    return tuple(name for name in names if calibrated or not name.startswith(_NEED_CALIBRATION))


def make_candidate(name: str, target: Target, source: Path, cases: Sequence[Case], out: Path) -> None:
    """Write the candidate `name` of the ONNX file `source` to `out`, one self-contained file.

    `cases` are what activations are calibrated with; casts use them to see what would overflow. Raises CandidateError
    where this way does not work for this graph, MachineError where this machine cannot try it,
    MissingExtraError where a tool is not installed.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    if name not in candidate_names(target, calibrated=True):
        raise CandidateError(f"{target} has no candidate {name!r}")
    steps = name.split("+")
    model = with_opsets(onnx.load(str(source)))
    for rewrite, apply in _REWRITES.items():
        if rewrite in steps:
            model = apply(model)
    match steps[0]:
        case "dynamic" | "dynamic7":
            quantize_dynamic(model, out, reduce_range=steps[0] == "dynamic7")
        case "split7" | "split8":
            split, exact = split_outliers(model, cases)
            seven = steps[0] == "split7"
            quantize_dynamic(split, out, reduce_range=seven, signed=seven, exclude=exact)
        case "static" | "static7":
            quantize_static(model, cases, out, reduce_range=steps[0] == "static7")
        case "cast":
            low: LowType = "bf16" if target.precision == "bf16" else "fp16"
            onnx.save(lower(model, low, largest=_measured(model, cases)), out)
        case "qdq":
            kind: QdqType = "fp8" if target.precision == "fp8" else "int8"
            onnx.save(quantize_symmetric(model, cases, kind), out)
        case _:
            onnx.save(copy_of(model), out)
    try:
        onnx.checker.check_model(str(out))
    except onnx.checker.ValidationError as exc:
        raise CandidateError(f"{name} makes a graph that is not valid ONNX: {told(exc)}") from exc


def _measured(model: "ModelProto", cases: Sequence[Case]) -> dict[str, float]:
    return measured_largest(model, cases) if cases else {}
