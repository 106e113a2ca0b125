"""Versions on their way to the folder that an agent's servers load from: the `VersionPlacer` over mutual TLS.

What the agent has already is told by digests and not sent again. What it gets, it checks as any copy is checked, and
renames into place. Locations that name no agent are left to the one of this machine. All calls block: for a thread.
"""

import ssl
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import httpx

from control_plane.adapters.agent_wire import INSTALLED, HeldBody, NeededBody, PinBody, heard
from control_plane.adapters.version_content import FileDigests, read_content
from control_plane.errors import DeadlineExceededError, LocationError, ServerUnreachableError
from control_plane.planning.retention import Installed
from control_plane.ports import Placed, VersionPlacer
from control_plane.state import ModelName, Pin

_ASK_S, _SEND_S = 30.0, 3600.0


class AgentPlacer:
    """The repository folder of the agent at `url` (https)."""

    def __init__(self, name: str, url: str, context: ssl.SSLContext) -> None:
        self._name, self._url = name, url
        self._client = httpx.Client(base_url=url, verify=context)
        self._digests = FileDigests()

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def place(self, source: Path, location: Path, model: ModelName, version: int) -> Placed:
        """Send a version, unless the agent has it; see the port."""
        try:
            content = read_content(source, model, version, self._digests)
            files = {f"{version}/{name}": it.sha256 for name, it in content.version.items()}
            files |= {name: it.sha256 for name, it in content.beside.items()}
        except OSError as error:
            raise LocationError(f"Version {version} of '{model}' cannot be read: {error}") from error
        target = location / model / str(version)
        held = HeldBody(model=model, version=version, files=files)
        if self._ask("POST", "/v1/versions/held", json=held.model_dump()):
            return Placed(target)
        with tempfile.TemporaryFile() as packed:
            _pack(
                packed, source / model, version, [name for name in content.beside if (source / model / name).exists()]
            )
            packed.seek(0)
            path = f"/v1/versions/{model}/{version}"
            return Placed(target, int(self._ask("PUT", path, content=packed, timeout=_SEND_S)))

    def remove(self, location: Path, model: ModelName, version: int) -> bool:
        """Have the agent remove a version; see the port."""
        del location
        return bool(self._ask("DELETE", f"/v1/versions/{model}/{version}"))

    def note_needed(self, location: Path, pins: Iterable[Pin]) -> None:
        """Tell the agent which versions are needed; see the port."""
        del location
        needed = [PinBody(model=pin.model, version=pin.version) for pin in pins]
        self._ask("POST", "/v1/versions/needed", json=NeededBody(pins=needed).model_dump())

    def installed(self, location: Path) -> tuple[Installed, ...]:
        """List the agent's versions; see the port."""
        del location
        return INSTALLED.validate_python(self._ask("GET", "/v1/versions"))

    def _ask(self, method: str, path: str, timeout: float = _ASK_S, **given: Any) -> Any:  # noqa: ANN401 - JSON
        where = f"Agent {self._name} at {self._url}"
        try:
            answer = self._client.request(method, path, timeout=timeout, **given)
            said = answer.json()
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(f"{where} did not answer within {timeout:g} s.") from error
        except (httpx.HTTPError, ValueError) as error:
            raise ServerUnreachableError(f"{where} cannot be reached: {error}") from error
        if not answer.is_success:
            raise heard(said, f"{where} (HTTP {answer.status_code})")
        return said


class RoutedPlacer:
    """Each location's own placer: that of an agent by its location, that of this machine for every other."""

    def __init__(self, here: VersionPlacer, agents: Mapping[str, VersionPlacer]) -> None:
        self._here, self._agents = here, agents

    def place(self, source: Path, location: Path, model: ModelName, version: int) -> Placed:
        """See the port."""
        return self._of(location).place(source, location, model, version)

    def remove(self, location: Path, model: ModelName, version: int) -> bool:
        """See the port."""
        return self._of(location).remove(location, model, version)

    def note_needed(self, location: Path, pins: Iterable[Pin]) -> None:
        """See the port."""
        self._of(location).note_needed(location, pins)

    def installed(self, location: Path) -> tuple[Installed, ...]:
        """See the port."""
        return self._of(location).installed(location)

    def _of(self, location: Path) -> VersionPlacer:
        return self._agents.get(str(location), self._here)


def _pack(into: IO[bytes], package: Path, version: int, beside: Iterable[str]) -> None:
    """Write a version's folder, and what lies beside it, as a tar file whose names begin in the package."""
    with tarfile.open(fileobj=into, mode="w") as archive:
        for path in sorted((package / str(version)).rglob("*")):
            if path.is_file():
                archive.add(path, path.relative_to(package).as_posix(), recursive=False)
        for name in sorted(beside):
            archive.add(package / name, name, recursive=False)
