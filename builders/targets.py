"""Target: what an artifact is compiled for (runtime x device x precision), and what a machine must have for it. Pure.

`host` observes the machine; `plan` asks here why a target cannot be built, so that the answer can be shown and tested.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Runtime = Literal["onnxruntime", "tensorrt", "tensorrt_rtx"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

DISTRIBUTIONS: Mapping[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": (
        "tensorrt",
        *("tensorrt_cu13", "tensorrt_cu12"),
        *("tensorrt_cu13_bindings", "tensorrt_cu12_bindings"),
    ),
    "tensorrt_rtx": (
        "tensorrt_rtx",
        *("tensorrt_rtx_cu13", "tensorrt_rtx_cu12"),
        *("tensorrt_rtx_cu13_bindings", "tensorrt_rtx_cu12_bindings"),
    ),
}
"""Distributions any of which brings a runtime's module: meta packages, those for one CUDA, and the wheels of bindings.

`importlib.metadata` finds one whether it is written with hyphens or underscores.
"""

RTX_COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
"""What TensorRT-RTX 1.7 compiles for without a GPU of that kind (its `ComputeCapability` enumeration)."""

_SM = re.compile(r"sm_(\d{1,2})(\d)")
# First compute capability whose tensor cores have the type (CUDA C++ programming guide, "Compute Capabilities").
_FIRST_WITH: Mapping[str, tuple[int, int]] = {"fp16": (5, 3), "int8": (6, 1), "bf16": (8, 0), "fp8": (8, 9)}


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """`device` is "cpu", "cuda" (any NVIDIA GPU, ONNX Runtime only) or "sm_<compute capability>"."""

    runtime: Runtime
    device: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.runtime}-{self.device}-{self.precision}"

    @property
    def compute_capability(self) -> str | None:
        """As "8.9", or None where the target is for no single GPU architecture."""
        match = _SM.fullmatch(self.device)
        return f"{match[1]}.{match[2]}" if match else None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a machine: compute capability as "9.0", memory in bytes."""

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What builds here: the CPU's name, the GPUs, and versions of the installed runtimes by distribution."""

    cpu: str = ""
    gpus: tuple[Gpu, ...] = ()
    distributions: Mapping[str, str] = field(default_factory=dict)


def target_problem(target: Target) -> str | None:
    """Return why there can be no such target on any machine; None where there can."""
    capability = target.compute_capability
    match target.runtime:
        case "onnxruntime" if target.device not in {"cpu", "cuda"}:
            return f"onnxruntime takes the devices cpu and cuda, not {target.device}"
        case "onnxruntime" if (target.device, target.precision) not in _ONNXRUNTIME:
            built = ", ".join(f"{device} {precision}" for device, precision in _ONNXRUNTIME)
            return f"onnxruntime is built for {built}; not for {target.device} {target.precision}"
        case "tensorrt" | "tensorrt_rtx" if capability is None:
            return f"{target.runtime} builds for one GPU architecture, such as sm_89; not for {target.device}"
        case "tensorrt_rtx" if capability not in RTX_COMPUTE_CAPABILITIES:
            return (
                f"tensorrt_rtx compiles for compute capability {', '.join(RTX_COMPUTE_CAPABILITIES)}, not {capability}"
            )
    first = _FIRST_WITH.get(target.precision)
    if capability is not None and first is not None and _parts(capability) < first:
        return f"{target.device} has no {target.precision}; it begins with sm_{first[0]}{first[1]}"
    return None


_ONNXRUNTIME = (("cpu", "fp32"), ("cpu", "int8"), ("cuda", "fp32"), ("cuda", "fp16"))


def why_not_built_here(target: Target, host: Host) -> str | None:
    """Return what this machine lacks to build `target`; None where it lacks nothing."""
    match target.runtime:
        case "onnxruntime":
            return None if _has(target.runtime, host) else "needs onnxruntime: pip install 'tritonfleet[cpu]'"
        case "tensorrt_rtx":
            if _has(target.runtime, host):
                return None
            return "needs TensorRT-RTX: pip install 'tritonfleet[tensorrt_rtx]'"
        case "tensorrt":
            if _gpu(target, host) is None:
                return f"needs a GPU of {target.device}"
            return None if _has(target.runtime, host) else "needs TensorRT: pip install 'tritonfleet[tensorrt]'"


def why_not_run_here(target: Target, host: Host) -> str | None:
    """Return what this machine lacks to run, and so to prove, an artifact of `target`; None where it lacks nothing."""
    lacks = why_not_built_here(target, host)
    if lacks is not None:
        return lacks
    if target.runtime == "onnxruntime":
        if target.device == "cpu":
            return None
        if not host.gpus:
            return "needs an NVIDIA GPU"
        return (
            None if "onnxruntime-gpu" in host.distributions else "needs onnxruntime-gpu: pip install 'tritonfleet[gpu]'"
        )
    return None if _gpu(target, host) is not None else f"needs a GPU of {target.device}"


def _has(runtime: Runtime, host: Host) -> bool:
    return any(name in host.distributions for name in DISTRIBUTIONS[runtime])


def _gpu(target: Target, host: Host) -> Gpu | None:
    return next((gpu for gpu in host.gpus if gpu.compute_capability == target.compute_capability), None)


def _parts(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor)
