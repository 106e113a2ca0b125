"""What this machine builds and runs with: its CPU, its GPUs through NVML, and the installed tools. Only observes."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from builders.targets import DISTRIBUTIONS, Gpu, Host, Runtime

ABSENT = "absent"


def observe_host() -> Host:
    """Return what is here. A machine without NVIDIA's driver or without `nvidia-ml-py` has no GPUs."""
    names = [name for alike in DISTRIBUTIONS.values() for name in alike]
    distributions = {name: version for name in names if (version := version_of(name)) != ABSENT}
    return Host(_cpu_name(), _gpus(), distributions)


def runtime_version(runtime: Runtime, find: Callable[[str], str] | None = None) -> str:
    """Return the installed version of a runtime, whichever distribution brings it, or ABSENT.

    `find` returns a distribution's version, or ABSENT (default: `version_of`).
    """
    versions = map(find or version_of, DISTRIBUTIONS[runtime])
    return next((version for version in versions if version != ABSENT), ABSENT)


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution, or ABSENT."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ABSENT


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "CPU"


def _gpus() -> tuple[Gpu, ...]:
    try:
        import pynvml  # noqa: PLC0415 - of the extra `gpu`
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no GPU: an answer, not a failure
        return ()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(
                name=pynvml.nvmlDeviceGetName(handle),
                compute_capability="{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                driver=driver,
            )
            for handle in handles
        )
    finally:
        pynvml.nvmlShutdown()
