from typing import Any

import pytest

from control_plane.embedded.backends.onnxruntime.ort_serving.errors import ModelSetupError
from control_plane.embedded.backends.onnxruntime.ort_serving.providers import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    providers_of,
)
from control_plane.embedded.backends.onnxruntime.ort_serving.settings import GraphOptimization, session_settings


def config(**parameters: str) -> dict[str, Any]:
    return {"name": "m", "parameters": {name: {"string_value": value} for name, value in parameters.items()}}


def accelerated(where: str, name: str, **parameters: str) -> dict[str, Any]:
    entry = {"name": name, "parameters": parameters}
    return {"optimization": {"execution_accelerators": {f"{where}_execution_accelerator": [entry]}}}


def test_defaults_leave_the_choice_to_onnxruntime() -> None:
    settings = session_settings({})
    assert settings.graph_optimization is GraphOptimization.ALL
    assert not settings.parallel
    assert (settings.intra_op_threads, settings.inter_op_threads) == (0, 0)
    assert (settings.memory_arena, settings.memory_pattern) == (None, None)
    assert not any([settings.session_entries, settings.run_entries, settings.op_libraries, settings.remarks])


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (-1, GraphOptimization.BASIC),
        (0, GraphOptimization.ALL),
        (1, GraphOptimization.EXTENDED),
        (2, GraphOptimization.DISABLED),
        (7, GraphOptimization.ALL),
    ],
)
def test_graph_level(level: int, expected: GraphOptimization) -> None:
    assert session_settings({"optimization": {"graph": {"level": level}}}).graph_optimization is expected


def test_every_parameter_is_read() -> None:
    settings = session_settings(
        config(
            intra_op_thread_count="3",
            inter_op_thread_count="2",
            execution_mode="1",
            enable_mem_arena="0",
            enable_mem_pattern="TRUE",
            **{
                "memory.enable_memory_arena_shrinkage": "cpu:0;gpu:1",
                "session.use_device_allocator_for_initializers": "1",
            },
        )
    )
    assert (settings.intra_op_threads, settings.inter_op_threads, settings.parallel) == (3, 2, True)
    assert (settings.memory_arena, settings.memory_pattern) == (False, True)
    assert settings.run_entries == (("memory.enable_memory_arena_shrinkage", "cpu:0;gpu:1"),)
    assert settings.session_entries == (("session.use_device_allocator_for_initializers", "1"),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("intra_op_thread_count", "many"),
        ("inter_op_thread_count", "4x"),
        ("intra_op_thread_count", str(2**31)),
        ("execution_mode", "2"),
        ("enable_mem_arena", "maybe"),
        ("enable_mem_pattern", ""),
        ("share_session_between_instances", "both"),
        ("memory.enable_memory_arena_shrinkage", "cpu"),
    ],
)
def test_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ModelSetupError, match=f"'{name}'.*'{value}'"):
        session_settings(config(**{name: value}))


def test_what_has_no_effect_is_remarked() -> None:
    given = config(share_session_between_instances="true", **{"session.dynamic_block_base": "4"})
    remarks = session_settings({**given, "cc_model_filenames": {"9.0": "x.onnx"}}).remarks
    assert [remark.split()[1] if remark.startswith("parameter") else remark.split()[0] for remark in remarks] == [
        "'session.dynamic_block_base'",
        "share_session_between_instances",
        "cc_model_filenames",
    ]


def test_cpu_instance_runs_on_the_cpu_and_ignores_gpu_accelerators() -> None:
    assert [provider.name for provider in providers_of(accelerated("gpu", "nonsense"), "CPU", 0)] == [CPU]


def test_gpu_instance_needs_cuda_on_its_device_and_auto_does_not() -> None:
    cuda, cpu = providers_of({}, "GPU", 2)
    assert (cuda.name, cuda.options, cuda.required) == (CUDA, {"device_id": "2"}, True)
    assert cpu.name == CPU
    assert not providers_of({}, "AUTO", 0)[0].required


def test_tensorrt_comes_before_cuda_with_its_options_renamed() -> None:
    given = accelerated(
        "gpu", "tensorrt", precision_mode="FP16", max_workspace_size_bytes="4294967296", trt_engine_cache_enable="true"
    )
    tensorrt, cuda, _ = providers_of(given, "GPU", 1)
    assert tensorrt.name == TENSORRT
    assert tensorrt.options == {
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": "4294967296",
        "trt_engine_cache_enable": "true",
        "device_id": "1",
    }
    assert cuda.name == CUDA


def test_cuda_options_from_accelerator_and_parameters() -> None:
    given = accelerated("gpu", "cuda", gpu_mem_limit="1", use_ep_level_unified_stream="1")
    cuda = providers_of({**given, **config(gpu_mem_limit="5", cudnn_conv_algo_search="1")}, "GPU", 0)[0]
    assert cuda.options == {
        "gpu_mem_limit": "5",
        "use_ep_level_unified_stream": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "device_id": "0",
    }


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (accelerated("gpu", "rocm"), "unknown Execution Accelerator 'rocm'"),
        (accelerated("cpu", "cuda"), "unknown Execution Accelerator 'cuda'"),
        (accelerated("gpu", "tensorrt", precision_mode="INT3"), "INT3"),
        (accelerated("gpu", "tensorrt", nonsense="1"), "unknown parameter 'nonsense'"),
        (accelerated("gpu", "tensorrt", trt_dla_core="x"), "'trt_dla_core'.*'x'"),
        (accelerated("gpu", "cuda", do_copy_in_default_stream="x"), "'do_copy_in_default_stream'.*'x'"),
        (config(arena_extend_strategy="9"), "arena_extend_strategy.*'9'"),
    ],
)
def test_accelerator_that_cannot_be_had_as_asked(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ModelSetupError, match=text):
        providers_of(given, "GPU", 0)


def test_openvino_is_required_where_it_is_asked_for() -> None:
    openvino, cpu = providers_of(accelerated("cpu", "openvino"), "CPU", 0)
    assert (openvino.name, openvino.required, cpu.name) == (OPENVINO, True, CPU)
