"""Fixtures that more than one folder of tests needs."""

import shutil
from pathlib import Path

import pytest

from builders.pipeline import build, builder_of

ROOT = Path(__file__).parents[1]


MEMBERS = ("text_tokenizer", "text_guard", "sentence_encoder", "text_embedding")


@pytest.fixture(scope="session")
def built_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the text ensemble once for the whole run, in a folder of its own. Tests do not write to it.

    Of the encoder's targets it has only the one that serves here, made in two ways and timed briefly: the others take
    minutes.
    """
    repository = tmp_path_factory.mktemp("built") / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns("[0-9]*"))
    spec = repository / "sentence_encoder" / "model.toml"
    general, serves, *_ = spec.read_text().split("[[targets]]\n")
    general = general.replace("[measure]\n", "[measure]\nseconds = 0.1\n")
    spec.write_text(f'{general}[[targets]]\ncandidates = ["plain", "merged+fused"]\n{serves}')
    builder = builder_of(repository)
    for package in MEMBERS:
        build(builder, package)
    return repository
