"""Writing what a command was asked to write: whole, or not at all."""

import os
from pathlib import Path

from builders.errors import SourceError


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it; its folder is made. SourceError with the cause where that fails."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    except OSError as exc:
        raise SourceError(f"{path}: cannot be written: {exc.strerror}") from exc
    finally:
        if staged.exists():
            staged.unlink()
