from dataclasses import replace
from typing import Any

import pytest

from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.model_config import (
    engine_filename,
    is_complete,
    served_model,
)
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.signature import (
    EngineSignature,
    ShapeRange,
    TensorInfo,
)
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.validation import check_model

X = TensorInfo("x", "TYPE_FP32", "FLOAT", (-1, 8))
Y = TensorInfo("y", "TYPE_FP16", "HALF", (-1, -1))
SIGNATURE = EngineSignature({"x": X}, {"y": Y}, ({"x": ShapeRange((1, 8), (4, 8), (16, 8))},))


def config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "encoder",
        "max_batch_size": 16,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["8"]}],
        "output": [{"name": "y", "data_type": "TYPE_FP16", "dims": ["4"]}],
        **changes,
    }


def check(signature: EngineSignature = SIGNATURE, **changes: Any) -> None:
    check_model(served_model(config(**changes)), signature)


def test_a_configuration_that_fits() -> None:
    check()
    check(max_batch_size=0, input=[{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 8]}], output=[])
    reshaped = {"name": "x", "data_type": "TYPE_FP32", "dims": [2, 4], "reshape": {"shape": [8]}}
    check(input=[reshaped])
    assert is_complete(config())
    assert not is_complete(config(output=[]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_batch_size": 17}, "max_batch_size is 17, the largest batch of the engine's profiles is 16"),
        (
            {"input": [{"name": "z", "data_type": "TYPE_FP32", "dims": [8]}]},
            "the engine has no input 'z', it has 'x'",
        ),
        ({"input": []}, "the engine needs the input 'x', absent from the configuration"),
        (
            {"output": [{"name": "z", "data_type": "TYPE_FP32", "dims": [8]}]},
            "the engine has no output 'z', it has 'y'",
        ),
        (
            {"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [8]}]},
            "output 'y': the configuration has TYPE_FP32, the engine TYPE_FP16",
        ),
        (
            {"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [9]}]},
            "input 'x': the engine has shape [-1, 8], the configuration [-1, 9], the batch dimension first",
        ),
        (
            {"max_batch_size": 0},
            "input 'x': the engine has shape [-1, 8], the configuration [8]",
        ),
    ],
)
def test_one_that_does_not_is_told_with_both_values(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelSetupError) as caught:
        check(**changes)
    assert str(caught.value) == f"unable to load model 'encoder': {problem}"


def test_tensors_that_cannot_be_served() -> None:
    bf16 = replace(SIGNATURE, outputs={"y": replace(Y, data_type="TYPE_INVALID", engine_type="BF16")})
    with pytest.raises(ModelSetupError, match="output 'y' is BF16 in the engine, which cannot be carried"):
        check(bf16)
    with pytest.raises(ModelSetupError, match=r"needs a variable first dimension: input 'x' has \[4, 8\]"):
        check(replace(SIGNATURE, inputs={"x": replace(X, dims=(4, 8))}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"batch_input": [{"kind": "BATCH_ITEM_SHAPE"}]}, "batch_input is not available"),
        ({"sequence_batching": {"direct": {}}}, "sequence_batching is not available"),
        ({"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [8], "optional": True}]}, "'x': optional is not"),
    ],
)
def test_what_this_backend_does_not_do(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelSetupError, match=problem):
        served_model(config(**changes))


def test_the_engine_of_a_gpu_is_chosen_as_the_tensorrt_backend_does() -> None:
    names = {"default_model_filename": "a.engine", "cc_model_filenames": {"8.9": "b.engine"}}
    assert engine_filename(names, "8.9") == "b.engine"
    assert engine_filename(names, "12.0") == "a.engine"
    assert engine_filename({}, "8.9") == "model.engine"
