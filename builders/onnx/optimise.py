"""Graph optimisation as candidates: each function rewrites one ONNX model and says where it changes nothing.

`candidates` puts them together, and what is fastest on the machine is kept: a fused graph is not faster everywhere.
"slim" is onnxslim's simplification, "fused" ONNX Runtime's own transformer optimiser, "merged" one matrix product in
place of several with the same input. All write self-contained files and leave names of inputs and outputs alone.
"""

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from builders.errors import MissingExtraError
from builders.parity import CandidateError, refusal

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_Message = TypeVar("_Message", "ModelProto", "NodeProto", "TensorProto")

MODEL_TYPE = "bert"
"""What the transformer optimiser looks for: encoders; GELU and layer normalisation are the same in the others."""


def slim(model: "ModelProto") -> "ModelProto":
    """Return the model as onnxslim simplifies it. Raises CandidateError, MissingExtraError."""
    try:
        import onnxslim  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise MissingExtraError("onnxslim", "export") from exc
    try:
        with quiet():
            slimmed: ModelProto | None = onnxslim.slim(copy_of(model))
    except Exception as exc:
        raise refusal(exc, f"onnxslim fails on this graph: {told(exc)}") from exc
    if slimmed is None:
        raise CandidateError("onnxslim returns no graph")
    return _changed(model, slimmed, "onnxslim")


def fuse(model: "ModelProto") -> "ModelProto":
    """Return the model with ONNX Runtime's fused operators (domain com.microsoft). Raises CandidateError."""
    try:
        from onnxruntime.transformers import optimizer  # noqa: PLC0415 - an optional extra
        from onnxruntime.transformers.fusion_options import FusionOptions  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "onnxruntime", "cpu") from exc
    source = copy_of(model)
    source.producer_name = "pytorch"  # it warns of any other
    options = FusionOptions(MODEL_TYPE)
    options.enable_gelu_approximation = False  # another function, and no faster on a CPU
    try:
        with quiet():
            fused: ModelProto = optimizer.optimize_by_fusion(source, MODEL_TYPE, optimization_options=options).model
    except Exception as exc:
        raise refusal(exc, f"ONNX Runtime's transformer optimiser fails on this graph: {told(exc)}") from exc
    fused.producer_name, fused.producer_version = model.producer_name, model.producer_version
    sort_nodes(fused)
    return _changed(model, with_opsets(fused), "ONNX Runtime's transformer optimiser")


def merge_products(model: "ModelProto") -> "ModelProto":
    """Return the model with one MatMul, Add and Split for every group of `x @ W + b` that share x.

    Query, key and value of attention are such a group: x is read, and quantised, once. Raises CandidateError.
    """
    merged = copy_of(model)
    nodes: dict[int, list[NodeProto]] = {number: [node] for number, node in enumerate(merged.graph.node)}
    for group in _groups(merged):
        for product in group:
            nodes[product.matmul] = nodes[product.add] = []
        nodes[group[0].matmul] = _merge(merged, group)
    kept = [copy_of(node) for number in sorted(nodes) for node in nodes[number]]
    del merged.graph.node[:]
    merged.graph.node.extend(kept)
    drop_unused(merged)
    return _changed(model, merged, "merging matrix products")


@dataclass(frozen=True, slots=True)
class _Product:
    """`x @ W + b`: the numbers of its two nodes, what it reads and writes, and its weights [K, N] and [N]."""

    matmul: int
    add: int
    read: str
    written: str
    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any]


