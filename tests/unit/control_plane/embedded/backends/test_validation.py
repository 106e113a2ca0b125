from typing import Any

import pytest

from control_plane.embedded.backends.onnxruntime.ort_serving.batching import batch_plan
from control_plane.embedded.backends.onnxruntime.ort_serving.completion import completion_of, is_complete
from control_plane.embedded.backends.onnxruntime.ort_serving.datatypes import CONFIG_TYPE_BY_ONNX
from control_plane.embedded.backends.onnxruntime.ort_serving.errors import ModelSetupError
from control_plane.embedded.backends.onnxruntime.ort_serving.model_config import Json, served_model
from control_plane.embedded.backends.onnxruntime.ort_serving.signature import ModelSignature, TensorSignature
from control_plane.embedded.backends.onnxruntime.ort_serving.validation import check_model


def tensor(name: str, *dims: int, onnx_type: str = "tensor(float)") -> TensorSignature:
    return TensorSignature(name, CONFIG_TYPE_BY_ONNX.get(onnx_type, "TYPE_INVALID"), onnx_type, dims)


def signature(
    inputs: list[TensorSignature], outputs: list[TensorSignature], overridable: tuple[TensorSignature, ...] = ()
) -> ModelSignature:
    return ModelSignature(
        {each.name: each for each in inputs},
        {each.name: each for each in overridable},
        {each.name: each for each in outputs},
    )


def entry(name: str, *dims: int, data_type: str = "TYPE_FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def config(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], batch: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": "m", "max_batch_size": batch, "input": inputs, "output": outputs, **more}


def check(given: Json, model: ModelSignature) -> None:
    check_model(served_model(given), model)


BATCHED = signature([tensor("x", -1, 3)], [tensor("y", -1, -1)])


def test_fitting_configuration_passes() -> None:
    check(config([entry("x", 3)], [entry("y", -1)], 8), BATCHED)
    check(config([entry("x", -1, 3)], [entry("y", -1, -1)]), BATCHED)


def test_inputs_may_be_stricter_than_the_model() -> None:
    check(config([entry("x", 5, 3)], [entry("y", -1, -1)]), BATCHED)


def test_reshape_gives_the_dims_the_model_sees() -> None:
    check(config([entry("x", 1, 3, reshape={"shape": [3]})], [entry("y", 7, reshape={"shape": [-1]})], 8), BATCHED)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            config([entry("x", 4)], [entry("y", -1)], 8),
            r"'x': the model has shape \[-1, 3\], the configuration \[-1, 4\]",
        ),
        (config([entry("x", 3)], [entry("y", 2)], 8), "output 'y': the model has shape"),
        (config([entry("x", 3)], [entry("y")], 8), "output 'y': the model has shape"),
        (config([entry("z", 3)], [entry("y", -1)], 8), "unexpected inference input 'z', allowed inputs are: 'x'"),
        (config([], [entry("y", -1)], 8), "the model requires input 'x'"),
        (config([entry("x", 3)], [entry("q", -1)], 8), "unexpected inference output 'q', allowed outputs are: 'y'"),
        (
            config([entry("x", 3, data_type="TYPE_INT8")], [entry("y", -1)], 8),
            "TYPE_INT8 for input 'x', model has TYPE_FP32",
        ),
        (config([entry("x", 3, optional=True)], [entry("y", -1)], 8), "'x' cannot be optional"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelSetupError, match=f"unable to load model 'm': .*{text}"):
        check(given, BATCHED)


def test_batching_needs_a_variable_first_dimension() -> None:
    with pytest.raises(ModelSetupError, match="variable first dimension: input 'x'"):
        check(config([entry("x", 3)], [entry("y", 3)], 8), signature([tensor("x", 1, 3)], [tensor("y", 1, 3)]))


def test_optional_inputs_are_those_with_a_default_and_do_not_batch() -> None:
    model = signature([tensor("x", -1)], [tensor("y", -1)], (tensor("z", -1),))
    check(config([entry("x", -1), entry("z", -1, optional=True)], [entry("y", -1)]), model)
    check(config([entry("x", -1)], [entry("y", -1)]), model)
    with pytest.raises(ModelSetupError, match="'z' has a default"):
        check(config([entry("x", -1), entry("z", -1)], [entry("y", -1)]), model)
    with pytest.raises(ModelSetupError, match="optional input 'z' is not supported"):
        check(config([entry("x"), entry("z", optional=True)], [entry("y")], 4), model)


def test_scalars_take_ones() -> None:
    model = signature([tensor("x")], [tensor("y")])
    check(config([entry("x", 1)], [entry("y", 1, 1)]), model)
    with pytest.raises(ModelSetupError, match="input 'x' is a scalar"):
        check(config([entry("x", 2)], [entry("y", 1)]), model)


