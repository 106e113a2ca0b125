"""Fixtures that more than one folder of tests needs."""

import shutil
from pathlib import Path

import pytest

from builders.pipeline import build
from builders.spec import find_packages

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def built_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build this project's packages once for the whole run, in a folder of its own. Tests do not write to it."""
    repository = tmp_path_factory.mktemp("built") / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("[0-9]*"))
    for package in find_packages(repository):
        build(repository, package)
    return repository
