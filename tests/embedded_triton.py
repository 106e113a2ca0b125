"""What the tests of real, embedded tritonservers share: a tiny model, calls to it, and who is alive in a run."""

import http.client
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from control_plane.embedded import EmbeddedServer
from control_plane.embedded.command import RUN_VARIABLE, shared_memory_prefix
from control_plane.embedded.reaper import SHARED_MEMORY, processes_of
from control_plane.embedded.record import RuntimeRecord, read_record
from control_plane.state import Server

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [{{ name: "X" data_type: TYPE_FP32 dims: [1] }}]
output [{{ name: "Y" data_type: TYPE_FP32 dims: [1] }}]
"""
MODEL = """\
import subprocess
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        if {spawns_child}:
            subprocess.Popen(["sleep", "1000"], start_new_session=True)

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor)]) for tensor in inputs]
"""


def write_model(repository: Path, name: str = "echo", *, spawns_child: bool = False, more_config: str = "") -> None:
    """Write a Python-backend model that answers with its input; it may leave a child in a session of its own."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name) + more_config)
    (repository / name / "1" / "model.py").write_text(MODEL.format(spawns_child=spawns_child))


def call(
    address: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """One HTTP call to `host:port`: status and body."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def load(server: Server, model: str) -> tuple[int, str]:
    """Load a model with the server's key."""
    headers = {"triton-admin-key": server.admin_key or ""}
    return call(server.endpoints.http, "POST", f"/v2/repository/models/{model}/load", {}, headers)


def infer(server: Server, model: str, value: float = 1.0) -> tuple[int, str]:
    """Send one number through the model."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1], "data": [value]}
    return call(server.endpoints.http, "POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})


def record_of(server: EmbeddedServer) -> RuntimeRecord:
    """Read the runtime record of a running server."""
    record = read_record(server.record_path)
    assert record is not None
    return record


def alive_of(record: RuntimeRecord) -> list[str]:
    """List what is left of a run: its processes (reaper included) and its shared memory."""
    pids = list(processes_of(f"{RUN_VARIABLE}={record.run}"))
    if psutil.pid_exists(record.reaper_pid) and psutil.Process(record.reaper_pid).status() != psutil.STATUS_ZOMBIE:
        pids.append(record.reaper_pid)
    regions = [path.name for path in SHARED_MEMORY.glob(f"{shared_memory_prefix(record.run)}*")]
    return [f"pid {pid}" for pid in pids] + regions


def seconds_until(reached: Callable[[], bool], deadline_s: float) -> float:
    """Wait until `reached`, at most `deadline_s`; returns how long that took, in seconds."""
    begin = time.monotonic()
    while not reached():
        assert time.monotonic() - begin < deadline_s, f"not reached within {deadline_s} s"
        time.sleep(0.01)
    return time.monotonic() - begin


def zombies_of_this_process() -> list[int]:
    """Children of the test process that nobody has waited for."""
    children = psutil.Process(os.getpid()).children()
    return [child.pid for child in children if child.status() == psutil.STATUS_ZOMBIE]