def test_type_triton_cannot_carry() -> None:
    with pytest.raises(ModelSetupError, match=r"tensor\(float8e4m3fn\), which Triton cannot carry"):
        check(
            config([entry("x", 1)], [entry("y", 1)]), signature([tensor("x", 1, onnx_type="tensor(float8e4m3fn)")], [])
        )


RAGGED = signature(
    [tensor("ids", -1, onnx_type="tensor(int64)"), tensor("shape", -1, 1, onnx_type="tensor(int32)")],
    [tensor("y", -1, 4)],
)
RAGGED_CONFIG = config(
    [entry("ids", -1, data_type="TYPE_INT64", allow_ragged_batch=True)],
    [entry("y", 4)],
    8,
    batch_input=[
        {
            "kind": "BATCH_ITEM_SHAPE",
            "target_name": ["shape"],
            "data_type": "TYPE_INT32",
            "source_input": ["ids"],
        }
    ],
)


def test_ragged_model_fits_and_is_planned() -> None:
    check(RAGGED_CONFIG, RAGGED)
    plan = batch_plan(served_model(RAGGED_CONFIG), RAGGED)
    assert plan.ragged == {"ids"}
    assert [each.targets for each in plan.derived] == [("shape",)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "BATCH_NONSENSE"}, "unknown kind 'BATCH_NONSENSE'"),
        ({"data_type": "TYPE_INT64"}, "data_type must be TYPE_FP32 or TYPE_INT32"),
        ({"data_type": "TYPE_FP32"}, "TYPE_FP32 for batch input 'shape'"),
        ({"source_input": []}, "exactly one source_input"),
        ({"source_input": ["q"]}, "'q' is not an input"),
        ({"target_name": ["q"]}, "unexpected inference input 'q'"),
    ],
)
def test_batch_input_that_cannot_work(change: dict[str, Any], text: str) -> None:
    given = {**RAGGED_CONFIG, "batch_input": [{**RAGGED_CONFIG["batch_input"][0], **change}]}
    with pytest.raises(ModelSetupError, match=text):
        check(given, RAGGED)


def test_ragged_input_has_one_variable_dimension_in_the_model() -> None:
    with pytest.raises(ModelSetupError, match=r"ragged input 'x' needs shape \[-1\]"):
        check(config([entry("x", 3, allow_ragged_batch=True)], [entry("y", -1)], 8), BATCHED)


def test_batch_output_is_exempt_from_the_shape_check_but_needs_its_source() -> None:
    model = signature([tensor("x", -1)], [tensor("y", -1)])
    scatter = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}
    given = config([entry("x", -1, allow_ragged_batch=True)], [entry("y", -1)], 4, batch_output=[scatter])
    check(given, model)
    with pytest.raises(ModelSetupError, match="source_input 'q' is not an input"):
        check({**given, "batch_output": [{**scatter, "source_input": ["q"]}]}, model)


def test_implicit_state_is_refused_and_controls_are_inputs() -> None:
    controls = {"control_input": [{"name": "start"}]}
    model = signature([tensor("x", -1, 3), tensor("start", -1, 1)], [tensor("y", -1, -1)])
    check(config([entry("x", 3)], [entry("y", -1)], 4, sequence_batching=controls), model)
    with pytest.raises(ModelSetupError, match="implicit state"):
        served_model({"sequence_batching": {"state": [{}]}})


def test_completion_of_a_model_that_can_batch() -> None:
    done = completion_of({"max_batch_size": 0}, BATCHED)
    assert (done.max_batch_size, done.dynamic_batching) == (4, True)
    assert done.inputs == [entry("x", 3)]
    assert done.outputs == [entry("y", -1)]


def test_completion_keeps_what_is_given() -> None:
    done = completion_of({"max_batch_size": 16, "input": [entry("x", 3)], "dynamic_batching": {}}, BATCHED)
    assert (done.max_batch_size, done.dynamic_batching, done.inputs) == (16, False, None)
    assert is_complete(config([entry("x", 3)], [entry("y", -1)]))
    assert not is_complete(config([entry("x", 3)], []))


def test_completion_of_a_model_that_cannot_batch() -> None:
    fixed = signature([tensor("x", 1, 3)], [tensor("y")])
    done = completion_of({}, fixed)
    assert (done.max_batch_size, done.dynamic_batching) == (0, False)
    assert done.inputs == [entry("x", 1, 3)]
    assert done.outputs == [entry("y", 1)]
    with pytest.raises(ModelSetupError, match="max_batch_size is 2, but the model does not support batching"):
        completion_of({"max_batch_size": 2}, fixed)


def test_scalar_items_of_a_batch_get_a_reshape() -> None:
    done = completion_of({}, signature([tensor("x", -1)], [tensor("y", -1)]))
    assert done.inputs == [entry("x", 1, reshape={"shape": []})]
