"""A real tritonserver on a machine without a GPU: the engine does not load, and the reason is in the answer."""

import ctypes
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.serving import DEADLINE_S, embedded_server

CONFIG = """\
backend: "tensorrt_rtx"
default_model_filename: "tensorrt_rtx-sm_89-fp32.engine"
max_batch_size: 8
{more}
"""
TENSORS = """\
input [{ name: "x" data_type: TYPE_FP32 dims: [ 8 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 8 ] }]
"""


def gpu_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(gpu_driver(), reason="an NVIDIA driver is here")
def test_without_a_gpu_a_load_fails_with_the_reason(tmp_path: Path) -> None:
    for name, more in (("whole", TENSORS), ("bare", "")):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "tensorrt_rtx-sm_89-fp32.engine").write_bytes(b"engine")
        (tmp_path / name / "config.pbtxt").write_text(CONFIG.format(more=more))
    with embedded_server(tmp_path) as server, triton.InferenceServerClient(server.server.endpoints.grpc) as client:
        headers = {"triton-grpc-protocol-admin-key": server.server.admin_key or ""}
        with pytest.raises(InferenceServerException, match="needs an NVIDIA GPU, and no driver is here"):
            client.load_model("whole", headers=headers, client_timeout=DEADLINE_S)
        with pytest.raises(InferenceServerException, match="needs `input` and `output` in config"):
            client.load_model("bare", headers=headers, client_timeout=DEADLINE_S)
