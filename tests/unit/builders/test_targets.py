"""Targets: which there can be, and what a machine lacks to build or run one."""

from dataclasses import replace

import pytest

from builders.targets import Gpu, Host, Target, target_problem, why_not_built_here, why_not_run_here

CPU = Host("a CPU", distributions={"onnxruntime": "1.32"})
RTX = Host("a CPU", distributions={"onnxruntime": "1.32", "tensorrt_rtx_cu12_bindings": "1.7.1"})
H100 = Host("a CPU", (Gpu("H100", "9.0", 80 * 10**9),), {"onnxruntime-gpu": "1.32", "tensorrt": "10.3"})
FP32, CUDA = Target("onnxruntime", "cpu", "fp32"), Target("onnxruntime", "cuda", "fp16")
PLAN, ENGINE = Target("tensorrt", "sm_90", "fp16"), Target("tensorrt_rtx", "sm_120", "fp16")


def test_names_and_architectures() -> None:
    assert [str(target) for target in (FP32, ENGINE)] == ["onnxruntime-cpu-fp32", "tensorrt_rtx-sm_120-fp16"]
    assert [target.compute_capability for target in (FP32, CUDA, PLAN, ENGINE)] == [None, None, "9.0", "12.0"]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (FP32, None),
        (PLAN, None),
        (ENGINE, None),
        (Target("onnxruntime", "cpu", "fp16"), "onnxruntime is built for cpu fp32, cpu int8"),
        (Target("onnxruntime", "sm_90", "fp16"), "takes the devices cpu and cuda, not sm_90"),
        (Target("tensorrt", "cuda", "fp16"), "for one GPU architecture"),
        (Target("tensorrt_rtx", "sm_90", "fp16"), "compiles for compute capability 7.5, 8.0, 8.6, 8.9, 12.0, not 9.0"),
        (Target("tensorrt", "sm_75", "bf16"), "sm_75 has no bf16; it begins with sm_80"),
        (Target("tensorrt", "sm_86", "fp8"), "sm_86 has no fp8; it begins with sm_89"),
    ],
)
def test_impossible_targets_are_told(target: Target, problem: str | None) -> None:
    found = target_problem(target)
    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize(
    ("target", "host", "build", "run"),
    [
        (FP32, CPU, None, None),
        (FP32, Host(), "pip install 'tritonfleet[cpu]'", "pip install 'tritonfleet[cpu]'"),
        (CUDA, CPU, None, "needs an NVIDIA GPU"),
        (CUDA, H100, None, None),
        (PLAN, CPU, "needs a GPU of sm_90", "needs a GPU of sm_90"),
        (PLAN, H100, None, None),
        (PLAN, replace(H100, distributions={"tensorrt_cu12": "10.13.3.9"}), None, None),
        (PLAN, replace(H100, distributions={"tensorrt_cu13_bindings": "10.13.3.9"}), None, None),
        (PLAN, replace(H100, distributions={}), "pip install 'tritonfleet[tensorrt]'", "pip install"),
        (ENGINE, Host("a CPU", distributions={"tensorrt_rtx_cu13_bindings": "1.8"}), None, "needs a GPU of sm_120"),
        (Target("tensorrt", "sm_80", "fp16"), H100, "needs a GPU of sm_80", "needs a GPU of sm_80"),
        (ENGINE, CPU, "pip install 'tritonfleet[tensorrt_rtx]'", "pip install 'tritonfleet[tensorrt_rtx]'"),
        (ENGINE, RTX, None, "needs a GPU of sm_120"),
    ],
)
def test_what_a_machine_lacks(target: Target, host: Host, build: str | None, run: str | None) -> None:
    for found, expected in ((why_not_built_here(target, host), build), (why_not_run_here(target, host), run)):
        assert found is None if expected is None else expected in (found or "")
