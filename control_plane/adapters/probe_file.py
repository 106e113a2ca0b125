"""The public probes of a version as `builders.probes` wrote them: the first of them as a golden `Probe`."""

import json
from pathlib import Path

from control_plane.state import ModelName, Probe

_LARGEST = 16 * 1024 * 1024


def read_probe(path: Path, model: ModelName, version: int) -> Probe | None:
    """Return the first probe in the file; None where there is no file, or nothing that is a probe in it."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        first = json.loads(path.read_bytes())[0]
        return Probe(model, version, tuple(first["inputs"]), tuple(first["outputs"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
