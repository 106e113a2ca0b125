"""model.toml: what is read, and what each mistake is told."""

from pathlib import Path

import pytest

from builders.errors import SourceError, SpecError
from builders.spec import HuggingFaceEncoderSource, StageSource, find_packages, read_spec

ENCODER = """
name = "m"
summary = "s"
licence = "Apache-2.0"
[source]
kind = "huggingface_encoder"
checkpoint = { distribution = "d", path = "p" }
[source.parity]
min_cosine = 0.999
"""
STAGE = """
name = "m"
summary = "s"
licence = "Apache-2.0"
[source]
kind = "stage"
stage = "a.b:C"
[source.files]
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


def test_reads_a_spec(package: Path) -> None:
    (package / "model.toml").write_text(ENCODER)
    source = read_spec(package).source
    assert isinstance(source, HuggingFaceEncoderSource)
    assert (source.parity.min_cosine, source.parity.golden, source.checkpoint.path) == (0.999, "golden.jsonl", "p")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not TOML"),
        (ENCODER.replace("licence", "license"), r"licence: Field required; license: Extra inputs"),
        (ENCODER.replace("huggingface_encoder", "pickle"), "source: Input tag 'pickle'"),
        (
            ENCODER.replace("0.999", "1.5"),
            r"source\.huggingface_encoder\.parity\.min_cosine: .*less than or equal to 1",
        ),
        (ENCODER.replace("0.999", '"high"'), "valid number"),
        (ENCODER.replace('name = "m"', 'name = "other"'), "name is 'other', but the folder is 'm'"),
        (ENCODER + 'golden = "../../secrets.jsonl"', "golden: String should match pattern"),
        (STAGE + '"model.py" = { distribution = "d", path = "p" }', "a version has a 'model.py' of its own"),
        (ENCODER.replace('name = "m"', 'name = "../m"'), "name: String should match pattern"),
    ],
)
def test_each_mistake_is_told_with_file_and_field(package: Path, text: str, said: str) -> None:
    (package / "model.toml").write_text(text)
    with pytest.raises(SpecError, match=said) as raised:
        read_spec(package)
    assert str(package / "model.toml") in str(raised.value)


def test_missing_and_undecodable_files(package: Path) -> None:
    with pytest.raises(SourceError, match=r"model\.toml: no such file"):
        read_spec(package)
    (package / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="cannot be read"):
        read_spec(package)


def test_this_projects_packages_are_sound() -> None:
    repository = Path(__file__).parents[3] / "model_repository"
    specs = {name: read_spec(repository / name) for name in find_packages(repository)}
    assert {"sentence_encoder", "text_tokenizer", "text_guard", "text_embedding"} <= set(specs)
    assert isinstance(specs["text_guard"].source, StageSource)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such folder"):
        find_packages(tmp_path / "none")
