"""A sentence encoder as one ONNX graph over ragged batches, with the padding taken out instead of put in.

Requests of different lengths share a batch only where Triton need not compare their shapes: the input is ragged
(`allow_ragged_batch`), so the tokens of all requests arrive as one list, and `batch_input` brings their shapes. The
graph then runs every token-wise layer on real tokens alone. Only attention, where the tokens of one sentence meet, is
padded, and there sentences of like length stand together: a long sentence does not widen the short ones beside it.
Sentences of one length (one alone is such a batch) need none of this: there attention takes a branch without it.
Mean pooling and normalisation are the graph's last nodes, so one dense [sentences, dimension] tensor leaves it. Only
standard ONNX operators are used: Triton's C++ ONNX Runtime backend serves the same bytes. Taking the padding out is
known as packing or "effective transformer" (FasterTransformer); `tests/bench/text_embedding.py` measures its worth.

`packed_module` exports the layers, with attention and the mean left open; `packed_text` closes them. Shapes: T tokens
as they arrive, P tokens without padding, B sentences, D dimension.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from builders.errors import MissingExtraError
from builders.onnx.optimise import drop_unused, read_by
from builders.onnx.packed_text import BETWEEN, DOMAIN, LAYOUT, operator_texts, unpad_text
from builders.onnx.torch_export import IR_VERSION, OPSET, quiet_exporter, strip_metadata
from builders.sources.checkpoint import EncoderCheckpoint

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

INPUT_IDS = "input_ids"
"""INT64 [T], ragged: token ids of all requests one after another; a request of several sentences brings its padding."""
TOKEN_COUNT = "token_count"  # noqa: S105 - a tensor's name
"""INT32 [B, 1]: how many tokens of each sentence are real."""
INPUT_IDS_SHAPE = "input_ids_shape"
"""INT32 [B, 1]: how many tokens of each sentence arrive (`BATCH_ITEM_SHAPE` of INPUT_IDS), made by Triton."""
EMBEDDING = "sentence_embedding"
"""FP32 [B, D]."""


def export_packed_encoder(checkpoint: EncoderCheckpoint, target: Path) -> None:
    """Write the encoder of `checkpoint` to the ONNX file `target`.

    Inputs INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE; output EMBEDDING. Takes seconds to half a minute. Raises
    MissingExtraError where PyTorch or transformers is not installed.
    """
    import onnx  # noqa: PLC0415 - only a build needs it, and `import onnx` is slow
    from onnx import compose, parser  # noqa: PLC0415

    unpad = parser.parse_model(unpad_text(ids=INPUT_IDS, count=TOKEN_COUNT, shape=INPUT_IDS_SHAPE))
    layout = [value for value in unpad.graph.output if value.name in LAYOUT]
    encoder = _closed(_export(checkpoint), layout)
    io_map = [(name, name) for name in (*BETWEEN, *LAYOUT)]
    merged = compose.merge_models(unpad, encoder, io_map=io_map, prefix1="unpad/", prefix2="encoder/")
    restore_names(merged, {"unpad/": (INPUT_IDS, TOKEN_COUNT, INPUT_IDS_SHAPE), "encoder/": (EMBEDDING,)})
    merged.producer_name = "tritonfleet"
    strip_metadata(merged)
    del merged.graph.value_info[:]  # two exporters named the same dimensions differently; ONNX Runtime infers its own
    onnx.checker.check_model(merged)
    onnx.save(merged, target)


def restore_names(model: "ModelProto", prefixed: Mapping[str, Sequence[str]]) -> None:
    """Give inputs and outputs of a merged graph their own names back: `prefixed` says which got which prefix."""
    names = {f"{prefix}{name}": name for prefix, own in prefixed.items() for name in own}
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        value.name = names.get(value.name, value.name)
    _rename(model.graph, names)


def _rename(graph: "GraphProto", names: Mapping[str, str]) -> None:
    """Rename what the nodes of a graph and of their branches read and write."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def _closed(encoder: "ModelProto", layout: Sequence["ValueInfoProto"]) -> "ModelProto":
    """Return the encoder with `layout` as further inputs and standard operators in place of the open ones."""
    from onnx import AttributeProto, TensorProto, helper, inliner, parser  # noqa: PLC0415 - `import onnx` is slow

    encoder.graph.input.extend(layout)
    for node in encoder.graph.node:
        if node.domain == DOMAIN:
            node.input.extend(LAYOUT)
            for attribute in node.attribute:
                if attribute.type == AttributeProto.FLOAT:  # onnxslim takes a constant's `value_float` for FP64
                    number = helper.make_tensor("", TensorProto.FLOAT, (), [attribute.f])
                    attribute.CopyFrom(helper.make_attribute(attribute.name, number))
    del encoder.functions[:]
    encoder.functions.extend(map(parser.parse_function, operator_texts()))
    closed: ModelProto = inliner.inline_local_functions(encoder)
    _join_reshapes(closed.graph)
    _without_batch(closed.graph)
    drop_unused(closed)
    standard = [opset for opset in closed.opset_import if opset.domain != DOMAIN]
    del closed.opset_import[:]
    closed.opset_import.extend(standard)
    return closed


def _join_reshapes(graph: "GraphProto") -> None:
    """Make one Reshape of several in a row, of PyTorch's code and Attention's; none of them copies a size."""
    made = {node.output[0]: node for node in graph.node if node.op_type == "Reshape"}
    for node in made.values():
        while node.input[0] in made:
            node.input[0] = made[node.input[0]].input[0]
    read = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
    for number in reversed(range(len(graph.node))):
        if read.isdisjoint(graph.node[number].output):
            del graph.node[number]


def _without_batch(graph: "GraphProto") -> None:
    """Make states [P, D] of [1, P, D], from the first product with weights on and wherever they are reshaped.

    ONNX Runtime then adds biases within the products (Gemm). PyTorch's exporter, given [P, D], would write Gemm into
    the graph, where `optimise` and `quantize` look for MatMul and Add.
    """
    from onnx import helper, numpy_helper  # noqa: PLC0415 - `import onnx` is slow

    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = (number for number, node in enumerate(graph.node) if node.op_type == "MatMul")
    first = next(number for number in products if graph.node[number].input[1] in constants)
    states = graph.node[first].input[0]
    flat = f"{states}/flat"
    for node in graph.node:
        node.input[:] = [flat if name == states else name for name in node.input]
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = constants[node.input[1]]
            match numpy_helper.to_array(shape).tolist():
                case [1, -1, width]:
                    shape.CopyFrom(numpy_helper.from_array(np.asarray([-1, width]), shape.name))
    axis = numpy_helper.from_array(np.zeros(1, dtype=np.int64), f"{flat}/axis")
    graph.initializer.append(axis)
    graph.node.insert(first, helper.make_node("Squeeze", [states, axis.name], [flat]))


def _export(checkpoint: EncoderCheckpoint) -> "ModelProto":
    """Export the packed encoder, its operators of `DOMAIN` still open: what `BETWEEN` names to EMBEDDING [B, D]."""
    try:
        import torch  # noqa: PLC0415 - an optional extra

        from builders.onnx.packed_module import example_inputs, load_packed_encoder  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError(exc.name or "torch", "export") from exc
    module = load_packed_encoder(checkpoint, domain=DOMAIN)
    with quiet_exporter():
        program = torch.onnx.export(
            module,
            example_inputs(),
            dynamo=True,
            dynamic_shapes=({0: "packed"}, {0: "packed"}, {0: "batch"}),
            input_names=list(BETWEEN),
            output_names=[EMBEDDING],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program, which it does only when told to write a file")
    model: ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model
