"""Puts a finished version into the model repository: staged outside it, flushed, renamed. All of it or nothing.

Every sub-folder of a repository is a model to Triton, so staging happens in a hidden folder beside it, on the same
filesystem. One build at a time works on a repository; the lock lives in the staging folder.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from builders.errors import PublishError
from builders.manifest import MANIFEST_FILENAME, Manifest
from builders.spec import CONFIG_FILENAME


def staging_folder(repository: Path) -> Path:
    """Return the folder in which versions of `repository` are prepared."""
    return _hidden(repository, "staging")


def timing_cache_folder(repository: Path) -> Path:
    """Return the folder in which TensorRT keeps its timings between builds of `repository`."""
    return _hidden(repository, "timing-cache")


def logs_folder(repository: Path) -> Path:
    """Return the folder that compilers' logs of failed builds of `repository` are kept in."""
    return _hidden(repository, "logs")


def _hidden(repository: Path, name: str) -> Path:
    resolved = repository.resolve()
    return resolved.parent / f".{resolved.name}.{name}"


@contextlib.contextmanager
def staging(repository: Path, *, wait_s: float = 600.0) -> Iterator[Path]:
    """Hold the repository's build lock, and give an empty folder for one build; it is gone afterwards.

    What an earlier build left behind when it was killed is removed. Raises PublishError where another build holds the
    lock for longer than `wait_s` seconds, or where the folder cannot be made.
    """
    parent = staging_folder(repository)
    lock = FileLock(parent / "lock")
    with _as_publish_error("prepare the staging folder", parent):
        parent.mkdir(exist_ok=True)
        if parent.stat().st_dev != repository.stat().st_dev:
            raise PublishError(
                f"{repository} is on another filesystem than the folder above it, so a version cannot be renamed into "
                "it; keep the repository in a folder of its filesystem instead of at its root"
            )
        try:
            lock.acquire(timeout=wait_s)
        except Timeout as exc:  # an OSError too
            raise PublishError(f"another build has held {parent / 'lock'} for {wait_s:.0f} s; wait for it") from exc
    try:
        with _as_publish_error("prepare a version", parent):
            for leftover in parent.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
            with tempfile.TemporaryDirectory(dir=parent, prefix="version-") as folder:
                yield Path(folder)
    finally:
        lock.release()


def publish(staged: Path, repository: Path, manifest: Manifest, sign: Callable[[Path], None] | None = None) -> Path:
    """Write `manifest` into `staged` and rename it to `<repository>/<package>/<version>`; return that path.

    `sign` signs the folder, manifest included, before it is renamed. The files, the folder and the name are on disk
    when this returns. Raises PublishError; nothing is published then.
    """
    target = repository / manifest.package / str(manifest.version)
    with _as_publish_error("publish", target):
        content = staged / "content"
        (content / MANIFEST_FILENAME).write_text(manifest.to_json(), encoding="utf-8")
        if sign is not None:
            sign(content)
        _flush(content)
        if target.exists():
            raise PublishError(f"{target} already exists; a published version is never replaced")
        content.rename(target)
        _flush_folder(target.parent)
    return target


def restore_config(package: Path, version: int, staged: Path) -> None:
    """Make the package's `config.pbtxt` a copy of the version's, at once and durably. Raises PublishError."""
    target = package / CONFIG_FILENAME
    with _as_publish_error("copy the config", target):
        copy = staged / CONFIG_FILENAME
        shutil.copyfile(package / str(version) / CONFIG_FILENAME, copy)
        with copy.open("rb") as stream:
            os.fsync(stream.fileno())
        copy.rename(target)
        _flush_folder(package)


def _flush(root: Path) -> None:
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            _flush_folder(path)
        else:
            path.chmod(0o444 | (path.stat().st_mode & 0o111))  # a version may hold a program that its model starts
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    _flush_folder(root)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _as_publish_error(doing: str, where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(where.parent if where.parent.exists() else Path("/")).free
            raise PublishError(
                f"cannot {doing} at {where}: the disk is full ({free / 1e6:.0f} MB free); nothing was published. "
                "Free some space and run the build again"
            ) from exc
        cause = f"{exc.strerror} ({exc.filename})" if exc.strerror and exc.filename else exc.strerror or str(exc)
        raise PublishError(f"cannot {doing} at {where}: {cause}; nothing was published") from exc
