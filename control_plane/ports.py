"""What the control plane needs of the world, as Protocols. `adapters` provide it; `tests/fakes` do so for tests.

One contract suite (`tests/contract`) runs against the fakes and the real adapters.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from control_plane.actions import AS_PUBLISHED, Setting
from control_plane.planning.retention import Installed
from control_plane.state import (
    ActionRecord,
    Deployment,
    DeploymentName,
    Mark,
    ModelName,
    ObservedServer,
    Pin,
    Probe,
    ProbeResult,
    Published,
    Server,
    ServerId,
)


class TritonControl(Protocol):
    """Triton's control calls, each with a deadline of its own. All are idempotent."""

    async def observe(self, server: Server) -> ObservedServer:
        """Ask what the server is and holds; of each ready model also its file, instances, generation and requests.

        Of one with devices also what is taken of their memory, where its metrics tell that. Never raises for a server
        that does not answer: that is an observation. One that keeps its statistics or a config to itself is HEALTHY
        still, with zeros there, and so is one that says that it is not ready, with a remark.
        """

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load `model` with `config` (a whole ModelConfig as JSON) in place of the file's.

        Returns when Triton says it is loaded. Raises LoadFailedError with the cause, DeadlineExceededError,
        ServerUnreachableError, AdminKeyRefusedError.
        """

    async def unload(self, server: Server, model: ModelName) -> None:
        """Unload every version of `model`; nothing happens where there is none. Raises like `load`."""

    async def probe(self, server: Server, probe: Probe) -> ProbeResult:
        """Send a request and judge the answer. Never raises for what the server does: that is the result.

        Broken is a model whose process is gone, one that does not answer in time, and one that answers a golden request
        with an error or other values. Where the server or the model is not there, nothing can be told.
        """

    def forget_others(self, servers: frozenset[ServerId]) -> None:
        """Let go of the connections to all servers but these. A call that is under way there ends as it would have."""

    async def close(self) -> None:
        """Let go of every connection."""


class ServerLog(Protocol):
    """The log of one server, where the control plane can read it."""

    def log_mark(self) -> Any:  # noqa: ANN401 - opaque: only handed back to log_since
        """Return the end of the log now."""

    async def log_since(self, mark: Any) -> list[str]:  # noqa: ANN401 - what log_mark returned
        """Return the lines since `mark`, once the log has settled."""


class Fleet(Protocol):
    """The servers there are, and what is known of them beside what Triton answers."""

    def servers(self) -> tuple[Server, ...]:
        """Every server, each with where it comes from."""

    def has(self, server: ServerId) -> bool:
        """Tell whether a server is among them now."""

    def problems(self) -> tuple[str, ...]:
        """Say in sentences what is wrong with how servers are found; empty where all is well."""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called in the event loop when a server came or went. Call the result to end that."""

    def note(self, server: ServerId) -> str:
        """Say why a server does not answer, where it is known; else empty."""

    async def register(self, server: Server) -> bool:
        """Add a server, or replace the registered one of its id; False where the id is that of one we started."""

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server; False where it is not one."""

    def retiring(self) -> Mapping[ServerId, str]:
        """Return the servers that are to be given up once they hold nothing, and why."""

    def owned(self) -> frozenset[ServerId]:
        """Return the servers whose processes are ours to restart."""

    def memory_used(self, server: ServerId) -> int | None:
        """Return the bytes of this machine's memory that a server's processes take; None for one that is not ours.

        Reads files: for a thread.
        """

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Kill a server's process and start it again; False where it is not ours to restart. Raises ControlPlaneError.

        Returns once it answers again.
        """

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return the log of a server, or None where it cannot be read."""


class Resolver(Protocol):
    """Asks DNS."""

    async def resolve(self, name: str) -> frozenset[str]:
        """Return every address of `name`, IPv4 and IPv6, without brackets; at least one.

        Raises NameNotResolvedError, DeadlineExceededError, each a sentence that names the name.
        """


class Catalogue(Protocol):
    """The model repository. Every call reads files: not for the event loop's thread."""

    def read(self) -> Published:
        """Read every package with its versions and problems."""

    def load_config(self, model: ModelName, version: int, setting: Setting = AS_PUBLISHED) -> str:
        """Return the `config` of a load call that serves exactly `version`, as `setting` says.

        Without a target's name it is the version's default one; the generation goes into its parameter GENERATION.
        Raises LoadFailedError with the cause.
        """

    def probe(self, model: ModelName, version: int, filename: str) -> Probe | None:
        """Return a request that tells whether a version that serves the file `filename` works; None without any.

        It is golden where the version has public probes and the file should give just their answers.
        """


