"""Stage code of an ensemble: found by module name, followed through its imports, copied as a self-contained tree.

Modules are found and read as text; only the packages above them are imported, so building a stage never runs it. What
a version serves of this code is exactly what its manifest digests; libraries such as NumPy are the server's.
"""

import ast
from importlib.util import find_spec
from pathlib import Path

from builders.errors import SourceError

ADAPTER_MODULE = "ensembles.triton_adapter"
"""The `TritonPythonModel` adapter that serves every stage. Only named here: builders import nothing above them."""

_ENTRY_POINT = '''"""Made by `tritonfleet build`: serves {stage} from the copies beside this file."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
# The copies in this version come before anything of the same name that is installed beside the server.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from {adapter} import serve  # noqa: E402
from {module} import {name}  # noqa: E402

TritonPythonModel = serve({name})
'''


def stage_files(stage: str) -> dict[str, bytes]:
    """Return `{path in the version: content}` of everything that serves `stage` (`module:Class`). Raises SourceError.

    Holds `model.py` (what Triton's Python backend opens), the stage's module, the adapter, and every module of these
    two's top-level packages that they import, directly or not.
    """
    module, _, name = stage.partition(":")
    packages = {entry.split(".", 1)[0] for entry in (module, ADAPTER_MODULE)}
    files: dict[str, bytes] = {}
    pending, seen = [ADAPTER_MODULE, module], set[str]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        found = _find(current)
        if found is None:
            continue
        path, relative = found
        files[relative] = path.read_bytes()
        if current == module:
            _check_class(path, module, name)
        pending += sorted({*_parents(current), *_local_imports(path, packages)} - seen)
    # A file where Python would make a folder of bytecode: a version's folder must not change after it is published, or
    # Triton takes it for a new one and reloads the model when an ensemble above it is loaded.
    files["__pycache__"] = b""
    files["model.py"] = _ENTRY_POINT.format(stage=stage, adapter=ADAPTER_MODULE, module=module, name=name).encode()
    return dict(sorted(files.items()))


def _find(module: str) -> tuple[Path, str] | None:
    """Return where a module's source is, and the path it gets inside a version; None for a namespace package."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, ValueError):  # ValueError: a module that has no spec, as __main__
        spec = None
    except Exception as exc:  # whatever a package above the stage raises when it is imported
        raise SourceError(f"the package of stage module '{module}' cannot be imported: {exc}") from exc
    if spec is not None and spec.origin is None and spec.submodule_search_locations is not None:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise SourceError(f"stage module '{module}' was not found on the Python path")
    origin = Path(spec.origin)
    relative = module.replace(".", "/")
    return origin, f"{relative}/__init__.py" if origin.name == "__init__.py" else f"{relative}.py"


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as exc:  # ValueError: null bytes
        raise SourceError(f"{path}:{getattr(exc, 'lineno', 1)}: not Python: {exc}") from exc


def _local_imports(path: Path, packages: set[str]) -> set[str]:
    """Modules of `packages` that the file imports; in `from package.x import y`, `package.x`, and `y` if it is one."""
    found: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise SourceError(f"{path}:{node.lineno}: relative import; stage code is copied, so name modules in full")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module.split(".", 1)[0] in packages:
                names += [name for alias in node.names if _is_module(name := f"{node.module}.{alias.name}")]
        found.update(name for name in names if name.split(".", 1)[0] in packages)
    return found


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module, not a package
        return False


def _check_class(path: Path, module: str, name: str) -> None:
    classes = {node.name for node in _parse(path).body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        raise SourceError(f"module '{module}' has no class '{name}'; it has: {', '.join(sorted(classes)) or 'none'}")
