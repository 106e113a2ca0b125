"""The folder that a server loads from: published versions are copied there, checked, renamed into place, and removed.

`version_content` says what a version consists of, `placement_ledger` keeps the staging folder and what was put there;
`planning.retention` decides what is removed.
"""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from builders.manifest import version_numbers
from builders.spec import CONFIG_FILENAME
from control_plane.adapters.placement_ledger import PlacementLedger, delete_tree, flush_folder
from control_plane.adapters.version_content import FileDigests, SourceFile, VersionContent, read_content
from control_plane.errors import LocationError, NoSpaceError
from control_plane.planning.retention import Installed
from control_plane.ports import Placed
from control_plane.state import ModelName, Pin


class ServerRepository:
    """`VersionPlacer` on this machine's filesystems; see there.

    Several may work on one location, in one process or in several. `margin_bytes` stay free beside a version's own
    size, or 5% of that if more. `wait_s` is how long another may keep a location busy: as long as its copy takes.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        margin_bytes: int = 64 * 1024 * 1024,
        wait_s: float = 600.0,
    ) -> None:
        self._clock, self._margin_bytes, self._wait_s = clock, margin_bytes, wait_s
        self._digests = FileDigests()

    def place(self, source: Path, location: Path, model: ModelName, version: int) -> Placed:
        """See the port."""
        pin = Pin(_checked(model), version)
        target = location / model / str(version)
        with _told(f"copy version {version} of '{model}'", location):
            if location.exists() and source.samefile(location):
                return Placed(target)
            content, ledger = read_content(source, model, version, self._digests), PlacementLedger(location)
            if self._holds(location, pin, content):
                ledger.note_needed(pin, self._clock())
                ledger.tidy()
                return Placed(target)
        needed = content.bytes + max(content.bytes // 20, self._margin_bytes)
        with _told(f"copy version {version} of '{model}'", location, needed), ledger.held(self._wait_s):
            copied = self._copy(ledger, pin, content, needed)
            ledger.note_needed(pin, self._clock())
        return Placed(target, copied)

    def remove(self, location: Path, model: ModelName, version: int) -> bool:
        """See the port."""
        pin = Pin(_checked(model), version)
        ledger = PlacementLedger(location)
        with _told(f"remove version {version} of '{model}'", location), ledger.held(self._wait_s):
            if ledger.entry(pin) is None:
                return False
            package = ledger.location / model
            last = self._is_last(package, pin, ledger.beside(model))
            grave = ledger.bury(package if last else package / str(version))
            ledger.drop(pin)
            delete_tree(grave)
        return True

    def note_needed(self, location: Path, pins: Iterable[Pin]) -> None:
        """See the port."""
        ledger, now = PlacementLedger(location), self._clock()
        for pin in pins:
            ledger.note_needed(pin, now)

    def installed(self, location: Path) -> tuple[Installed, ...]:
        """See the port."""
        ledger = PlacementLedger(location)
        with _told("list the versions", location):
            models = sorted(it.name for it in location.iterdir() if it.is_dir() and not it.name.startswith("."))
            return tuple(it for model in models for it in _installed(ledger, ModelName(model)))

    def _holds(self, location: Path, pin: Pin, content: VersionContent) -> bool:
        package = location / pin.model
        return self._holds_version(package / str(pin.version), content) and not self._differing(package, content.beside)

    def _holds_version(self, folder: Path, content: VersionContent) -> bool:
        return folder.is_dir() and not self._differing(folder, content.version)

    def _differing(self, folder: Path, files: Mapping[str, SourceFile]) -> list[str]:
        return [name for name, file in files.items() if not self._is_same(folder / name, file)]

    def _is_same(self, path: Path, file: SourceFile) -> bool:
        try:
            return path.is_file() and path.stat().st_size == file.bytes and self._digests.of(path) == file.sha256
        except FileNotFoundError:  # removed meanwhile
            return False

    def _copy(self, ledger: PlacementLedger, pin: Pin, content: VersionContent, needed: int) -> int:
        """Copy what the location lacks; return how many bytes that were. Another may have done it by now."""
        package = ledger.location / pin.model
        copied = 0
        if not self._holds_version(package / str(pin.version), content):
            self._see_that_it_may_be_put(ledger, pin)
            _check_space(ledger.location, pin, needed)
            copied += self._put_version(ledger, pin, content)
        lacking = {name: content.beside[name] for name in self._differing(package, content.beside)}
        if lacking:
            self._put_beside(ledger, pin.model, content, lacking)
            copied += sum(file.bytes for file in lacking.values())
        return copied

    def _see_that_it_may_be_put(self, ledger: PlacementLedger, pin: Pin) -> None:
        folder = ledger.location / pin.model / str(pin.version)
        if folder.exists() and ledger.entry(pin) is None:
            raise LocationError(
                f"{folder} was put there by somebody else and is not what is published as version {pin.version} of "
                f"'{pin.model}'; take it away, or publish under another number"
            )

    def _put_version(self, ledger: PlacementLedger, pin: Pin, content: VersionContent) -> int:
        package = ledger.location / pin.model
        with ledger.scratch() as scratch:
            staged = scratch / "content"
            _write_all(staged, content.version)
            _make_folder(package)
            altered = package / str(pin.version)  # ours; a server that loaded it keeps open what it has open
            grave = ledger.bury(altered) if altered.exists() else None
            # First the ledger: a version that is in neither could never be removed again.
            ledger.add(pin, staged.stat().st_ino, self._clock())
            staged.rename(package / str(pin.version))
            flush_folder(package)
        if grave is not None:
            delete_tree(grave)
        return sum(file.bytes for file in content.version.values())

    def _put_beside(
        self, ledger: PlacementLedger, model: ModelName, content: VersionContent, lacking: Mapping[str, SourceFile]
    ) -> None:
        package = ledger.location / model
        digests = {name: file.sha256 for name, file in content.beside.items()}
        with ledger.scratch() as scratch:
            staged = scratch / "beside"
            _write_all(staged, lacking)
            ledger.set_beside(model, {**ledger.beside(model), **digests}, self._clock())
            for name in sorted(lacking, key=lambda name: (name == CONFIG_FILENAME, name)):  # the config speaks of them
                for parent in reversed((package / name).relative_to(package).parents):
                    _make_folder(package / parent)
                (staged / name).rename(package / name)
                flush_folder((package / name).parent)

    def _is_last(self, package: Path, pin: Pin, beside: Mapping[str, str]) -> bool:
        """Whether nothing is left of the model without this version but files that were put beside it."""
        rest = [path for path in package.iterdir() if path.name != str(pin.version)]
        folders = [path for path in rest if path.is_dir()]
        if any(path.name.isdigit() for path in folders):
            return False
        files = [*(path for path in rest if path not in folders), *(it for path in folders for it in path.rglob("*"))]
        return all(
            path.is_file() and beside.get(path.relative_to(package).as_posix()) == self._digests.of(path)
            for path in files
            if path.is_symlink() or not path.is_dir()
        )


def _checked(model: ModelName) -> ModelName:
    """Return `model` where it names a folder in the location and nothing else. Raises LocationError."""
    if not model or Path(model).name != model or model.startswith("."):
        raise LocationError(f"'{model}' names no model's folder")
    return model


def _make_folder(path: Path) -> None:
    """Make a folder that whoever the server runs as can read, whatever our umask is, and have its name on disk."""
    if not path.is_dir():
        path.mkdir()
        path.chmod(0o755)
        flush_folder(path.parent)


def _write_all(folder: Path, files: Mapping[str, SourceFile]) -> None:
    """Copy `files` into the new `folder`, checked, and have all of it on disk."""
    folder.mkdir()
    parents = {folder}
    for name, file in sorted(files.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        parents.update(it for it in target.parents if it.is_relative_to(folder))
        file.copy_to(target)
    for parent in sorted(parents, reverse=True):
        parent.chmod(0o755)  # as in _make_folder
        flush_folder(parent)


def _installed(ledger: PlacementLedger, model: ModelName) -> Iterator[Installed]:
    package = ledger.location / model
    with contextlib.suppress(FileNotFoundError):  # what is removed meanwhile is left out
        for version in version_numbers(package):
            pin = Pin(model, version)
            entry = ledger.entry(pin)
            needed = entry.last_needed if entry is not None else None
            yield Installed(pin, _size(package / str(version)), entry is not None, needed)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_space(location: Path, pin: Pin, needed: int) -> None:
    free = shutil.disk_usage(location).free
    if free < needed:
        raise _no_space(f"copy version {pin.version} of '{pin.model}'", location, needed, free)


def _no_space(doing: str, location: Path, needed: int, free: int) -> NoSpaceError:
    return NoSpaceError(
        f"cannot {doing}: needs {_megabytes(needed)}, {_megabytes(free)} is free at {location}: remove versions that "
        "are not used there, or make room",
        bytes_short=max(needed - free, 1),
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


@contextlib.contextmanager
def _told(doing: str, location: Path, needed: int = 0) -> Iterator[None]:
    """Translate what the filesystem says. It is asked for its free space once the staged copy is gone."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise _no_space(doing, location, needed, shutil.disk_usage(location).free) from exc
        if exc.errno == errno.EDQUOT:  # which the filesystem's free space does not tell
            raise _no_space(doing, location, needed, 0) from exc
        cause = f"{exc.strerror} ({exc.filename})" if exc.strerror and exc.filename else exc.strerror or str(exc)
        raise LocationError(f"cannot {doing} at {location}: {cause}") from exc
