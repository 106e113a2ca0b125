"""What the control plane needs of the world, as Protocols. `adapters` provide it; `tests/fakes` do so for tests.

One contract suite (`tests/contract`) runs against the fakes and the real adapters.
"""

from collections.abc import Callable
from typing import Any, Protocol

from control_plane.state import (
    ActionRecord,
    Deployment,
    DeploymentName,
    ModelName,
    ObservedServer,
    Published,
    Server,
    ServerId,
)


class TritonControl(Protocol):
    """Triton's control calls, each with a deadline of its own. All are idempotent."""

    async def observe(self, server: Server) -> ObservedServer:
        """Ask what the server is and holds, and from which file each ready model was loaded.

        Never raises for a server that does not answer: that is an observation.
        """

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load `model` with `config` (a whole ModelConfig as JSON) in place of the file's.

        Returns when Triton says it is loaded. Raises LoadFailedError with the cause, DeadlineExceededError,
        ServerUnreachableError, AdminKeyRefusedError.
        """

    async def unload(self, server: Server, model: ModelName) -> None:
        """Unload every version of `model`; nothing happens where there is none. Raises like `load`."""

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
        """Every registered server."""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have `changed` called in the event loop when a server came or went. Call the result to end that."""

    def note(self, server: ServerId) -> str:
        """Say why a server does not answer, where it is known; else empty."""

    def log_of(self, server: ServerId) -> ServerLog | None:
        """Return the log of a server, or None where it cannot be read."""


class Catalogue(Protocol):
    """The model repository. Both calls read files: not for the event loop's thread."""

    def read(self) -> Published:
        """Read every package with its versions and problems."""

    def load_config(self, model: ModelName, version: int, target: str = "") -> str:
        """Return the `config` of a load call that serves exactly `version`, with `target` where it has targets.

        Without a name it is the version's default target. Raises LoadFailedError with the cause.
        """


class DeploymentStore(Protocol):
    """Desired state and what was last done. What a call wrote is durable when it returns."""

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

    async def record(self, record: ActionRecord) -> None:
        """Keep `record` as the last one of its server and model."""

    async def forget(self, models: frozenset[ModelName]) -> None:
        """Drop the records of `models`, on every server."""

    async def records(self) -> tuple[ActionRecord, ...]:
        """Return every record, by server and model."""