@dataclass(frozen=True, slots=True)
class Placed:
    """A version is where its server loads from. `bytes` is what was copied for that: 0 where it was there already."""

    folder: Path
    bytes: int = 0


class VersionPlacer(Protocol):
    """Puts versions where a server loads them from. All calls are idempotent, and read or write files: for a thread."""

    def place(self, source: Path, location: Path, model: ModelName, version: int) -> Placed:
        """Have `location` hold the version as `source` does, its config as the model's, and note that it is needed.

        What is there already and the same is left alone; where both are one folder there is nothing to do. Raises
        NoSpaceError, LocationBusyError, DamagedVersionError, LocationError; then no half version is there.
        """

    def remove(self, location: Path, model: ModelName, version: int) -> bool:
        """Remove a version that `place` put there; False where there is none, or somebody else put it there.

        The version must not be needed or loaded. Raises LocationBusyError, LocationError.
        """

    def note_needed(self, location: Path, pins: Iterable[Pin]) -> None:
        """Note that these versions are needed there now; those that `place` did not put there are passed over."""

    def installed(self, location: Path) -> tuple[Installed, ...]:
        """List the versions that are there, by model and version. Raises LocationError."""


class RevisionStore(Protocol):
    """Desired state. What a call wrote is durable when it returns; `rehearsal` has one whose writes go nowhere."""

    async def create(self, deployment: Deployment) -> bool:
        """Add a deployment; False where the name is taken."""

    async def replace(self, *deployments: Deployment) -> bool:
        """Write the next revision of each, all or none; False where one that is stored is not `revision - 1`."""

    async def delete(self, name: DeploymentName) -> bool:
        """Remove a deployment; False where there is none."""

    async def get(self, name: DeploymentName) -> Deployment | None:
        """Return the deployment `name`, or None."""

    async def list(self) -> tuple[Deployment, ...]:
        """Return every deployment, by name."""

    async def revisions(self, name: DeploymentName) -> tuple[Deployment, ...]:
        """Return every revision of the deployment `name` that is kept, the newest first."""

    async def forget(self, models: frozenset[ModelName], server: ServerId | None = None) -> None:
        """Drop the records of what was last done with `models`, on every server or on one."""


class DeploymentStore(RevisionStore, Protocol):
    """Desired state and what was last done. What a call wrote is durable when it returns."""

    async def mark(self, mark: Mark) -> None:
        """Have a server hold nothing, until `unmark`."""

    async def unmark(self, server: ServerId) -> bool:
        """Let a server hold what it should again; False where it was not marked."""

    async def marks(self) -> tuple[Mark, ...]:
        """Return every mark, by server."""

    async def register(self, server: Server) -> None:
        """Keep a server that somebody registered, in place of one with its id."""

    async def unregister(self, server: ServerId) -> bool:
        """Forget a registered server, with its mark and records; False where there is none."""

    async def registered(self) -> tuple[Server, ...]:
        """Return every registered server, by id."""

    async def record(self, record: ActionRecord) -> None:
        """Keep `record` as the last one of its server and model."""

    async def records(self) -> tuple[ActionRecord, ...]:
        """Return every record, by server and model."""
