"""What a model with `backend: "onnxruntime"` does on an embedded tritonserver, as on one with the C++ backend."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from tests.serving import Serving, embedded_server

Array = NDArray[Any]
Value = tuple[str, int, Sequence[Any]]

ONE_INSTANCE = "instance_group [{ kind: KIND_CPU, count: 1 }]\n"
WAITS_FOR_A_BATCH = ONE_INSTANCE + "dynamic_batching { max_queue_delay_microseconds: 400000 }\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    repository = tmp_path_factory.mktemp("repository")
    with embedded_server(repository) as server:
        yield Serving(repository, server.server)


def onnx_model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Value], outputs: Sequence[Value], **constants: Array
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def unary(operator: str, element_type: int, *dims: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"])
    return onnx_model([node], [("x", element_type, dims)], [("y", element_type, dims)])


def gather() -> onnx.ModelProto:
    """Build a lookup that also tells how many items its session call held: y = table[x], n = items of the call."""
    return onnx_model(
        [
            helper.make_node("Gather", ["table", "x"], ["y"]),
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["items"]),
            helper.make_node("Mul", ["x", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "items"], ["n"]),
        ],
        [("x", TensorProto.INT64, ["batch", 1])],
        [("y", TensorProto.FLOAT, ["batch", 1]), ("n", TensorProto.INT64, ["batch", 1])],
        table=np.array([10, 11, 12, 13], np.float32),
        zero=np.array(0, np.int64),
        nothing=np.array([0], np.int64),
    )


GATHER_CONFIG = """max_batch_size: 16
input [{ name: "x", data_type: TYPE_INT64, dims: [1] }]
output [{ name: "y", data_type: TYPE_FP32, dims: [1] }, { name: "n", data_type: TYPE_INT64, dims: [1] }]
"""


def at_once(serving: Serving, name: str, feeds: Sequence[dict[str, Array]], *outputs: str) -> list[Any]:
    """Send all requests at the same time; an answer is the outputs or the error."""

    def one(feed: dict[str, Array]) -> Any:
        try:
            return serving.infer(name, feed, *outputs)
        except InferenceServerException as exc:
            return exc

    with ThreadPoolExecutor(len(feeds)) as pool:
        return list(pool.map(one, feeds))


def test_requests_share_one_session_call(serving: Serving) -> None:
    name = serving.load("batches", gather(), GATHER_CONFIG + WAITS_FOR_A_BATCH)
    feeds = [{"x": np.full((items, 1), items, np.int64)} for items in (1, 2, 3, 1)]
    answers = at_once(serving, name, feeds, "y", "n")
    for feed, answer in zip(feeds, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], 10 + feed["x"].astype(np.float32))
    assert max(int(answer["n"][0, 0]) for answer in answers) > 3, "no session call held several requests"
    items, calls = serving.executions(name)
    assert items == 7
    assert calls < len(feeds)


def test_bad_request_fails_alone_in_its_batch(serving: Serving) -> None:
    name = serving.load("bad_request", gather(), GATHER_CONFIG + WAITS_FOR_A_BATCH)
    feeds = [{"x": np.full((1, 1), index, np.int64)} for index in (0, 99, 1, 2)]
    first, bad, *others = at_once(serving, name, feeds, "y")
    assert isinstance(bad, InferenceServerException)
    assert "99" in str(bad)
    assert bad.status() == "StatusCode.INVALID_ARGUMENT"
    assert [float(answer["y"][0, 0]) for answer in (first, *others)] == [10, 11, 12]
    assert serving.executions(name)[1] < len(feeds)


def test_configuration_is_completed_from_the_model(serving: Serving) -> None:
    name = serving.load("completed", unary("Relu", TensorProto.FLOAT, "batch", 4))
    config = serving.config(name)
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (4, True)
    assert [(entry.name, list(entry.dims)) for entry in (*config.input, *config.output)] == [("x", [4]), ("y", [4])]
    answer = serving.infer(name, {"x": np.array([[-1, 0, 1, 2]], np.float32)}, "y")
    assert answer["y"].tolist() == [[0, 0, 1, 2]]


def test_scalar_items_are_completed_with_a_reshape(serving: Serving) -> None:
    name = serving.load("scalar_items", unary("Relu", TensorProto.FLOAT, "batch"))
    answer = serving.infer(name, {"x": np.array([[-1], [2]], np.float32)}, "y")
    assert answer["y"].tolist() == [[0], [2]]


def test_model_without_a_batch_dimension(serving: Serving) -> None:
    name = serving.load("no_batch", unary("Relu", TensorProto.FLOAT, 2, 3), ONE_INSTANCE)
    assert serving.config(name).max_batch_size == 0
    feeds = [{"x": np.full((2, 3), value, np.float32)} for value in (-1, 5)]
    assert [answer["y"].max() for answer in at_once(serving, name, feeds, "y")] == [0, 5]


def test_scalar_model(serving: Serving) -> None:
    name = serving.load("scalar", unary("Neg", TensorProto.INT32), ONE_INSTANCE)
    assert serving.infer(name, {"x": np.array([7], np.int32)}, "y")["y"].tolist() == [-7]


def test_strings(serving: Serving) -> None:
    name = serving.load("strings", unary("Identity", TensorProto.STRING, "batch", 2), WAITS_FOR_A_BATCH)
    texts = [["a", "bcd"], ["", "gr\u00fc\u00df"]]
    feeds = [{"x": np.array([[text.encode() for text in row]], np.object_)} for row in texts]
    answers = at_once(serving, name, feeds, "y")
    assert [[text.decode() for text in answer["y"][0]] for answer in answers] == texts


def test_bfloat16(serving: Serving) -> None:
    name = serving.load("bfloat16", unary("Identity", TensorProto.BFLOAT16, "batch", 2), WAITS_FOR_A_BATCH)
    feeds = [{"x": np.array([[value, -value]], ml_dtypes.bfloat16)} for value in (1.5, 3)]
    answers = at_once(serving, name, feeds, "y")
    assert [answer["y"].astype(float).tolist() for answer in answers] == [[[1.5, -1.5]], [[3, -3]]]


def test_optional_input_takes_the_default_of_the_model(serving: Serving) -> None:
    model = onnx_model(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        [("x", TensorProto.FLOAT, [2]), ("z", TensorProto.FLOAT, [2])],
        [("y", TensorProto.FLOAT, [2])],
        z=np.array([10, 20], np.float32),
    )
    config = """input [{ name: "x", data_type: TYPE_FP32, dims: [2] },
                       { name: "z", data_type: TYPE_FP32, dims: [2], optional: true }]
                output [{ name: "y", data_type: TYPE_FP32, dims: [2] }]"""
    name = serving.load("optional", model, config)
    ones = np.ones(2, np.float32)
    assert serving.infer(name, {"x": ones}, "y")["y"].tolist() == [11, 21]
    assert serving.infer(name, {"x": ones, "z": ones}, "y")["y"].tolist() == [2, 2]


def test_reshape(serving: Serving) -> None:
    config = """max_batch_size: 4
        input [{ name: "x", data_type: TYPE_FP32, dims: [2, 2], reshape { shape: [4] } }]
        output [{ name: "y", data_type: TYPE_FP32, dims: [4, 1], reshape { shape: [4] } }]"""
    name = serving.load("reshape", unary("Relu", TensorProto.FLOAT, "batch", 4), config)
    answer = serving.infer(name, {"x": np.arange(8, dtype=np.float32).reshape(2, 2, 2)}, "y")
    assert answer["y"].shape == (2, 4, 1)


def test_only_requested_outputs_come_back(serving: Serving) -> None:
    name = serving.load("outputs", gather(), GATHER_CONFIG + ONE_INSTANCE)
    feed = {"x": np.array([[3]], np.int64)}
    assert serving.infer(name, feed, "n") == {"n": np.array([[1]])}
    assert serving.infer(name, feed, "y")["y"].tolist() == [[13]]


RAGGED_CONFIG = """max_batch_size: 8
input [{ name: "ids", data_type: TYPE_INT64, dims: [-1], allow_ragged_batch: true },
       { name: "count", data_type: TYPE_INT32, dims: [1] }]
