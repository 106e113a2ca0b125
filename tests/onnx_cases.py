"""The cases of `onnx.backend.test`, and how one of them is put to plain onnxruntime and to a Triton.

`tests/contract/test_onnx_conformance.py` runs a sample of them, `tests/bench/onnx_conformance.py` all. A case is
compared with what onnxruntime itself answers in this process with the same session options (its defaults): the backend
has to add nothing and to lose nothing.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import tritonclient.grpc as triton
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from control_plane.state import Server

Array = NDArray[Any]

WHEEL_KINDS: Final = ("simple", "pytorch-converted", "pytorch-operator")

TRITON_TYPES: Final[dict[int, tuple[str, str]]] = {
    onnx.TensorProto.BOOL: ("TYPE_BOOL", "BOOL"),
    onnx.TensorProto.UINT8: ("TYPE_UINT8", "UINT8"),
    onnx.TensorProto.UINT16: ("TYPE_UINT16", "UINT16"),
    onnx.TensorProto.UINT32: ("TYPE_UINT32", "UINT32"),
    onnx.TensorProto.UINT64: ("TYPE_UINT64", "UINT64"),
    onnx.TensorProto.INT8: ("TYPE_INT8", "INT8"),
    onnx.TensorProto.INT16: ("TYPE_INT16", "INT16"),
    onnx.TensorProto.INT32: ("TYPE_INT32", "INT32"),
    onnx.TensorProto.INT64: ("TYPE_INT64", "INT64"),
    onnx.TensorProto.FLOAT16: ("TYPE_FP16", "FP16"),
    onnx.TensorProto.BFLOAT16: ("TYPE_BF16", "BF16"),
    onnx.TensorProto.FLOAT: ("TYPE_FP32", "FP32"),
    onnx.TensorProto.DOUBLE: ("TYPE_FP64", "FP64"),
    onnx.TensorProto.STRING: ("TYPE_STRING", "BYTES"),
}
"""ONNX element type -> its name in a Triton configuration and in the inference protocol."""


class Verdict(StrEnum):
    """How a case came out."""

    NOT_CARRIED = "types Triton cannot carry"
    PLAIN_FAILS = "plain onnxruntime fails"
    BITWISE = "equal, bit for bit"
    WITHIN_TOLERANCE = "equal within the case's rtol/atol only"
    RANDOM = "random: type and shape equal"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a model and its first data set. Arrays are in the order of the graph's inputs and outputs."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    expected: tuple[Any, ...]
    rtol: float
    atol: float

    def is_carried(self) -> bool:
        """Whether Triton has a type for every input and output."""
        return all(
            value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type in TRITON_TYPES
            for value in (*self.model.graph.input, *self.model.graph.output)
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """A case as plain onnxruntime answers it. `feed` and `outputs` are by name; `config` is the case's config.pbtxt."""

    case: Case
    feed: dict[str, Array]
    outputs: dict[str, Array]
    deterministic: bool
    config: str


def node_cases() -> Iterator[Case]:
    """Generate the cases of single operators. Takes some seconds."""
    for test in load_model_tests(kind="node"):
        if test.data_sets is None or test.model is None:
            raise ValueError(f"{test.name} has no model or no data")
        inputs, outputs = test.data_sets[0]
        arrays = tuple(_array(value) for value in inputs), tuple(_array(value) for value in outputs)
        yield Case(test.name, test.model, *arrays, test.rtol, test.atol)


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def wheel_cases() -> Iterator[Case]:
    """Read the cases that the onnx wheel holds as files."""
    for kind in WHEEL_KINDS:
        for test in load_model_tests(kind=kind):
            if test.model_dir is None:
                raise ValueError(f"{test.name} is not in the wheel")
            folder = Path(test.model_dir)
            model = onnx.load(folder / "model.onnx")
            data = folder / "test_data_set_0"
            inputs = _arrays(data, "input", model.graph.input)
            outputs = _arrays(data, "output", model.graph.output)
            yield Case(test.name, model, inputs, outputs, test.rtol, test.atol)


def _arrays(folder: Path, prefix: str, values: Sequence[Any]) -> tuple[Any, ...]:
    found = []
    for index, value in enumerate(values):
        path = folder / f"{prefix}_{index}.pb"
        if path.exists() and value.type.WhichOneof("value") == "tensor_type":
            tensor = onnx.TensorProto()
            tensor.ParseFromString(path.read_bytes())
            found.append(numpy_helper.to_array(tensor))
    return tuple(found)


