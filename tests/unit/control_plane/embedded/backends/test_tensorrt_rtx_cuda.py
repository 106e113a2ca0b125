"""The driver's calls, against a small C library with its symbols whose device memory is the host's."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.cuda import Cuda, CudaError
from control_plane.embedded.backends.tensorrt_rtx.rtx_serving.errors import ModelSetupError

# Declarations as in cuda.h: CUdevice int, CUdeviceptr unsigned long long, handles pointers.
SOURCE = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long dptr;
static int context, stream, current;
static const dptr TAG = 1ull << 62;  /* a bit beyond the first 32, wherever the heap lies */
static void *memory(dptr address) { return (void *)(address & ~TAG); }
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return ordinal ? 101 : 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (device != 40) return 101;
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **ctx, int device) { *ctx = &context; return device != 40; }
int cuCtxSetCurrent(void *ctx) { current = ctx == &context; return !current; }
int cuStreamCreate(void **made, unsigned flags) { *made = &stream; return flags != 1; }
int cuStreamSynchronize(void *on) { return on != &stream; }
int cuMemAlloc_v2(dptr *address, size_t size) {
  if (size > (1ull << 40)) return 2;
  *address = (dptr)malloc(size) | TAG;
  return 0;
}
int cuMemFree_v2(dptr address) { free(memory(address)); return 0; }
int cuMemcpyHtoDAsync_v2(dptr to, const void *from, size_t size, void *on) {
  memcpy(memory(to), from, size);
  return on != &stream;
}
int cuMemcpyDtoHAsync_v2(void *to, dptr from, size_t size, void *on) {
  memcpy(to, memory(from), size);
  return on != &stream;
}
int cuGetErrorString(int code, const char **text) {
  *text = code == 2 ? "out of memory" : "invalid device ordinal";
  return 0;
}
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


def test_bytes_go_to_the_gpu_and_come_back(library: str) -> None:
    cuda = Cuda(0, library)
    assert cuda.compute_capability == "8.9"
    sent = np.arange(1000, dtype=np.int64)
    got = np.zeros_like(sent)
    address = cuda.allocate(sent.nbytes)
    assert address > 1 << 32  # a 64-bit address arrives whole
    cuda.upload(address, sent)
    cuda.download(got, address)
    cuda.synchronize()
    cuda.free(address)
    np.testing.assert_array_equal(got, sent)


def test_the_drivers_own_reason_is_told(library: str) -> None:
    with pytest.raises(CudaError, match=r"^cuMemAlloc_v2: out of memory \(2\)$"):
        Cuda(0, library).allocate(1 << 41)
    with pytest.raises(ModelSetupError, match=r"GPU 1 cannot be used: cuDeviceGet: invalid device ordinal \(101\)"):
        Cuda(1, library)
    with pytest.raises(ModelSetupError, match="there is no GPU 2 on this machine: CUDA sees 2"):
        Cuda(2, library)


def test_a_machine_without_a_driver(tmp_path: Path) -> None:
    with pytest.raises(ModelSetupError, match="needs an NVIDIA GPU, and no driver is here"):
        Cuda(0, str(tmp_path / Path("libcuda.so.1")))
