"""Timing caches of TensorRT: one file for each architecture and TensorRT version, with a header that says which.

What a kernel took on one GPU model is no measure for another, and a cache of another version is of no use. TensorRT
refuses some of those by itself and silently takes others; the header decides here, and a cache that is not ours to use
is left out with a reason, never an error. TensorRT-RTX has no timing cache. `engine` reads before a build and writes
after it.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

_MAGIC = b"tritonfleet timing cache 1\n"


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What a timing cache was measured with. `version` is TensorRT's, `gpu` the GPU's name as CUDA tells it."""

    version: str
    device: str
    gpu: str

    @property
    def filename(self) -> str:
        """Name of its file in the folder of timing caches."""
        return f"{self.device}-tensorrt-{self.version}.timing"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found: the cache's bytes (empty: begin a new one) and the state as `EngineResult.timing_cache`."""

    data: bytes
    state: str


def load_cache(folder: Path, key: CacheKey) -> Loaded:
    """Return the cache of `key`; one that is foreign, stale or damaged is ignored, with the reason as its state."""
    path = folder / key.filename
    try:
        return Loaded(_checked(path.read_bytes(), key), "used")
    except FileNotFoundError:
        return Loaded(b"", "new")
    except OSError as exc:
        return Loaded(b"", f"ignored: {path.name} cannot be read ({exc.strerror})")
    except ValueError as exc:
        return Loaded(b"", f"ignored: {path.name} {exc}")


def _checked(content: bytes, key: CacheKey) -> bytes:
    """Return the cache in a file's content. Raises ValueError where it is not `key`'s, saying what it is."""
    header, separator, data = content.removeprefix(_MAGIC).partition(b"\n")
    if not content.startswith(_MAGIC) or not separator:
        raise ValueError("is no timing cache of this program")
    try:
        told = json.loads(header)
        digest = told.pop("sha256")
        found = CacheKey(**told)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError("has a header that cannot be read") from exc
    if digest != hashlib.sha256(data).hexdigest():
        raise ValueError("is damaged (its digest does not match)")
    if found != key:
        raise ValueError(f"is of {_told(found)}, this build has {_told(key)}")
    return data


def save_cache(folder: Path, key: CacheKey, data: bytes) -> None:
    """Put `data` in place of the cache of `key`, whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    header = json.dumps({**asdict(key), "sha256": hashlib.sha256(data).hexdigest()}, sort_keys=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{key.filename}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(_MAGIC + header.encode() + b"\n" + data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(folder / key.filename)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _told(key: CacheKey) -> str:
    return f"TensorRT {key.version} on {key.gpu} ({key.device})"
