"""Stage code of an ensemble: found by module name, followed through its imports, copied as a self-contained tree.

Modules are found and read as text; only the packages above them are imported, so building a stage never runs it. What
a version serves is exactly what its manifest digests, whatever is installed beside the server.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

from builders.errors import SourceError

ADAPTER_MODULE = "triton_adapter"
"""Module of the stage's top-level package that holds the `TritonPythonModel` adapter."""

_ENTRY_POINT = '''"""Made by `tritonfleet build`: serves {stage} from the copies beside this file."""

import sys
from pathlib import Path

# The copies in this version come before anything of the same name that is installed beside the server.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from {adapter} import serve  # noqa: E402
from {module} import {name}  # noqa: E402

TritonPythonModel = serve({name})
'''


def stage_files(stage: str) -> dict[str, bytes]:
    """Return `{path in the version: content}` of everything that serves `stage` (`module:Class`). Raises SourceError.

    Holds `model.py` (what Triton's Python backend opens), the stage's module, the adapter, and every module of the same
    top-level package that these import, directly or not.
    """
    module, _, name = stage.partition(":")
    package = module.split(".", 1)[0]
    adapter = f"{package}.{ADAPTER_MODULE}"
    files: dict[str, bytes] = {}
    pending, seen = [adapter, module], set[str]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        path, relative = _find(current)
        files[relative] = path.read_bytes()
        pending += [parent for parent in _parents(current) if parent not in seen]
        pending += sorted(_local_imports(path, package) - seen)
    _check_class(files[_find(module)[1]], module, name)
    files["model.py"] = _ENTRY_POINT.format(stage=stage, adapter=adapter, module=module, name=name).encode()
    return dict(sorted(files.items()))


def _find(module: str) -> tuple[Path, str]:
    """Return where a module's source is, and the path it gets inside a version."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise SourceError(f"stage module '{module}' was not found on the Python path")
    origin = Path(spec.origin)
    relative = module.replace(".", "/")
    return origin, f"{relative}/__init__.py" if origin.name == "__init__.py" else f"{relative}.py"


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _local_imports(path: Path, package: str) -> set[str]:
    """Modules of `package` that the file imports; `from package.x import y` counts `package.x`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise SourceError(f"{path}:{node.lineno}: relative import; stage code is copied, so name modules in full")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found.update(name for name in names if name.split(".", 1)[0] == package)
    return found


def _check_class(source: bytes, module: str, name: str) -> None:
    classes = {node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise SourceError(f"module '{module}' has no class '{name}'; it has: {', '.join(sorted(classes)) or 'none'}")
