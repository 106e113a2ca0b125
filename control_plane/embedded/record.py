"""The runtime record: what a server's folder says of the processes that run in it, for whoever comes next.

Written by `reaper` (mode 0600, renamed into place) once the server runs, removed by it when all is gone. A next
supervisor adopts a living server by it (`server`), or learns what a crash left behind.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from control_plane.embedded.reaper import start_time_of
from control_plane.embedded.spec import ServerSpec
from control_plane.errors import ServerStartError
from control_plane.state import Endpoints

RECORD_NAME = "server.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """One run of a server. Start times are in clock ticks since the boot `boot_id`; with the pid they name one process.

    `run` is the run's token: the mark in the environment of its processes and in the names of its shared memory.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    spec: ServerSpec
    endpoints: Endpoints
    run: str
    admin_key: str = field(repr=False)
    boot_id: str
    server_pid: int = 0
    server_start_time: int = 0
    reaper_pid: int = 0
    reaper_start_time: int = 0

    def is_running(self) -> bool:
        """Tell whether exactly the recorded server and reaper are alive."""
        return (
            self.boot_id == boot_id()
            and start_time_of(self.server_pid) == self.server_start_time
            and start_time_of(self.reaper_pid) == self.reaper_start_time
        )


RECORDS = TypeAdapter(RuntimeRecord)


def boot_id() -> str:
    """Identity of this boot of the machine."""
    return _BOOT_ID.read_text().strip()


def read_record(path: Path) -> RuntimeRecord | None:
    """Read the record at `path`, None when there is none. ServerStartError when it cannot be understood."""
    try:
        return RECORDS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ServerStartError(f"The runtime record {path} cannot be read: {error}") from error
