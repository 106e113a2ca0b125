"""Stage code: what is copied into a version is everything it needs of its own package, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders.errors import SourceError
from builders.sources.stage import stage_files


def test_copies_the_closure_of_a_stages_imports() -> None:
    files = stage_files("ensembles.stages.token_budget:TokenBudget")
    assert set(files) == {
        "__pycache__",
        "model.py",
        "ensembles/__init__.py",
        "ensembles/stages/__init__.py",
        "ensembles/stages/base.py",
        "ensembles/stages/token_budget.py",
        "ensembles/triton_adapter.py",
    }
    assert b"from ensembles.stages.token_budget import TokenBudget" in files["model.py"]
    assert stage_files("ensembles.stages.token_budget:TokenBudget") == files


def test_the_copies_serve_without_the_project(tmp_path: Path) -> None:
    for name, content in stage_files("ensembles.stages.token_budget:TokenBudget").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "triton_python_backend_utils.py").write_text("")
    script = "import model, ensembles; print(model.TritonPythonModel.__name__, ensembles.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (tmp_path / "__pycache__").is_file(), "serving changed the version's folder"
    assert not list(tmp_path.rglob("*.pyc"))
    assert done.stdout.split() == ["StageModel", str(tmp_path / "ensembles" / "__init__.py")]


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("ensembles.stages.nowhere:Stage", "'ensembles.stages.nowhere' was not found"),
        ("nowhere.at.all:Stage", "'nowhere.at.all' was not found"),
        ("ensembles.stages.token_budget:Budget", "has no class 'Budget'; it has: TokenBudget"),
    ],
)
def test_what_is_missing_is_named(stage: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        stage_files(stage)
