"""What a version in the model repository consists of, file by file with digests, as a server's location gets it.

`server_repository` copies it. That is the version's folder as its manifest lists it, with its own config in the place
of the model's, and what Triton reads beside versions (labels, warm-up data). Sources and golden sets stay behind.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from builders.digests import file_digest
from builders.errors import BuildError
from builders.manifest import MANIFEST_FILENAME, SIGNATURE_FILENAME, FileEntry, Manifest, read_manifest
from builders.pbtxt import parse_config
from builders.sources.triton_model import BYTECODE_FOLDER
from builders.spec import CONFIG_FILENAME, SPEC_FILENAME, TritonModelSource, read_spec
from control_plane.errors import DamagedVersionError
from control_plane.state import ModelName

_CHUNK = 1024 * 1024
_SETTLED_NS = 1_000_000_000
_MOST_KNOWN = 100_000
# docs/user_guide/model_configuration.md: model_warmup, initial_state, and --model-config-name.
_FOLDERS_BESIDE = frozenset({"configs", "initial_state", "warmup"})


class FileDigests:
    """SHA-256 of files, each remembered while nothing about its file changes. Safe to call from several threads.

    The time of the last change of the inode is looked at too, which no program can set. What changed within the last
    second is not remembered: another change might leave the same time behind.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file, in hex. Raises OSError."""
        status, now = path.stat(), time.time_ns()
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = file_digest(path)
        if now - status.st_ctime_ns > _SETTLED_NS:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[path] = (stamp, digest)
        return digest


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to copy: where it lies, its size, and the digest that its copy must have."""

    path: Path
    sha256: str
    bytes: int

    def copy_to(self, target: Path) -> None:
        """Copy it to `target`, flushed to disk, hashed on its way. Raises DamagedVersionError where it differs."""
        digest = hashlib.sha256()
        with self.path.open("rb") as reader, target.open("xb") as writer:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
                writer.write(chunk)
            # Read-only like what is published, and for whichever user the server runs as.
            os.fchmod(writer.fileno(), 0o555 if os.fstat(reader.fileno()).st_mode & 0o111 else 0o444)
            writer.flush()
            os.fsync(writer.fileno())
        if digest.hexdigest() != self.sha256:
            raise DamagedVersionError(
                f"{self.path} was altered: its SHA-256 is {digest.hexdigest()[:16]}, and should be {self.sha256[:16]}; "
                "nothing was copied. Publish the version again"
            )


@dataclass(frozen=True, slots=True)
class VersionContent:
    """The files of the version's folder, and those beside it in the model's, by path in that folder."""

    version: Mapping[str, SourceFile]
    beside: Mapping[str, SourceFile]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for files in (self.version, self.beside) for file in files.values())


def read_content(source: Path, model: ModelName, version: int, digests: FileDigests) -> VersionContent:
    """Return what `source`/`model`/`version` consists of; of a version without a manifest, all that is there.

    Raises DamagedVersionError for what is missing or cannot be copied, OSError for what cannot be read.
    """
    package = source / model
    folder = package / str(version)
    if not folder.is_dir():
        raise DamagedVersionError(f"{folder} is not there; publish the version again")
    manifest = read_manifest(folder)
    if manifest is not None:
        files = _listed(folder, manifest, digests)
    elif (folder / MANIFEST_FILENAME).exists():
        raise DamagedVersionError(
            f"{folder / MANIFEST_FILENAME} cannot be read by this version of Tritonfleet; publish the version again"
        )
    else:
        files = {name: _found(folder / name, digests) for name in _walk(folder)}
    config = files.get(CONFIG_FILENAME) or _config_beside(package, digests)
    beside = {name: _found(package / name, digests) for name in _read_beside(package, config.path)}
    if manifest is not None and _is_of_triton(package):
        _check_beside(beside, manifest)
    return VersionContent(files, {**beside, CONFIG_FILENAME: config})


