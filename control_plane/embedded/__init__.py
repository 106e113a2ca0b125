"""Real tritonservers on this machine, from the `nvidia-pytriton` wheel: started, watched, brought back, cleared away.

`fleet` > `server` (supervision) > `process` > `launch` (one life, under `reaper`) > `command`, `layout`, `ports`,
`record`, `spec`. `backends/` holds the Python-based backends that every server gets. The control plane above drives the
servers through Triton's own APIs, as it drives any other.
"""

from pathlib import Path

from control_plane.embedded.fleet import EmbeddedFleet
from control_plane.embedded.log_window import LogMark
from control_plane.embedded.server import EmbeddedServer, ServerState, StateChange
from control_plane.embedded.spec import Ownership, ServerSpec, Supervision


async def adopt(record_path: Path, supervision: Supervision | None = None) -> EmbeddedServer:
    """Supervise a running ADOPTABLE server again; see `EmbeddedServer.adopt`."""
    return await EmbeddedServer.adopt(record_path, supervision)


__all__ = [
    "EmbeddedFleet",
    "EmbeddedServer",
    "LogMark",
    "Ownership",
    "ServerSpec",
    "ServerState",
    "StateChange",
    "Supervision",
    "adopt",
]
