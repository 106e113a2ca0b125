"""Where the parts of an embedded Triton are, and the backend directory built from them in a runtime folder.

The tritonserver, its Python backend and its cache come from the `nvidia-pytriton` wheel; the Python-based backends are
the folders of `control_plane/embedded/backends/`. `command` turns a `Layout` into a command line.
"""

import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from control_plane.errors import MissingExtraError, ServerStartError

OWN_BACKENDS = Path(__file__).parent / "backends"


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """The installed `nvidia-pytriton`: `root` is its `tritonserver`, `libraries` the folder beside it."""

    root: Path
    libraries: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Absolute paths that one server is started with. `python_backends` names the backends that run Python stubs."""

    tritonserver: Path
    backends: Path
    caches: Path
    temporary: Path
    interpreter_bin: Path
    libraries: tuple[Path, ...]
    python_backends: tuple[str, ...]


def find_wheel() -> TritonWheel:
    """Find the wheel without importing it. MissingExtraError when it is not installed."""
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        raise MissingExtraError(
            "There is no tritonserver in this Python environment: install the extra `tritonfleet[embedded]`."
        )
    root = Path(package.origin).parent / "tritonserver"
    libraries = Path(package.origin).parent.parent / "nvidia_pytriton.libs"
    if not (root / "bin" / "tritonserver").is_file() or not libraries.is_dir():
        raise MissingExtraError(
            f"`pytriton` in {root.parent} carries no tritonserver binary: install the extra `tritonfleet[embedded]`."
        )
    return TritonWheel(root=root, libraries=libraries)


def libpython_folder() -> Path:
    """Folder of this interpreter's shared library, which the stub links. ServerStartError when there is none."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    if folder and name and ".so" in name and (Path(folder) / name).exists():
        return Path(folder)
    raise ServerStartError(
        f"{sys.executable} has no shared libpython ({name} in {folder}), which Triton's Python backend links: use a "
        "Python built with --enable-shared (Debian, Ubuntu: apt install libpython3.12), or that of "
        "`PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install`."
    )


def build_layout(runtime: Path, own_backends: Path = OWN_BACKENDS) -> Layout:
    """Build `runtime`/backends and `runtime`/tmp anew and return every path a server needs.

    Raises MissingExtraError and ServerStartError as `find_wheel` and `libpython_folder` do.
    """
    wheel = find_wheel()
    libpython = libpython_folder()
    backends, temporary = runtime / "backends", runtime / "tmp"
    for folder in (backends, temporary):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
    _add_python_backend(backends / "python", wheel)
    return Layout(
        tritonserver=wheel.root / "bin" / "tritonserver",
        backends=backends,
        caches=wheel.root / "caches",
        temporary=temporary,
        interpreter_bin=_interpreter_bin(),
        libraries=(wheel.libraries, libpython),
        python_backends=("python", *_add_own_backends(backends, own_backends)),
    )


def _add_python_backend(target: Path, wheel: TritonWheel) -> None:
    source = wheel.root / "backends" / "python"
    stub = wheel.root / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    if not stub.is_file():
        raise ServerStartError(f"The Triton wheel has no stub for Python {sysconfig.get_python_version()} ({stub}).")
    target.mkdir()
    # A copy: for a Python-based backend Triton refuses a library whose real path is outside the backend directory.
    shutil.copy2(source / "libtriton_python.so", target)
    for linked in (source / "triton_python_backend_utils.py", stub):
        (target / linked.name).symlink_to(linked)


def _add_own_backends(target: Path, own_backends: Path) -> tuple[str, ...]:
    """Link every folder with a model.py, which is what makes it a Python-based backend. Returns their names, sorted."""
    folders = sorted(path.parent for path in own_backends.glob("*/model.py"))
    for folder in folders:
        (target / folder.name).symlink_to(folder.resolve(), target_is_directory=True)
    return tuple(folder.name for folder in folders)


def _interpreter_bin() -> Path:
    """Find the folder whose `python3` leads the stub to this environment's site-packages."""
    folder = Path(sys.executable).parent
    if not (folder / "python3").exists():
        raise ServerStartError(
            f"There is no `python3` beside {sys.executable}: Triton's Python backend finds installed packages by it."
        )
    return folder
