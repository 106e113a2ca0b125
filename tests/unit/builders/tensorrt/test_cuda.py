"""Which GPU is taken, against a small C library with the driver's symbols: two GPUs, of 8.0 and of 9.0."""

import shutil
import subprocess
from pathlib import Path

import pytest

from builders.tensorrt.cuda import CudaDevice, NoGpuError, find_device, use_device

# Declarations as in cuda.h: CUdevice int, handles pointers.
SOURCE = """
#include <string.h>
static int context;
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, device ? "H100" : "A100", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 + device : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **ctx, int device) { *ctx = &context; return device != 1; }
int cuCtxSetCurrent(void *ctx) { return ctx != &context; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(SOURCE)
    target = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, folder / "driver.c"], check=True)
    return str(target)


def test_the_gpu_is_found_by_its_compute_capability(library: str) -> None:
    assert find_device("8.0", library) == CudaDevice(0, "A100", "8.0")
    assert find_device("9.0", library) == use_device("9.0", library) == CudaDevice(1, "H100", "9.0")


def test_what_is_not_there_is_told_with_what_is(library: str, tmp_path: Path) -> None:
    told = r"no GPU of compute capability 8\.9 here, only: A100 \(8\.0\), H100 \(9\.0\)"
    with pytest.raises(NoGpuError, match=told):
        find_device("8.9", library)
    with pytest.raises(NoGpuError, match="cuDevicePrimaryCtxRetain gave CUDA error 1"):
        use_device("8.0", library)
    with pytest.raises(NoGpuError, match="there is no NVIDIA driver here"):
        find_device("8.9", str(tmp_path / "absent.so"))
