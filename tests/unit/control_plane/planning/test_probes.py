"""The smallest request of a config: shapes, types, and when there is none."""

from builders.model_config import ModelConfig, SequenceBatching, TensorConfig
from control_plane.planning.probes import MOST_VALUES, dummy_inputs

TEXT = TensorConfig("TEXT", "TYPE_STRING", (1,))
MASK = TensorConfig("MASK", "TYPE_BOOL", (-1, 3))


def test_open_dimensions_are_one_and_a_batch_has_one_item() -> None:
    config = ModelConfig("m", max_batch_size=8, inputs=(TEXT, MASK, TensorConfig("X", "TYPE_FP16", (2,))))
    assert dummy_inputs(config) == (
        {"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [""]},
        {"name": "MASK", "datatype": "BOOL", "shape": [1, 1, 3], "data": [False, False, False]},
        {"name": "X", "datatype": "FP16", "shape": [1, 2], "data": [0, 0]},
    )


def test_without_a_batch_the_shape_is_the_dims() -> None:
    config = ModelConfig("m", inputs=(TensorConfig("X", "TYPE_INT64", (-1,)), TensorConfig("ONE", "TYPE_FP32", ())))
    assert dummy_inputs(config) == (
        {"name": "X", "datatype": "INT64", "shape": [1], "data": [0]},
        {"name": "ONE", "datatype": "FP32", "shape": [], "data": [0]},
    )


def test_optional_inputs_are_left_out() -> None:
    optional = TensorConfig("SEED", "TYPE_INT32", (1,), optional=True)
    assert [it["name"] for it in dummy_inputs(ModelConfig("m", inputs=(optional, TEXT)))] == ["TEXT"]
    assert dummy_inputs(ModelConfig("m", inputs=(optional,))) == ()


def test_a_model_with_sequences_is_asked_like_another() -> None:
    config = ModelConfig("m", max_batch_size=1, inputs=(TEXT,), sequence_batching=SequenceBatching())
    assert [it["shape"] for it in dummy_inputs(config)] == [[1, 1]]


def test_a_huge_request_is_not_made() -> None:
    def of(elements: int) -> ModelConfig:
        return ModelConfig("m", inputs=(TEXT, TensorConfig("X", "TYPE_UINT8", (elements,))))

    assert dummy_inputs(of(MOST_VALUES)) == ()
    assert len(dummy_inputs(of(MOST_VALUES - 1))) == 2