def _listed(folder: Path, manifest: Manifest, digests: FileDigests) -> dict[str, SourceFile]:
    """Return what the manifest lists, with itself and its signature; sizes are compared, digests when it is copied."""
    files = {name: _as_listed(folder, name, entry) for name, entry in sorted(manifest.files.items())}
    for name in (MANIFEST_FILENAME, SIGNATURE_FILENAME):
        if (folder / name).is_file():
            files[name] = _found(folder / name, digests)
    return files


def _as_listed(folder: Path, name: str, entry: FileEntry) -> SourceFile:
    path = folder / name
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DamagedVersionError(f"{folder / MANIFEST_FILENAME} names {name}, which is no file of the version")
    if not path.is_file():
        raise DamagedVersionError(f"{path} is missing, though {MANIFEST_FILENAME} lists it; publish the version again")
    size = path.stat().st_size
    if size != entry.bytes:
        raise DamagedVersionError(
            f"{path} was altered: it has {size} bytes, and should have {entry.bytes}; publish the version again"
        )
    return SourceFile(path, entry.sha256, entry.bytes)


def _found(path: Path, digests: FileDigests) -> SourceFile:
    return SourceFile(path, digests.of(path), path.stat().st_size)


def _config_beside(package: Path, digests: FileDigests) -> SourceFile:
    """Return the model's config: a version made by hand has none of its own."""
    path = package / CONFIG_FILENAME
    if not path.is_file():
        raise DamagedVersionError(f"{path} is not there; a model needs one")
    return _found(path, digests)


def _read_beside(package: Path, config: Path) -> list[str]:
    """Find what Triton reads beside versions: in a folder that no build made, that may be anything."""
    if _is_of_triton(package):
        tops = [entry.name for entry in sorted(package.iterdir()) if not entry.name.startswith(".")]
        tops = [name for name in tops if not name.isdigit() and name not in (CONFIG_FILENAME, SPEC_FILENAME)]
    else:
        tops = [*sorted(_FOLDERS_BESIDE), *_label_files(config)]
    return [name for top in tops if os.path.lexists(package / top) for name in _walk(package, top)]


def _is_of_triton(package: Path) -> bool:
    """Whether it is a plain model folder of Triton, or was imported from one: nothing in it is a build's source."""
    if not (package / SPEC_FILENAME).exists():
        return True
    try:
        return isinstance(read_spec(package).source, TritonModelSource)
    except BuildError:  # a draft that is being edited; what was built of it does not depend on it
        return False


def _label_files(config: Path) -> list[str]:
    try:
        parsed = parse_config(config.read_text(encoding="utf-8"), path=str(config))
    except (BuildError, UnicodeDecodeError) as exc:
        raise DamagedVersionError(f"{config} cannot be read: {exc}") from exc
    return sorted({tensor.label_filename for tensor in parsed.outputs if tensor.label_filename})


def _check_beside(beside: Mapping[str, SourceFile], manifest: Manifest) -> None:
    """See that what an import took beside the versions is still that. Raises DamagedVersionError."""
    for name, file in beside.items():
        if manifest.sources.get(name, file.sha256) != file.sha256:
            raise DamagedVersionError(f"{file.path} was altered after it was imported; import the model again")


def _walk(root: Path, top: str = "") -> Iterator[str]:
    """Find the files below `root`/`top` by path in `root`, sorted; Python's bytecode, which comes and goes, left out.

    Raises DamagedVersionError for what is no file: a link to a folder, a link to nothing, a pipe.
    """
    begin = root / top
    if not begin.is_dir():
        yield _plain(begin, root)
        return
    for parent, folders, names in os.walk(begin, onerror=_raise):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name != BYTECODE_FOLDER)
        for name in folders:
            if (here / name).is_symlink():
                raise DamagedVersionError(f"{here / name} is a link to a folder, which is not copied; make it a folder")
        for name in sorted(names):
            yield _plain(here / name, root)


def _plain(path: Path, root: Path) -> str:
    if not path.is_file():
        raise DamagedVersionError(f"{path} is no file and cannot be copied; take it away")
    return path.relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error
