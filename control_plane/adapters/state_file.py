"""The state file as a file: who may open it, and its schema brought up to date.

Beneath `store`. One process holds the file by an flock that the kernel drops however that process ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from control_plane.errors import StateFileError, StateFileLockedError

_MIGRATIONS = Path(__file__).parent / "migrations"


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Be the only process that uses the state file at `path`. Raises StateFileLockedError, StateFileError."""
    lock, holder = FileLock(f"{path}.lock"), Path(f"{path}.pid")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as exc:
        raise StateFileLockedError(
            f"{path} is in use by another control plane (pid {_read(holder)}): stop that one, or give this one "
            "another state file (TRITONFLEET_STATE_PATH)."
        ) from exc
    except OSError as exc:
        raise StateFileError(f"{path} cannot be used as the state file: {exc}.") from exc
    try:
        holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        lock.release()


def open_engine(path: Path) -> Engine:
    """Open the database at `path` and bring its schema up to date. StateFileError where that is not possible."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _set_up_connection)
    try:
        _migrate(engine)
    except CommandError as exc:
        engine.dispose()
        raise StateFileError(
            f"{path} was written by a newer Tritonfleet ({exc}): run that version, or give another state file."
        ) from exc
    except DatabaseError as exc:
        engine.dispose()
        raise StateFileError(
            f"{path} is not a usable state file ({exc.orig}): restore it from a backup, or move it away to start empty."
        ) from exc
    return engine


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _set_up_connection(connection: Any, _record: Any) -> None:  # noqa: ANN401 - a DB-API connection has no types
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="ascii").strip() or "unknown"
    except OSError:
        return "unknown"