def _groups(model: "ModelProto") -> list[list[_Product]]:
    """Return the products with constant weights that share their input, where two or more do."""
    from onnx import numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    if next((opset.version for opset in model.opset_import if not opset.domain), 0) < _SPLIT_TAKES_SIZES:
        return []
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[int]] = {}
    for number, node in enumerate(model.graph.node):
        for name in read_by(node):
            readers.setdefault(name, []).append(number)
    outputs = {value.name for value in model.graph.output}
    found: dict[tuple[str, int], list[_Product]] = {}
    for number, node in enumerate(model.graph.node):
        if node.op_type != "MatMul" or node.input[1] not in constants or node.output[0] in outputs:
            continue
        after = readers.get(node.output[0], [])
        add = model.graph.node[after[0]] if len(after) == 1 else None
        weight = constants[node.input[1]]
        if add is None or add.op_type != "Add" or len(weight.dims) != 2:  # noqa: PLR2004 - [K, N]
            continue
        bias = next((constants[name] for name in add.input if name in constants), None)
        if bias is None or list(bias.dims) != [weight.dims[1]]:
            continue
        weights = numpy_helper.to_array(weight), numpy_helper.to_array(bias)
        product = _Product(number, after[0], node.input[0], add.output[0], *weights)
        found.setdefault((node.input[0], weight.data_type), []).append(product)
    return [group for group in found.values() if len(group) > 1]


_SPLIT_TAKES_SIZES = 13
"""The opset since which Split's sizes are an input."""


def _merge(model: "ModelProto", group: Sequence[_Product]) -> list["NodeProto"]:
    """Add the weights of a group to the model and return its three nodes."""
    from onnx import helper, numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    prefix = f"{group[0].written}/merged"
    values = {
        "weight": np.concatenate([product.weight for product in group], axis=1),
        "bias": np.concatenate([product.bias for product in group]),
        "split": np.asarray([product.weight.shape[1] for product in group], dtype=np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, f"{prefix}/{name}") for name, value in values.items())
    return [
        helper.make_node("MatMul", [group[0].read, f"{prefix}/weight"], [f"{prefix}/product"]),
        helper.make_node("Add", [f"{prefix}/product", f"{prefix}/bias"], [f"{prefix}/sum"]),
        helper.make_node(
            "Split", [f"{prefix}/sum", f"{prefix}/split"], [product.written for product in group], axis=-1
        ),
    ]


def read_by(node: "NodeProto") -> Iterator[str]:
    """Yield the names of all tensors that a node reads, those that its subgraphs take from outside included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            own.update(name for inner in graph.node for name in inner.output)
            read = {name for inner in graph.node for name in read_by(inner)}
            yield from sorted((read | {value.name for value in graph.output}) - own)


def sort_nodes(model: "ModelProto") -> None:
    """Bring nodes into an order in which each reads what is there: ONNX Runtime's tools overlook what branches read."""
    waiting = [copy_of(node) for node in model.graph.node]
    missing = {name for node in waiting for name in node.output}
    del model.graph.node[:]
    while waiting:
        blocked = []
        for node in waiting:
            if missing.isdisjoint(read_by(node)):
                model.graph.node.append(node)
                missing.difference_update(node.output)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            raise CandidateError("the nodes of the graph wait for each other")
        waiting = blocked


def drop_unused(model: "ModelProto") -> None:
    """Remove initializers that nothing reads."""
    read = {name for node in model.graph.node for name in read_by(node)} | {value.name for value in model.graph.output}
    for number in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[number].name not in read:
            del model.graph.initializer[number]


def copy_of(message: _Message) -> _Message:
    """Return a copy of a protobuf message."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def with_opsets(model: "ModelProto") -> "ModelProto":
    """Return the model with one opset import for each domain that it uses; exporters and mergers name some twice."""
    versions: dict[str, int] = {}
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        versions[domain] = max(versions.get(domain, 0), opset.version)
    if any(node.domain == _FUSED_DOMAIN for node in model.graph.node):
        versions.setdefault(_FUSED_DOMAIN, 1)
    del model.opset_import[:]
    for domain, version in versions.items():
        model.opset_import.add(domain=domain, version=version)
    return model


_FUSED_DOMAIN = "com.microsoft"


def _changed(before: "ModelProto", after: "ModelProto", what: str) -> "ModelProto":
    """Return `after`. Raises CandidateError where it has the same operators as `before`."""
    if _operators(before) == _operators(after):
        raise CandidateError(f"{what} changes nothing in this graph")
    return after


def _operators(model: "ModelProto") -> Counter[str]:
    return Counter(f"{node.domain}:{node.op_type}" for node in model.graph.node)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the optimisers tell of their progress: they log and print, as commands of their own do."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def told(exc: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(exc).strip() or type(exc).__name__).partition("\n")[0][:300]
