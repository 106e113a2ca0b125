"""The versions in the folder that a node's servers load from, as a control plane elsewhere has them put there.

What comes in is unpacked beside that folder, and goes in by the placer that this machine's own copies take: digests
checked, renamed into place, what others put there left alone. All calls block: for a thread.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from control_plane.adapters.server_repository import ServerRepository
from control_plane.adapters.version_content import FileDigests
from control_plane.errors import DamagedVersionError, LocationError
from control_plane.planning.retention import Installed
from control_plane.state import ModelName, Pin


class NodeVersions:
    """`repository` is the folder, `staging` one on the same machine for what is on its way."""

    def __init__(self, repository: Path, staging: Path) -> None:
        self._repository, self._staging = repository, staging
        self._placer, self._digests = ServerRepository(), FileDigests()

    def holds(self, pin: Pin, files: Mapping[str, str]) -> bool:
        """Tell whether every file of a version is there with its digest; then it is noted as needed."""
        package = (self._repository / _checked(pin.model)).resolve()
        for name, sha256 in files.items():
            path = (package / name).resolve()
            if not path.is_relative_to(package) or not path.is_file() or self._digests.of(path) != sha256:
                return False
        self._placer.note_needed(self._repository, [pin])
        return True

    def receive(self, pin: Pin, packed: IO[bytes]) -> int:
        """Unpack a version and place it; returns the bytes that were new. Raises as `VersionPlacer.place` does."""
        model = _checked(pin.model)
        self._staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._staging))
        try:
            try:
                with tarfile.open(fileobj=packed, mode="r:") as archive:
                    archive.extractall(folder / model, filter="data")
            except (tarfile.TarError, OSError) as error:
                raise DamagedVersionError(
                    f"Version {pin.version} of '{pin.model}' did not arrive whole: {error}"
                ) from error
            return self._placer.place(folder, self._repository, pin.model, pin.version).bytes
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, pin: Pin) -> bool:
        """Remove a version; see `VersionPlacer`."""
        return self._placer.remove(self._repository, pin.model, pin.version)

    def note_needed(self, pins: Iterable[Pin]) -> None:
        """Note what is needed; see `VersionPlacer`."""
        self._placer.note_needed(self._repository, pins)

    def installed(self) -> tuple[Installed, ...]:
        """List what is there; see `VersionPlacer`."""
        return self._placer.installed(self._repository)


def _checked(model: str) -> str:
    """Return the name of a model, which must be that of one folder. LocationError where it is not."""
    if not model or model.startswith(".") or Path(model).name != model:
        raise LocationError(f"{model!r} is no name of a model.")
    return model


def pin_of(model: str, version: int) -> Pin:
    """Return the version that a path names."""
    return Pin(ModelName(model), version)
