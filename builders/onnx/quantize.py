"""Quantisation to INT8 and FP8: ONNX Runtime's own for CPUs, symmetric QuantizeLinear/DequantizeLinear pairs for GPUs.

GPU compilers read precision from the graph; TensorRT-RTX fails on zero points other than 0, so scales alone are set.
`candidates` decides what is quantised how; what the loss of precision does is `builders.parity`'s to say.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from builders.errors import MissingExtraError
from builders.onnx.departure import every_tensor
from builders.onnx.optimise import copy_of, drop_unused, quiet, sort_nodes, told
from builders.onnx.precision import largest_elements
from builders.parity import CandidateError, refusal
from builders.reference import Case, Tensors

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

QdqType = Literal["int8", "fp8"]

_CALIBRATION_CASES = 32
"""Calls that ranges are taken from: more of them change the ranges little, and each is kept for a while."""

_LARGEST: Mapping[QdqType, float] = {"int8": 127.0, "fp8": 448.0}
_WEIGHT_AXIS = {"MatMul": 1, "Gemm": 1, "Conv": 0}
_FP8_OPSET = 19
_PER_AXIS_OPSET = 13


def quantize_dynamic(
    model: "ModelProto", out: Path, *, reduce_range: bool, signed: bool = True, exclude: Sequence[str] = ()
) -> None:
    """Write `model` to `out` with 8-bit weights, one scale for each column, and activations quantised in each call.

    `reduce_range` leaves one bit of the weights unused: AVX2 and AVX-512 without VNNI add pairs of products of signed
    weights in 16 bits, which saturate otherwise. Unsigned weights never do, and are slower there. `exclude` names
    nodes that stay FP32. Raises CandidateError.
    """
    quantization = _quantization()
    _call(
        quantization.quantize_dynamic,
        model,
        out,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
        nodes_to_exclude=list(exclude),
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},  # FLOAT, after operators it does not know
    )


def split_outliers(model: "ModelProto", cases: Sequence[Case]) -> tuple["ModelProto", list[str]]:
    """Return the model with the largest channels of activations taken out of its products, and the FP32 nodes' names.

    `x @ W` becomes `(x with OUTLIERS channels zeroed) @ W + x[those] @ W[those]`: a few channels of a transformer's
    activations are so large that one scale for all leaves the others too few steps. Only the first product is then
    quantised (the idea is LLM.int8()'s: Dettmers and others, 2022; here the channels are chosen once, over `cases`).
    A product is left alone where that would narrow its range by less than half. Raises CandidateError.
    """
    from onnx import helper, numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    split = copy_of(model)
    constants = {tensor.name: tensor for tensor in split.graph.initializer}
    channels = _largest_by_channel(split, cases)
    nodes: list[NodeProto] = []
    exact: list[str] = []
    for source in split.graph.node:
        node = copy_of(source)
        nodes.append(node)
        if node.op_type != "MatMul" or node.input[1] not in constants:
            continue
        weight, largest = constants[node.input[1]], channels.get(node.input[0])
        if largest is None or list(weight.dims[:-1]) != [largest.size]:
            continue
        order = np.argsort(largest)
        if largest.size <= 2 * OUTLIERS or largest[order[-1]] < _WORTH_SPLITTING * largest[order[-OUTLIERS - 1]]:
            continue
        chosen, (read, written) = np.sort(order[-OUTLIERS:]), (node.input[0], node.output[0])
        values = numpy_helper.to_array(weight)
        kept = np.isin(np.arange(largest.size), chosen, invert=True)
        prefix = f"{written}/outliers"
        added: dict[str, npt.NDArray[Any]] = {
            "kept": kept.astype(np.float32),
            "chosen": chosen.astype(np.int64),
            "weight": values[chosen],
            "rest": values * kept[:, None].astype(np.float32),
        }
        for name, array in added.items():
            split.graph.initializer.append(numpy_helper.from_array(array, f"{prefix}/{name}"))
        nodes[-1:] = [
            helper.make_node("Mul", [read, f"{prefix}/kept"], [f"{prefix}/inner"]),
            helper.make_node("MatMul", [f"{prefix}/inner", f"{prefix}/rest"], [f"{prefix}/low"], f"{prefix}/low"),
            helper.make_node("Gather", [read, f"{prefix}/chosen"], [f"{prefix}/outer"], axis=-1),
            helper.make_node("MatMul", [f"{prefix}/outer", f"{prefix}/weight"], [f"{prefix}/exact"], f"{prefix}/exact"),
            helper.make_node("Add", [f"{prefix}/low", f"{prefix}/exact"], [written]),
        ]
        exact.append(f"{prefix}/exact")
    if not exact:
        raise CandidateError("no product of this graph has channels that stand out")
    del split.graph.node[:]
    split.graph.node.extend(nodes)
    drop_unused(split)
    return split, exact


OUTLIERS = 8
"""Channels that are taken out of a product: one vector register of FP32 with AVX2."""

_WORTH_SPLITTING = 1.5


def _largest_by_channel(model: "ModelProto", cases: Sequence[Case]) -> dict[str, npt.NDArray[Any]]:
    """Return for every tensor that a product reads its largest elements over `cases` [K], K the last dimension."""
    run = every_tensor(model, {node.input[0] for node in model.graph.node if node.op_type == "MatMul"})
    found: dict[str, npt.NDArray[Any]] = {}
    for inputs in calibration_inputs(cases):
        for name, value in run(inputs).items():
            if value.dtype == np.float32 and value.ndim > 1 and value.size:
                peak = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
                before = found.get(name)
                if before is None or before.shape == peak.shape:
                    found[name] = peak if before is None else np.maximum(before, peak)
    return found


def quantize_static(model: "ModelProto", cases: Sequence[Case], out: Path, *, reduce_range: bool) -> None:
    """Write `model` to `out` with INT8 weights and activations, with the ranges over `cases`. Raises CandidateError."""
    quantization = _quantization()
    _call(
        quantization.quantize_static,
        model,
        out,
        _Calls({value.name for value in model.graph.input}, cases),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},  # FLOAT, after operators it does not know
    )


class _Calls:
    """The calls to calibrate with, as ONNX Runtime's quantiser asks for them (its CalibrationDataReader)."""

    def __init__(self, taken: Collection[str], cases: Sequence[Case]) -> None:
        calls = calibration_inputs(cases)
        self._calls = iter({name: value for name, value in inputs.items() if name in taken} for inputs in calls)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return the next call's inputs by name; None after the last."""
        return next(self._calls, None)


def quantize_symmetric(model: "ModelProto", cases: Sequence[Case], kind: QdqType) -> "ModelProto":
    """Return the model with symmetric pairs at the inputs of products and convolutions that have constant weights.

    Weights are kept in the low type with a scale for each output channel; an activation has one scale, from the largest
    element over `cases`. Raises CandidateError where there is nothing to quantise or the opset has no such type.
    """
    quantised = _with_opset(model, _FP8_OPSET if kind == "fp8" else _PER_AXIS_OPSET)
    largest = measured_largest(quantised, cases)
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    pairs = _Pairs(quantised, kind, largest)
    nodes: list[NodeProto] = []
    for source in quantised.graph.node:
        node = copy_of(source)
        axis = _WEIGHT_AXIS.get(node.op_type)
        weight = constants.get(node.input[1]) if axis is not None and len(node.input) > 1 else None
        if axis is not None and weight is not None and largest.get(node.input[0], 0.0) > 0 and len(weight.dims) > 1:
            if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
                axis = 0
            before, node.input[0] = pairs.activation(node.input[0])
            after, node.input[1] = pairs.weight(weight.name, len(weight.dims) - 1 if node.op_type == "MatMul" else axis)
            nodes += [*before, *after]
        nodes.append(node)
    if not pairs.made:
        raise CandidateError(f"this graph has no product or convolution with constant weights to compute in {kind}")
    del quantised.graph.node[:]
    quantised.graph.node.extend(nodes)
    del quantised.graph.value_info[:]
    drop_unused(quantised)
    return quantised


class _Pairs:
    """Makes the pairs, one for each tensor, and adds their constants to the graph."""

    def __init__(self, model: "ModelProto", kind: QdqType, largest: Mapping[str, float]) -> None:
        import ml_dtypes  # noqa: PLC0415 - comes with onnx

        self._graph = model.graph
        self._largest = largest
        self._bound = _LARGEST[kind]
        self._dtype = np.dtype(np.int8 if kind == "int8" else ml_dtypes.float8_e4m3fn)
        self.made: set[str] = set()

    def activation(self, name: str) -> tuple[list["NodeProto"], str]:
        """Return the two nodes for an activation, none where they are there already, and what to read instead."""
        from onnx import helper  # noqa: PLC0415 - `import onnx` is slow

        after = f"{name}/dequantized"
        if name in self.made:
            return [], after
        self.made.add(name)
        scale = self._add(f"{name}/scale", np.asarray(self._largest[name] / self._bound, dtype=np.float32))
        zero = self._add(f"{name}/zero_point", np.zeros((), dtype=self._dtype))
        return [
            helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}/quantized"]),
            helper.make_node("DequantizeLinear", [f"{name}/quantized", scale, zero], [after]),
        ], after

    def weight(self, name: str, axis: int) -> tuple[list["NodeProto"], str]:
        """Return the node that restores a weight that is kept in the low type, and what to read instead."""
        from onnx import helper, numpy_helper  # noqa: PLC0415 - `import onnx` is slow

        after = f"{name}/dequantized{axis}"
        if after in self.made:
            return [], after
        self.made.add(after)
        values = numpy_helper.to_array(next(tensor for tensor in self._graph.initializer if tensor.name == name))
        others = tuple(other for other in range(values.ndim) if other != axis)
        peak = np.abs(values).max(axis=others)
        scales = np.where(peak > 0, peak / self._bound, 1.0).astype(np.float32)
        shape = [-1 if other == axis else 1 for other in range(values.ndim)]
        scaled = values / scales.reshape(shape)
        low = np.rint(scaled).clip(-self._bound, self._bound) if self._dtype == np.int8 else scaled
        kept = self._add(f"{after}/weight", low.astype(self._dtype))
        scale = self._add(f"{after}/scale", scales)
        zero = self._add(f"{after}/zero_point", np.zeros(scales.shape, dtype=self._dtype))
        return [helper.make_node("DequantizeLinear", [kept, scale, zero], [after], axis=axis)], after

    def _add(self, name: str, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper  # noqa: PLC0415 - `import onnx` is slow

        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def measured_largest(model: "ModelProto", cases: Sequence[Case]) -> dict[str, float]:
    """Return the largest absolute element of each tensor over `cases`, as FP32 on the CPU. Raises CandidateError."""
    run = every_tensor(model)
    found: dict[str, float] = {}
    for inputs in calibration_inputs(cases):
        for name, size in largest_elements([*({**inputs, **run(inputs)},)]).items():
            found[name] = max(found.get(name, 0.0), size)
    return found


def calibration_inputs(cases: Sequence[Case]) -> list[Tensors]:
    """Return the inputs to calibrate with, spread over `cases`. Raises CandidateError where there is none.

    A package's own calibration data, where it has some, calibrates alone: what people gave is nearer to real traffic
    than random inputs, and the golden set then judges what it had no part in.
    """
    cases = [case for case in cases if case.kind == "calibration"] or cases
    if not cases:
        raise CandidateError(
            "calibration needs cases, and there is none; give the package calibration data or a golden set"
        )
    step = max(1, len(cases) // _CALIBRATION_CASES)
    return [case.inputs for case in cases[::step][:_CALIBRATION_CASES]]


def _with_opset(model: "ModelProto", least: int) -> "ModelProto":
    """Return a copy of the model with at least this opset."""
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    if next((opset.version for opset in model.opset_import if not opset.domain), 0) >= least:
        return copy_of(model)
    try:
        converted: ModelProto = onnx.version_converter.convert_version(model, least)
    except (RuntimeError, onnx.version_converter.ConvertError) as exc:
        raise CandidateError(f"the graph cannot be brought to opset {least}: {told(exc)}") from exc
    return converted


def _quantization() -> Any:  # noqa: ANN401 - no types are published
    try:
        from onnxruntime import quantization  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError(exc.name or "onnxruntime", "cpu") from exc
    return quantization


def _call(quantize: Any, model: "ModelProto", out: Path, *args: object, **options: object) -> None:  # noqa: ANN401
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    try:
        with quiet():
            quantize(copy_of(model), str(out), *args, **options)
    except Exception as exc:
        raise refusal(exc, f"ONNX Runtime's quantiser fails on this graph: {told(exc)}") from exc
    written = onnx.load(str(out))
    sort_nodes(written)
    onnx.save(written, out)
