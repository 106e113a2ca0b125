"""Lower precision by casts in the graph: FP16 and BF16 for GPUs, whose compilers take precision from the graph alone.

Inputs and outputs of the model keep their types. An operator is lowered where it computes in the type of its inputs and
nothing in it can leave the type's range; what sums or exponentiates (softmax, normalisation, reductions) stays FP32.
`candidates` decides which graph is lowered; `quantize` is the way to INT8 and FP8.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from builders.onnx.optimise import copy_of, drop_unused, read_by
from builders.parity import CandidateError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LowType = Literal["fp16", "bf16"]

LOWERED = frozenset(
    {
        *("MatMul", "Gemm", "Conv", "ConvTranspose", "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Where"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Erf", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("Clip", "Identity", "Dropout", "Softplus", "Softsign", "BatchNormalization", "MaxPool", "AveragePool"),
        *("GlobalAveragePool", "GlobalMaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand"),
        *("Gather", "GatherElements", "GatherND", "Concat", "Split", "Slice", "Tile", "Pad", "Compress"),
        *("DepthToSpace", "SpaceToDepth", "BiasGelu", "FastGelu", "Attention", "MultiHeadAttention"),
        *("SkipLayerNormalization", "FusedMatMul", "FusedGemm"),
    }
)
"""Operators that may compute in the lower type. Those of ONNX Runtime's fused kernels sum in FP32 inside.

What is not named here (Softmax, LayerNormalization, ReduceMean, Pow, Sqrt, Exp, Log, Resize, loops, ...) stays FP32.
"""

_WORTHWHILE = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Attention", "FusedMatMul", "FusedGemm"})


def lower(model: "ModelProto", kind: LowType, *, largest: Mapping[str, float] | None = None) -> "ModelProto":
    """Return the model with FP32 operators lowered to `kind` between casts.

    `largest` says of tensors by name how large their elements get, where that was measured: what comes within a quarter
    of the type's range stays FP32, and so does a node with a constant that the type cannot hold. Raises CandidateError
    where the graph has no FP32 matrix product or convolution that could be lowered.
    """
    import onnx  # noqa: PLC0415 - `import onnx` is slow

    lowered = copy_of(model)
    _constants_to_initializers(lowered)
    types = _types(lowered)
    limit = float(np.finfo(np.float16).max) if kind == "fp16" else 3.3e38
    held = _out_of_range(lowered, kind, limit)
    held.update(name for name, size in (largest or {}).items() if not size <= limit / 4)
    chosen = [
        number
        for number, node in enumerate(lowered.graph.node)
        if node.op_type in LOWERED
        and node.output[0] in types
        and types[node.output[0]] == onnx.TensorProto.FLOAT
        and held.isdisjoint([*node.input, *node.output])
    ]
    if not any(lowered.graph.node[number].op_type in _WORTHWHILE for number in chosen):
        raise CandidateError(f"nothing in this graph can compute in {kind}")
    _rewrite(lowered, set(chosen), kind, types)
    drop_unused(lowered)
    return lowered


def _rewrite(model: "ModelProto", chosen: Collection[int], kind: LowType, types: Mapping[str, int]) -> None:
    """Give every chosen node inputs and outputs in the lower type, and a cast to each side of every border."""
    from onnx import TensorProto, helper  # noqa: PLC0415 - `import onnx` is slow

    low = TensorProto.FLOAT16 if kind == "fp16" else TensorProto.BFLOAT16
    others = [node for number, node in enumerate(model.graph.node) if number not in chosen]
    wanted_high = {value.name for value in model.graph.output} | {name for node in others for name in read_by(node)}
    initializers = {tensor.name for tensor in model.graph.initializer}
    made: set[str] = set()  # FP32 tensors that are there in the lower type as well
    nodes: list[NodeProto] = []
    for number, source in enumerate(model.graph.node):
        node = copy_of(source)
        if number not in chosen:
            nodes.append(node)
            continue
        floats = {name for name in (*node.input, *node.output) if types.get(name) == TensorProto.FLOAT}
        for name in sorted(floats - made - set(node.output)):
            if name in initializers:
                _add_low_initializer(model, name, kind)
            else:
                nodes.append(helper.make_node("Cast", [name], [name + _LOW], to=low))
        made |= floats
        back = [name for name in node.output if name in floats & wanted_high]
        for names in (node.input, node.output):
            names[:] = [name + _LOW if name in floats else name for name in names]
        nodes += [node, *(helper.make_node("Cast", [name + _LOW], [name], to=TensorProto.FLOAT) for name in back)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]


_LOW = "/low"


def _add_low_initializer(model: "ModelProto", name: str, kind: LowType) -> None:
    import ml_dtypes  # noqa: PLC0415 - comes with onnx
    from onnx import numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    values = numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))
    low = values.astype(np.float16 if kind == "fp16" else ml_dtypes.bfloat16)
    model.graph.initializer.append(numpy_helper.from_array(low, name + _LOW))


def _constants_to_initializers(model: "ModelProto") -> None:
    """Turn Constant nodes with a tensor into initializers, so that there is one kind of constant."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type == "Constant" and value is not None and not node.domain:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(copy_of(node))
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _types(model: "ModelProto") -> dict[str, int]:
    """Return element types by tensor name, as far as they can be told.

    Shape inference does not know ONNX Runtime's fused operators: it is told that those lowered here give FP32.
    """
    from onnx import TensorProto, helper, shape_inference  # noqa: PLC0415 - `import onnx` is slow

    hinted = copy_of(model)
    fused = [node for node in hinted.graph.node if node.domain == "com.microsoft" and node.op_type in LOWERED]
    hinted.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for node in fused
        for name in (*node.output[:1], *node.output[3:])  # the second and third are mean and deviation, unused here
        if name
    )
    graph = shape_inference.infer_shapes(hinted).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _out_of_range(model: "ModelProto", kind: LowType, limit: float) -> set[str]:
    """Return the tensors that the type cannot hold, as far as constants tell.

    Those are constants that are too large, and what becomes of them (an attention mask's -3e38) up to the next product
    or the next operator that stays FP32 anyway; and constants so small that they would all become zero.
    """
    from onnx import TensorProto, numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    large: set[str] = set()
    vanishing: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        peak = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        if not peak <= limit:
            large.add(tensor.name)
        elif kind == "fp16" and 0.0 < peak < float(np.finfo(np.float16).smallest_subnormal):
            vanishing.add(tensor.name)
    for node in model.graph.node:
        if node.op_type in LOWERED - _WORTHWHILE and not large.isdisjoint(node.input):
            large.update(node.output)
    return large | vanishing


def largest_elements(arrays: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, float]:
    """Return the largest absolute element of every floating-point tensor over several runs."""
    found: dict[str, float] = {}
    for name, value in _floats(arrays):
        found[name] = max(found.get(name, 0.0), float(np.abs(value).max(initial=0.0)))
    return found


def _floats(arrays: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for each in arrays:
        for name, value in each.items():
            if value.dtype.kind == "f":
                yield name, value
