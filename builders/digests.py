"""SHA-256 of files, folders and plain data: what build keys and manifests are made of."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_digests(root: Path) -> dict[str, str]:
    """Return `{relative posix path: SHA-256}` of every file below `root`, sorted by path."""
    return {path.relative_to(root).as_posix(): file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def data_digest(data: Mapping[str, object]) -> str:
    """Return the SHA-256 of `data` as canonical JSON (sorted keys, no spaces), in hex."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
