"""The model repository on disk: the real `Catalogue`.

Reads packages, versions, configs and targets through `builders`, and finds beforehand what Triton would answer with
nothing but "failed to poll", and what is not signed (`signatures`). Writes nothing: `builders.publish` is who puts
versions here.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from builders import pbtxt
from builders.errors import ConfigError
from builders.manifest import MANIFEST_FILENAME, Manifest, ManifestTarget, read_manifest, version_numbers
from builders.probes import PROBES_FILENAME
from builders.selection import parse_target
from builders.validate import config_problems
from control_plane.actions import AS_PUBLISHED, Setting
from control_plane.adapters.probe_file import read_probe
from control_plane.adapters.profile_folder import measured_latencies, measured_memory
from control_plane.adapters.signatures import SignatureCheck
from control_plane.errors import LoadFailedError
from control_plane.planning.probes import dummy_inputs
from control_plane.state import GENERATION, ModelName, Probe, Published, PublishedConfig, PublishedModel

CONFIG_NAME = "config.pbtxt"

Targets = Mapping[str, ManifestTarget]
_TARGETS = TypeAdapter(dict[str, ManifestTarget])


class RepositoryFolder:
    """The packages in the folder `root`. Hidden folders and those without a config or a version are none.

    With `signatures`, each version that is not signed or not whole has that as a problem, or as a warning where the
    check does not require it. `profiles` is the folder of HardwareProfiles that tell what an instance takes of memory.
    """

    def __init__(self, root: Path, signatures: SignatureCheck | None = None, profiles: Path | None = None) -> None:
        self._root, self._signatures, self._profiles = root, signatures, profiles

    def read(self) -> Published:
        """Read every package; a folder that vanishes meanwhile is left out."""
        folders = sorted(self._root.iterdir()) if self._root.is_dir() else []
        packages = (self._read_package(folder) for folder in folders if _may_be_package(folder))
        memory = measured_memory(self._profiles) if self._profiles is not None else {}
        latencies = measured_latencies(self._profiles) if self._profiles is not None else {}
        return Published({package.name: package for package in packages}, memory, latencies)

    def load_config(self, model: ModelName, version: int, setting: Setting = AS_PUBLISHED) -> str:
        """Return the config of `version` as JSON with a version policy of exactly that one; see the port.

        The signature is looked at once more: what was altered since the plan was made is not loaded.
        """
        folder = self._root / model / str(version)
        if self._signatures is not None and self._signatures.required and folder.is_dir():
            problem = self._signatures.problem(folder)
            if problem:
                raise LoadFailedError(problem)
        path = folder / _config_of(folder, setting.target)
        if not setting.target and not path.exists():
            path = self._root / model / CONFIG_NAME
        try:
            return pbtxt.to_json(
                path.read_text(encoding="utf-8"),
                path=str(path),
                versions=[version],
                instances=setting.instances,
                gpus=setting.gpus,
                parameters={GENERATION: str(setting.generation)} if setting.generation else {},
            )
        except (ConfigError, OSError, UnicodeDecodeError) as exc:
            raise LoadFailedError(_cannot_read(path, exc)) from exc

    def probe(self, model: ModelName, version: int, filename: str) -> Probe | None:
        """Return a request to probe a version with; see the port.

        Only a file in FP32, or one that is no target's, gives just the answers that the version's probes have.
        """
        folder = self._root / model / str(version)
        targets = _read_targets(folder)
        named = {made.filename: name for name, made in targets.items()} if not isinstance(targets, str) else {}
        target = parse_target(named.get(filename, ""))
        golden = read_probe(folder / PROBES_FILENAME, model, version)
        if golden is not None:
            return golden if target is None or target.precision == "fp32" else replace(golden, outputs=())
        path = _own_config(folder.parent, version)
        config = _read_config(path if path.exists() else folder.parent / CONFIG_NAME, str(model)).config
        inputs = dummy_inputs(config) if config is not None else ()
        return Probe(model, version, inputs) if inputs else None

    def _read_package(self, folder: Path) -> PublishedModel:
        versions = _versions(folder)
        draft = _read_config(folder / CONFIG_NAME, folder.name)
        own: dict[int, PublishedConfig] = {}
        targets: dict[int, Targets] = {}
        unproven: dict[int, str] = {}
        for version in versions:
            path = _own_config(folder, version)
            config = _read_config(path, folder.name) if path.exists() else draft
            found = _read_targets(folder / str(version))
            if isinstance(found, str):
                config = replace(config, problems=(*config.problems, found))
            elif found:
                targets[version] = found
            elif why := _read_unproven(folder / str(version)):
                unproven[version] = why
            config = self._signed(folder / str(version), config)
            if path.exists() or config != draft:
                own[version] = config
        return PublishedModel(ModelName(folder.name), draft, versions, own, targets, unproven)

    def _signed(self, version: Path, config: PublishedConfig) -> PublishedConfig:
        """Return `config` with what is wrong with the version's signature, before all else that is wrong with it."""
        problem = self._signatures.problem(version) if self._signatures is not None else ""
        if not problem or self._signatures is None:
            return config
        if self._signatures.required:
            return replace(config, problems=(problem, *config.problems))
        return replace(config, warnings=(problem, *config.warnings))


def _may_be_package(folder: Path) -> bool:
    if folder.name.startswith((".", "_")) or not folder.is_dir():
        return False
    return (folder / CONFIG_NAME).exists() or (folder / "model.toml").exists() or bool(_versions(folder))


def _config_of(version: Path, target: str) -> str:
    """Return the name of the config that serves `target`; the default target's where none is named."""
    if not target:
        return CONFIG_NAME
    targets = _read_targets(version)
    if isinstance(targets, str):
        raise LoadFailedError(targets)
    if target not in targets:
        raise LoadFailedError(f"{version} has no target {target}; there are: {', '.join(sorted(targets)) or 'none'}.")
    return targets[target].config


def _read_targets(version: Path) -> Targets | str:
    """Return the targets that the version's manifest tells of, or what is wrong with it. Without one there are none."""
    return _facts_of(version)[0]


def _read_unproven(version: Path) -> str:
    """Return why a version without targets could not be run where it was built; empty where nothing says so."""
    return _facts_of(version)[1]


def _facts_of(version: Path) -> tuple[Targets | str, str]:
    path = version / MANIFEST_FILENAME
    try:
        status = path.stat()
    except OSError:
        return {}, ""
    return _parse_facts(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)  # every pass of the loop reads every version
def _parse_facts(path: Path, _inode: int, _changed_ns: int, _bytes: int) -> tuple[Targets | str, str]:
    manifest = read_manifest(path.parent)
    if manifest is None:
        return f"{path}: cannot be read by this version of Tritonfleet; publish the version again.", ""
    return _targets_in(manifest, path), manifest.unproven


def _targets_in(manifest: Manifest, path: Path) -> Targets | str:
    try:
        targets = _TARGETS.validate_python({name: asdict(made) for name, made in manifest.targets.items()})
    except ValidationError as exc:
        first = exc.errors()[0]
        return f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; publish the version again."
    named = (name for made in targets.values() for name in (made.config, made.filename))
    strange = next((name for name in named if Path(name).name != name), None)
    return targets if strange is None else f"{path}: {strange} is no name of a file in the version's folder."


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
