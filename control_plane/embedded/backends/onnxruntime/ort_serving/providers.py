"""Which execution providers a model instance asks for, in order, with their options. Pure: availability is `session`'s.

Accelerator names, parameters and defaults are those of Triton's C++ backend: triton-inference-server/
onnxruntime_backend, README.md and ModelState::LoadModel of src/onnxruntime.cc. An instance on a GPU gets CUDA, behind
TensorRT where that is asked for; every instance may ask for OpenVINO on the CPU; the CPU provider comes last, always.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .errors import ModelSetupError
from .model_config import Json
from .settings import Parameters, as_bool, as_int, as_unsigned, parsed

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider. A required one that is missing fails the load; another is left out."""

    name: str
    options: dict[str, str]
    required: bool


_PRECISIONS: Final = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}

_TENSORRT_INTEGERS: Final = (
    "trt_max_partition_iterations trt_min_subgraph_size trt_dla_core trt_builder_optimization_level "
    "trt_auxiliary_streams trt_ep_context_embed_mode"
)
_TENSORRT_BOOLEANS: Final = (
    "trt_dla_enable trt_engine_cache_enable trt_dump_subgraphs trt_force_sequential_engine_build "
    "trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback trt_timing_cache_enable trt_force_timing_cache "
    "trt_detailed_build_log trt_build_heuristics_enable trt_sparsity_enable trt_cuda_graph_enable "
    "trt_dump_ep_context_model"
)
_TENSORRT_TEXTS: Final = (
    "trt_engine_cache_path trt_engine_cache_prefix trt_timing_cache_path trt_tactic_sources "
    "trt_extra_plugin_lib_paths trt_profile_min_shapes trt_profile_max_shapes trt_profile_opt_shapes "
    "trt_ep_context_file_path"
)
_TENSORRT_RENAMED: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "max_workspace_size_bytes": ("trt_max_workspace_size", as_unsigned),
    "int8_calibration_table_name": ("trt_int8_calibration_table_name", str),
    "int8_use_native_calibration_table": ("trt_int8_use_native_calibration_table", as_bool),
}
_TENSORRT_OPTIONS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    **_TENSORRT_RENAMED,
    **{name: (name, as_int) for name in _TENSORRT_INTEGERS.split()},
    **{name: (name, as_bool) for name in _TENSORRT_BOOLEANS.split()},
    **{name: (name, str) for name in _TENSORRT_TEXTS.split()},
}
"""Accelerator parameter -> the provider's option, and how its value is checked. The value itself passes unchanged."""

_CUDA_BOOLEANS: Final = {"do_copy_in_default_stream", "use_ep_level_unified_stream"}
_CONV_ALGORITHMS: Final = {0: "EXHAUSTIVE", 1: "HEURISTIC", 2: "DEFAULT"}
_ARENA_STRATEGIES: Final = {0: "kNextPowerOfTwo", 1: "kSameAsRequested"}


def providers_of(config: Json, instance_kind: str, device_id: int) -> tuple[Provider, ...]:
    """Return the providers for an instance, the preferred one first.

    `instance_kind` is Triton's: CPU, GPU, AUTO or MODEL. On a GPU CUDA is required; AUTO does without.

    Raises:
        ModelSetupError: an unknown accelerator, or a parameter of one that cannot be read.

    """
    accelerators = (config.get("optimization") or {}).get("execution_accelerators") or {}
    providers: list[Provider] = []
    if instance_kind in {"GPU", "AUTO"}:
        providers += _gpu_providers(config, accelerators, device_id, required=instance_kind == "GPU")
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if accelerator["name"] != "openvino":
            raise _unknown(accelerator)
        providers.append(Provider(OPENVINO, {"device_type": "CPU"}, required=True))
    return (*providers, Provider(CPU, {}, required=True))


def _gpu_providers(config: Json, accelerators: Json, device_id: int, *, required: bool) -> Iterable[Provider]:
    cuda_options: dict[str, str] = {}
    for accelerator in accelerators.get("gpu_execution_accelerator", ()):
        match accelerator["name"]:
            case "tensorrt":
                options = {**_tensorrt_options(accelerator), "device_id": str(device_id)}
                yield Provider(TENSORRT, options, required=required)
            case "cuda":
                cuda_options |= _cuda_options(accelerator)
            case _:
                raise _unknown(accelerator)
    cuda_options |= _cuda_options_in_parameters(config) | {"device_id": str(device_id)}
    yield Provider(CUDA, cuda_options, required=required)


def _tensorrt_options(accelerator: Json) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, text in (accelerator.get("parameters") or {}).items():
        label = f"tensorrt accelerator parameter '{name}'"
        if name == "precision_mode":
            if text not in _PRECISIONS:
                raise ModelSetupError(f"{label}: unsupported precision mode '{text}' is requested")
            options |= _PRECISIONS[text]
        elif name in _TENSORRT_OPTIONS:
            option, check = _TENSORRT_OPTIONS[name]
            parsed(label, text, check)
            options[option] = text
        else:
            raise ModelSetupError(f"unknown parameter '{name}' is provided for TensorRT Execution Accelerator")
    return options


def _cuda_options(accelerator: Json) -> dict[str, str]:
    options = dict(accelerator.get("parameters") or {})
    for name in _CUDA_BOOLEANS & options.keys():
        parsed(f"cuda accelerator parameter '{name}'", options[name], as_bool)
    return options


def _cuda_options_in_parameters(config: Json) -> dict[str, str]:
    """Read the older way to give CUDA options, which wins over the accelerator's. Defaults are onnxruntime's own."""
    parameters = Parameters(config)
    options: dict[str, str] = {}
    for name, choices in (("cudnn_conv_algo_search", _CONV_ALGORITHMS), ("arena_extend_strategy", _ARENA_STRATEGIES)):
        number = parameters.read(name, as_int, None)
        if number is not None:
            if number not in choices:
                raise ModelSetupError(f"unsupported {name} value '{number}' is requested, known are {choices}")
            options[name] = choices[number]
    for name, check in (("gpu_mem_limit", as_unsigned), ("do_copy_in_default_stream", as_bool)):
        if parameters.read(name, check, None) is not None:
            options[name] = parameters.text(name) or ""
    return options


def _unknown(accelerator: Json) -> ModelSetupError:
    return ModelSetupError(f"unknown Execution Accelerator '{accelerator['name']}' is requested")
