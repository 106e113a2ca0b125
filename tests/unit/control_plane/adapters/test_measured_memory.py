"""Memory of processes and devices: read from /proc and from Triton's metrics; what is not there is not 0."""

import asyncio
import mmap
import os
import socket

import pytest

from control_plane.adapters.measured_device import mig_profile_in, visible_mig_profile
from control_plane.adapters.measured_memory import device_bytes, device_bytes_in, host_bytes
from control_plane.errors import ServerUnreachableError

MIB = 1024 * 1024
METRICS = """\
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1000.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-b"} 24.000000
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.5
"""


def test_memory_that_a_process_touches_counts() -> None:
    before = host_bytes([os.getpid()])
    with mmap.mmap(-1, 64 * MIB) as area:
        untouched = host_bytes([os.getpid()])
        for page in range(0, len(area), mmap.PAGESIZE):
            area[page] = 1
        touched = host_bytes([os.getpid()])
    assert untouched - before < 16 * MIB
    assert 48 * MIB < touched - untouched < 80 * MIB


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert host_bytes([2**22 + 1]) == 0
    assert host_bytes([]) == 0


def test_device_memory_is_that_of_all_gpus() -> None:
    assert device_bytes_in(METRICS) == 1024


def test_a_server_without_a_gpu_tells_of_no_device_memory() -> None:
    assert device_bytes_in("# TYPE nv_inference_count counter\nnv_inference_count 3\n") is None


def test_a_server_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(ServerUnreachableError, match=f"{address}/metrics did not answer"):
        asyncio.run(device_bytes(address))


@pytest.mark.parametrize(
    ("name", "profile"),
    [("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "1g.10gb+me"), ("X", "")],
)
def test_a_mig_profile_is_read_from_the_devices_name(name: str, profile: str) -> None:
    assert mig_profile_in(name) == profile


@pytest.mark.parametrize("visible", ["", "0", "GPU-1234", "0,1"])
def test_a_whole_gpu_has_no_mig_profile(visible: str) -> None:
    assert visible_mig_profile(visible) == ""
