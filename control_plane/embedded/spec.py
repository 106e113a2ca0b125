"""What an embedded server should be: its spec, who owns its life, and the times it is supervised by.

Plain values, read by `command` (the command line), `launch` (one process) and `server` (its supervision).
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from control_plane.state import ServerId

LOOPBACK = "127.0.0.1"
EXIT_TIMEOUT_S = 3
"""Triton's own `--exit-timeout-secs`: how long it waits on SIGTERM for requests in flight before it unloads models."""


class Ownership(StrEnum):
    """Who owns the life of a tritonserver.

    `BOUND`: the supervising process does. The server, its stubs and whatever its models spawned die with it, however it
    dies (kill -9 included: the reaper process watches it). For the demo, `serve` and tests.

    `ADOPTABLE`: the machine does. The server outlives its supervisor, stays the property of its runtime folder, and the
    next supervisor of that folder adopts it again. Nobody but `EmbeddedServer.stop` ends it. For a node agent.
    """

    BOUND = "bound"
    ADOPTABLE = "adoptable"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One tritonserver to run on this machine, on loopback unless an `address` of it is given.

    A port of None is picked once, at the first start, and kept for the life of the server. `cpus` pins the server and
    its stubs to these cores. `extra_args` go to tritonserver as they are, after the ones built here. `extra_env` is
    added to the small environment the server gets (`CUDA_VISIBLE_DEVICES` of a GPU slice, say). `memory_bytes` is what
    models may take, for placement to count with; 0 where nobody says. Nothing enforces it.
    """

    id: ServerId
    model_repository: Path
    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    cpus: frozenset[int] | None = None
    log_verbose: int = 0
    extra_args: tuple[str, ...] = ()
    extra_env: tuple[tuple[str, str], ...] = ()
    ownership: Ownership = Ownership.BOUND
    memory_bytes: int = 0
    address: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class Supervision:
    """The times, in seconds, by which a server is watched and brought back.

    A probe is cut off after `probe_deadline_s`; the server counts as hung when nothing was answered for `hang_after_s`
    and at least two probes in a row failed, so one slow answer under load never costs a server its life.
    """

    health_interval_s: float = 1.0
    probe_deadline_s: float = 5.0
    hang_after_s: float = 10.0
    start_deadline_s: float = 60.0
    stop_deadline_s: float = 10.0
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 30.0
    stable_after_s: float = 60.0
    port_attempts: int = 5