def reference(case: Case) -> Reference | None:
    """Run `case` in plain onnxruntime; None where that refuses it or answers something else than the case expects."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        feed = dict(zip(names, (np.asarray(value) for value in case.inputs), strict=True))
        outputs = _plain(session, feed)
        again = _plain(session, feed)
    except Exception:  # noqa: BLE001 - whatever onnxruntime cannot do is not the backend's to do
        return None
    deterministic = all(same_bits(outputs[name], again[name]) for name in outputs)
    close = len(outputs) == len(case.expected) and all(
        is_close(np.asarray(want), have, case.rtol, case.atol)
        for want, have in zip(case.expected, outputs.values(), strict=True)
    )
    if deterministic and not close:
        return None
    return Reference(case, feed, outputs, deterministic, _config(session))


def _plain(session: Any, feed: dict[str, Array]) -> dict[str, Array]:
    names = [value.name for value in session.get_outputs()]
    if not any(value.type == "tensor(bfloat16)" for value in (*session.get_inputs(), *session.get_outputs())):
        return dict(zip(names, session.run(names, feed), strict=True))
    values = {name: _ort_value(array) for name, array in feed.items()}
    results = session.run_with_ort_values(names, values)
    return {name: _bfloat16_or_numpy(result) for name, result in zip(names, results, strict=True)}


def _ort_value(array: Array) -> Any:
    if array.dtype == ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), onnx.TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _bfloat16_or_numpy(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    size = math.prod(value.shape())
    bits = np.frombuffer(ctypes.string_at(value.data_ptr(), size * 2), np.uint16) if size else np.empty(0, np.uint16)
    return np.asarray(bits.view(ml_dtypes.bfloat16).reshape(value.shape()))


def _config(session: Any) -> str:
    sections = [
        'backend: "onnxruntime"',
        "max_batch_size: 0",
        "instance_group [{ kind: KIND_CPU, count: 1 }]",
        *(_entry("input", value) for value in session.get_inputs()),
        *(_entry("output", value) for value in session.get_outputs()),
    ]
    return "\n".join(sections)


def _entry(section: str, value: Any) -> str:
    onnx_name = value.type.removeprefix("tensor(").removesuffix(")").upper()
    config_type, _ = TRITON_TYPES[onnx.TensorProto.DataType.Value(onnx_name)]
    dims = [dim if isinstance(dim, int) and dim > 0 else -1 for dim in value.shape] or [1]
    return f'{section} [{{ name: "{value.name}", data_type: {config_type}, dims: {dims} }}]'


def compare(server: Server, repository: Path, name: str, ref: Reference, deadline_s: float) -> tuple[Verdict, str]:
    """Serve `ref` on `server` as the model `name` of `repository`, and compare; the text says what differs."""
    headers = {"triton-grpc-protocol-admin-key": server.admin_key or ""}
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(ref.case.model.SerializeToString())
    (folder / "config.pbtxt").write_text(ref.config)
    with triton.InferenceServerClient(server.endpoints.grpc) as client:
        try:
            client.load_model(name, headers=headers, client_timeout=deadline_s)
            answers = infer(client, name, ref.feed, tuple(ref.outputs), deadline_s)
        except triton.InferenceServerException as exc:
            return Verdict.DIFFERENT, str(exc)
        finally:
            client.unload_model(name, headers=headers, client_timeout=deadline_s)
    return _verdict(ref, answers)


def infer(
    client: triton.InferenceServerClient, model: str, feed: dict[str, Array], outputs: Sequence[str], deadline_s: float
) -> dict[str, Array]:
    """Send one request; a scalar goes as a tensor of one element, which Triton's protocol asks for."""
    inputs = []
    for name, array in feed.items():
        shaped = np.ascontiguousarray(array.reshape(array.shape or (1,)))
        tensor = triton.InferInput(name, list(shaped.shape), _protocol_type(shaped))
        tensor.set_data_from_numpy(shaped)
        inputs.append(tensor)
    wanted = [triton.InferRequestedOutput(name) for name in outputs]
    result = client.infer(model, inputs, outputs=wanted, client_timeout=deadline_s)
    return {name: np.asarray(result.as_numpy(name)) for name in outputs}


def _protocol_type(array: Array) -> str:
    if array.dtype == ml_dtypes.bfloat16:
        return "BF16"
    if array.dtype.kind in "OSU":
        return "BYTES"
    return TRITON_TYPES[onnx.helper.np_dtype_to_tensor_dtype(array.dtype)][1]


def _verdict(ref: Reference, answers: dict[str, Array]) -> tuple[Verdict, str]:
    verdict = Verdict.BITWISE if ref.deterministic else Verdict.RANDOM
    for name, want in ref.outputs.items():
        have = answers[name].reshape(want.shape) if want.ndim == 0 and answers[name].size == 1 else answers[name]
        have = have.astype(want.dtype) if want.dtype == ml_dtypes.bfloat16 else have
        if have.shape != want.shape or (have.dtype != want.dtype and want.dtype.kind not in "OSU"):
            return Verdict.DIFFERENT, f"{name}: {have.dtype}{have.shape}, onnxruntime {want.dtype}{want.shape}"
        if not ref.deterministic or same_bits(want, have):
            continue
        if not is_close(want, have, ref.case.rtol, ref.case.atol):
            return Verdict.DIFFERENT, f"{name}: {have!r}, onnxruntime {want!r}"
        verdict = Verdict.WITHIN_TOLERANCE
    return verdict, ""


def same_bits(one: Array, other: Array) -> bool:
    """Tell whether two arrays hold the same bits; texts are compared as UTF-8."""
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "OSU":
        return _texts(one) == _texts(other)
    return one.tobytes() == other.tobytes()


def is_close(want: Array, have: Array, rtol: float, atol: float) -> bool:
    """Tell whether shapes and types agree, and values within the tolerance of the case; NaN equals NaN."""
    if want.dtype.kind in "OSU":
        return want.shape == have.shape and _texts(want) == _texts(have)
    if want.shape != have.shape or want.dtype != have.dtype:
        return False
    if want.dtype == ml_dtypes.bfloat16 or want.dtype.kind == "f":
        return np.allclose(have.astype(np.float64), want.astype(np.float64), rtol, atol, equal_nan=True)
    return np.array_equal(want, have)


def _texts(array: Array) -> list[bytes]:
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()]
