"""The command line and the environment a server is started with."""

from pathlib import Path

from control_plane.embedded.command import RESTRICTED_APIS, port_of, server_command, server_environment
from control_plane.embedded.layout import Layout
from control_plane.embedded.spec import ServerSpec
from control_plane.state import Endpoints, ServerId

LAYOUT = Layout(
    tritonserver=Path("/wheel/bin/tritonserver"),
    backends=Path("/run/a/backends"),
    caches=Path("/wheel/caches"),
    temporary=Path("/run/a/tmp"),
    interpreter_bin=Path("/venv/bin"),
    libraries=(Path("/wheel/libs"), Path("/python/lib")),
    python_backends=("python", "onnxruntime"),
)
ENDPOINTS = Endpoints(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3")
SPEC = ServerSpec(ServerId("a"), Path("/models"), log_verbose=1, extra_args=("--model-load-thread-count=2",))


def test_everything_listens_on_loopback_alone() -> None:
    command = server_command(SPEC, LAYOUT, ENDPOINTS, "secret", "r1")
    for service, port in (("http", 1), ("grpc", 2), ("metrics", 3)):
        assert f"--{service}-address=127.0.0.1" in command
        assert f"--{service}-port={port}" in command


def test_the_restricted_apis_are_behind_the_key_on_both_protocols() -> None:
    command = server_command(SPEC, LAYOUT, ENDPOINTS, "secret", "r1")
    assert f"--http-restricted-api={RESTRICTED_APIS}:triton-admin-key=secret" in command
    assert f"--grpc-restricted-protocol={RESTRICTED_APIS}:admin-key=secret" in command
    assert RESTRICTED_APIS == "model-repository,model-config,shared-memory,statistics,trace,logging"


def test_models_are_loaded_by_the_control_plane_alone_and_each_run_has_its_own_shared_memory() -> None:
    command = server_command(SPEC, LAYOUT, ENDPOINTS, "secret", "r1")
    assert "--model-control-mode=explicit" in command
    assert "--backend-config=python,shm-region-prefix-name=tritonfleet_r1_" in command
    assert "--backend-config=onnxruntime,shm-region-prefix-name=tritonfleet_r1_" in command


def test_what_the_caller_adds_comes_last() -> None:
    command = server_command(SPEC, LAYOUT, ENDPOINTS, "secret", "r1")
    assert command[0] == "/wheel/bin/tritonserver"
    assert command[-2:] == ["--log-verbose=1", "--model-load-thread-count=2"]


def test_the_environment_holds_what_is_needed_and_no_secret() -> None:
    base = {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "TRITONFLEET_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/elsewhere",
    }
    spec = ServerSpec(ServerId("a"), Path("/models"), extra_env=(("CUDA_VISIBLE_DEVICES", "MIG-1"),))
    assert server_environment(spec, LAYOUT, "r1", base) == {
        "PATH": "/venv/bin:/usr/bin",
        "HOME": "/home/me",
        "LC_ALL": "C.UTF-8",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "CUDA_VISIBLE_DEVICES": "MIG-1",
        "LD_LIBRARY_PATH": "/wheel/libs:/python/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": "/run/a/tmp",
        "TRITONFLEET_SERVER_RUN": "r1",
    }


def test_the_port_of_an_endpoint() -> None:
    assert port_of("127.0.0.1:8001") == 8001
