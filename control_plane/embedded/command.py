"""The command line and the environment of an embedded tritonserver. Pure; `launch` runs what is built here.

Loopback unless somebody says otherwise, explicit model control, the repository and its like behind a key, shared memory
with them: the Triton of the `nvidia-pytriton` wheel is release 24.10, which predates security fixes.
"""

from collections.abc import Mapping

from control_plane.embedded.layout import Layout
from control_plane.embedded.spec import EXIT_TIMEOUT_S, ServerSpec
from control_plane.state import Endpoints

RESTRICTED_APIS = "model-repository,model-config,shared-memory,statistics,trace,logging"
CACHE_BYTES = 64 * 1024 * 1024
RUN_VARIABLE = "TRITONFLEET_SERVER_RUN"
"""Set to the run's token in the server's environment. Every descendant inherits it: it tells whose child a stray is."""

_INHERITED = frozenset({"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "TZ", "USER"})
_INHERITED_PREFIXES = ("CUDA_", "LC_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "ORT_", "OTEL_")


def shared_memory_prefix(run: str) -> str:
    """Name prefix of every region in `/dev/shm` that the Python backend makes for this run."""
    return f"tritonfleet_{run}_"


def server_command(spec: ServerSpec, layout: Layout, endpoints: Endpoints, admin_key: str, run: str) -> list[str]:
    """Argument list of the tritonserver of `spec`. The key is in it: it is as secret as the process table is."""
    listen = [
        part
        for service, endpoint in (("http", endpoints.http), ("grpc", endpoints.grpc), ("metrics", endpoints.metrics))
        for part in (f"--{service}-address={spec.address}", f"--{service}-port={port_of(endpoint)}")
    ]
    regions = [
        f"--backend-config={name},shm-region-prefix-name={shared_memory_prefix(run)}" for name in layout.python_backends
    ]
    verbose = [f"--log-verbose={spec.log_verbose}"] if spec.log_verbose else []
    return [
        str(layout.tritonserver),
        f"--id={spec.id}",
        f"--model-repository={spec.model_repository.resolve()}",
        f"--backend-directory={layout.backends}",
        "--model-control-mode=explicit",
        "--strict-readiness=false",  # else one broken model makes the whole server unready (measured)
        f"--cache-directory={layout.caches}",
        f"--cache-config=local,size={CACHE_BYTES}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
        *listen,
        f"--http-restricted-api={RESTRICTED_APIS}:triton-admin-key={admin_key}",
        # Triton itself puts `triton-grpc-protocol-` before this header's name.
        f"--grpc-restricted-protocol={RESTRICTED_APIS}:admin-key={admin_key}",
        *regions,
        *verbose,
        *spec.extra_args,
    ]


def server_environment(spec: ServerSpec, layout: Layout, run: str, base: Mapping[str, str]) -> dict[str, str]:
    """Environment of the server: an allow-list of `base`, the libraries, and the interpreter's folder first on PATH.

    The stub finds its site-packages through the `python3` on PATH; it ignores PYTHONPATH and PYTHONHOME (measured).
    """
    inherited = {
        name: value for name, value in base.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    return {
        **inherited,
        "PATH": f"{layout.interpreter_bin}:{base.get('PATH', '/usr/bin:/bin')}",
        "LD_LIBRARY_PATH": ":".join(str(folder) for folder in layout.libraries),
        "PYTHONDONTWRITEBYTECODE": "1",  # the model repository must stay as it was published
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(layout.temporary),
        **dict(spec.extra_env),
        RUN_VARIABLE: run,
    }


def port_of(endpoint: str) -> int:
    """Return the port of a `host:port` text."""
    return int(endpoint.rpartition(":")[2])