output [{ name: "tokens", data_type: TYPE_INT64, dims: [-1] },
        { name: "length", data_type: TYPE_INT32, dims: [1] },
        { name: "total", data_type: TYPE_INT32, dims: [1] }]
batch_input [{ kind: BATCH_ITEM_SHAPE, target_name: "ids_shape", data_type: TYPE_INT32, source_input: "ids" },
             { kind: BATCH_ACCUMULATED_ELEMENT_COUNT, target_name: "ends", data_type: TYPE_FP32, source_input: "ids" }]
batch_output [{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE, target_name: "tokens", source_input: "ids" }]
"""


def ragged() -> onnx.ModelProto:
    return onnx_model(
        [
            helper.make_node("Neg", ["ids"], ["tokens"]),
            helper.make_node("Mul", ["ids_shape", "count"], ["length"]),
            helper.make_node("ReduceMax", ["ends"], ["end"], keepdims=0),
            helper.make_node("Cast", ["end"], ["end_int"], to=TensorProto.INT32),
            helper.make_node("Sub", ["count", "count"], ["zeros"]),
            helper.make_node("Add", ["zeros", "end_int"], ["total"]),
        ],
        [
            ("ids", TensorProto.INT64, ["tokens_in_all"]),
            ("count", TensorProto.INT32, ["batch", 1]),
            ("ids_shape", TensorProto.INT32, ["batch", 1]),
            ("ends", TensorProto.FLOAT, ["requests"]),
        ],
        [
            ("tokens", TensorProto.INT64, ["tokens_in_all"]),
            ("length", TensorProto.INT32, ["batch", 1]),
            ("total", TensorProto.INT32, ["batch", 1]),
        ],
    )


def test_ragged_requests_share_one_session_call(serving: Serving) -> None:
    name = serving.load("ragged", ragged(), RAGGED_CONFIG + WAITS_FOR_A_BATCH)
    shapes = [(1, 3), (1, 5), (2, 2)]
    feeds = [
        {"ids": np.arange(rows * width).reshape(rows, width) + 1, "count": np.ones((rows, 1), np.int32)}
        for rows, width in shapes
    ]
    answers = at_once(serving, name, feeds, "tokens", "length", "total")
    for feed, answer, (rows, width) in zip(feeds, answers, shapes, strict=True):
        np.testing.assert_array_equal(answer["tokens"], -feed["ids"])
        assert answer["length"].tolist() == [[width]] * rows
    assert max(int(answer["total"][0, 0]) for answer in answers) > 5, "no session call held several requests"


def test_output_that_does_not_fit_the_batch_is_an_error(serving: Serving) -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    model = onnx_model([node], [("x", TensorProto.FLOAT, ["n", 1])], [("y", TensorProto.FLOAT, ["more", 1])])
    name = serving.load("misfit", model)
    with pytest.raises(InferenceServerException, match=r"'y' cannot be split.*batch size 1 is expected"):
        serving.infer(name, {"x": np.ones((1, 1), np.float32)}, "y")


def test_other_model_filename(serving: Serving) -> None:
    model = unary("Relu", TensorProto.FLOAT, "batch", 1)
    name = serving.load("renamed", model, 'default_model_filename: "net.onnx"', filename="net.onnx")
    assert serving.infer(name, {"x": np.ones((1, 1), np.float32)}, "y")["y"].tolist() == [[1]]


def test_parameters_reach_onnxruntime(serving: Serving) -> None:
    numbers = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena")
    given = {
        **dict.fromkeys(numbers, "1"),
        "enable_mem_pattern": "0",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "session.use_device_allocator_for_initializers": "1",
        "session.dynamic_block_base": "4",  # no effect here nor in the C++ backend: a warning in the log
    }
    parameters = "".join(f'parameters {{ key: "{key}" value {{ string_value: "{given[key]}" }} }}\n' for key in given)
    config = parameters + "optimization { graph { level: 2 } }\n" + ONE_INSTANCE
    name = serving.load("parameters", unary("Relu", TensorProto.FLOAT, "batch", 1), config)
    assert serving.infer(name, {"x": np.ones((1, 1), np.float32)}, "y")["y"].tolist() == [[1]]


TENSORS = """max_batch_size: 4 input [{ name: "%s", data_type: TYPE_FP32, dims: [%d] }]
output [{ name: "%s", data_type: TYPE_FP32, dims: [%d] }]"""


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("bad_parameter", 'parameters { key: "intra_op_thread_count" value { string_value: "few" } }', "'few'"),
        ("bad_file", 'default_model_filename: "absent.onnx"', "unable to find '.*bad_file/1/absent.onnx'"),
        (
            "bad_output",
            TENSORS % ("x", 1, "q", 1),
            "unexpected inference output 'q', allowed outputs are: 'y'",
        ),
        (
            "bad_dims",
            TENSORS % ("x", 3, "y", 1),
            r"input 'x': the model has shape \[-1, 1\], the configuration \[-1, 3\]",
        ),
        (
            "bad_accelerator",
            'optimization { execution_accelerators { cpu_execution_accelerator [{ name: "openvino" }] } }',
            "no OpenVINOExecutionProvider here",
        ),
    ],
)
def test_load_that_cannot_succeed_says_why(serving: Serving, name: str, config: str, reason: str) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        serving.load(name, unary("Relu", TensorProto.FLOAT, "batch", 1), config)


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_corrupted_model_file_fails_the_load(serving: Serving, content: bytes) -> None:
    name = f"corrupted_{len(content)}"
    with pytest.raises(InferenceServerException, match=f"onnxruntime cannot load '.*{name}/1/model.onnx'"):
        serving.load(name, content, ONE_INSTANCE)
