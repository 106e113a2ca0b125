"""The backend directory that is built for a server."""

import sys
from pathlib import Path

import pytest

from control_plane.embedded.layout import build_layout, find_wheel
from control_plane.errors import MissingExtraError


@pytest.fixture
def own_backends(tmp_path: Path) -> Path:
    for name in ("one", "two", "not_a_backend"):
        (tmp_path / "own" / name).mkdir(parents=True)
    (tmp_path / "own" / "one" / "model.py").write_text("")
    (tmp_path / "own" / "two" / "model.py").write_text("")
    return tmp_path / "own"


def test_the_python_backend_and_our_own_are_laid_out(tmp_path: Path, own_backends: Path) -> None:
    layout = build_layout(tmp_path / "run", own_backends)
    python = layout.backends / "python"
    assert sorted(path.name for path in python.iterdir()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]
    # Triton refuses the library where its real path is elsewhere.
    assert (python / "libtriton_python.so").resolve().is_relative_to(layout.backends.resolve())
    assert layout.python_backends == ("python", "one", "two")
    assert (layout.backends / "one" / "model.py").is_file()
    assert not (layout.backends / "not_a_backend").exists()
    assert layout.tritonserver.is_file()
    assert (layout.caches / "local").is_dir()
    assert all(folder.is_dir() for folder in layout.libraries)
    assert layout.temporary.stat().st_mode & 0o777 == 0o700


def test_building_again_replaces_what_a_crash_left(tmp_path: Path, own_backends: Path) -> None:
    first = build_layout(tmp_path / "run", own_backends)
    (first.temporary / "left").write_text("")
    (own_backends / "two" / "model.py").unlink()
    assert build_layout(tmp_path / "run", own_backends).python_backends == ("python", "one")
    assert list(first.temporary.iterdir()) == []
    assert not (first.backends / "two").exists()


def test_without_the_wheel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pytriton", raising=False)
    with pytest.raises(MissingExtraError, match=r"tritonfleet\[embedded\]"):
        find_wheel()


def test_a_package_of_that_name_without_a_server_is_not_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pytriton").mkdir()
    (tmp_path / "pytriton" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pytriton", raising=False)
    with pytest.raises(MissingExtraError, match="no tritonserver binary"):
        find_wheel()
