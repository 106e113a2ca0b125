"""The model repository on disk: the real `Catalogue`.

Reads packages, versions and configs through `builders`, and finds beforehand what Triton would answer with nothing but
"failed to poll". Writes nothing: `builders.publish` is who puts versions here.
"""

from functools import lru_cache
from pathlib import Path

from builders import pbtxt
from builders.errors import ConfigError
from builders.manifest import version_numbers
from builders.validate import config_problems
from control_plane.errors import LoadFailedError
from control_plane.state import ModelName, Published, PublishedConfig, PublishedModel

CONFIG_NAME = "config.pbtxt"


class RepositoryFolder:
    """The packages in the folder `root`. Hidden folders and those without a config or a version are none."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self) -> Published:
        """Read every package; a folder that vanishes meanwhile is left out."""
        folders = sorted(self._root.iterdir()) if self._root.is_dir() else []
        packages = (_read_package(folder) for folder in folders if _may_be_package(folder))
        return Published({package.name: package for package in packages})

    def load_config(self, model: ModelName, version: int) -> str:
        """Return the config of `version` as JSON with a version policy of exactly that one. LoadFailedError."""
        own = _own_config(self._root / model, version)
        path = own if own.exists() else self._root / model / CONFIG_NAME
        try:
            return pbtxt.to_json(path.read_text(encoding="utf-8"), path=str(path), versions=[version])
        except (ConfigError, OSError, UnicodeDecodeError) as exc:
            raise LoadFailedError(_cannot_read(path, exc)) from exc


def _may_be_package(folder: Path) -> bool:
    if folder.name.startswith((".", "_")) or not folder.is_dir():
        return False
    return (folder / CONFIG_NAME).exists() or (folder / "model.toml").exists() or bool(_versions(folder))


def _read_package(folder: Path) -> PublishedModel:
    versions = _versions(folder)
    paths = {version: _own_config(folder, version) for version in versions}
    own = {version: _read_config(path, folder.name) for version, path in paths.items() if path.exists()}
    return PublishedModel(ModelName(folder.name), _read_config(folder / CONFIG_NAME, folder.name), versions, own)


def _own_config(folder: Path, version: int) -> Path:
    """Where a build keeps the config that a version was made with: what serves must not change when the draft does."""
    return folder / str(version) / CONFIG_NAME


def _read_config(path: Path, package: str) -> PublishedConfig:
    try:
        return _parse(path.read_text(encoding="utf-8"), path, package)
    except (OSError, UnicodeDecodeError) as exc:
        return PublishedConfig(None, (_cannot_read(path, exc),))


@lru_cache(maxsize=4096)  # every pass of the loop reads every version, and parsing one takes a millisecond
def _parse(text: str, path: Path, package: str) -> PublishedConfig:
    try:
        config = pbtxt.parse_config(text, path=str(path))
    except ConfigError as exc:
        return PublishedConfig(None, (str(exc),))
    return PublishedConfig(config, tuple(f"{path}: {problem}" for problem in config_problems(config, package=package)))


def _versions(folder: Path) -> tuple[int, ...]:
    """Find the published versions."""
    try:
        return version_numbers(folder)
    except OSError:  # not ours to read, or gone: then nothing is published here
        return ()


def _cannot_read(path: Path, exc: Exception) -> str:
    if isinstance(exc, ConfigError):
        return str(exc)
    if isinstance(exc, FileNotFoundError):
        return f"{path}: there is no such file; a package needs one"
    return f"{path}: cannot be read: {exc}"
