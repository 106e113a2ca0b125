"""A causal language model built and proven by onnxruntime-genai, and what is said where it cannot be."""

import json
import tomllib
from pathlib import Path

import pytest

from builders.errors import MissingExtraError, ParityError, SourceError
from builders.sources import causal_lm
from builders.sources.causal_lm import (
    TOLERANCES,
    CausalLmEvidence,
    LogitsTolerance,
    check_evidence,
    write_causal_lm,
)
from tests.tiny_causal_lm import save_tiny_causal_lm

GENAI = "onnxruntime_genai"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_causal_lm(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("w5 w9 w100", "w77")) + "\n")
    return path


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for onnxruntime-genai's builder before it on the path; returns the script to write."""
    models = tmp_path / "site" / GENAI / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return models / "builder.py"


def test_fp32_takes_the_sources_greedy_steps_through_its_kv_cache(
    checkpoint: Path, golden: Path, tmp_path: Path
) -> None:
    steps: list[tuple[str, int, int]] = []
    out = tmp_path / "out"
    got = write_causal_lm(checkpoint, "fp32", out, golden, lambda *step: steps.append(step))
    assert (got.prompts, got.steps, got.agreement, got.unproven) == (2, 32, 1.0, "")
    assert got.min_cosine is not None
    assert got.min_cosine > 0.99999
    assert got.max_abs_error is not None
    assert 0 < got.max_abs_error < 1e-3
    assert {"genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json"} <= {it.name for it in out.iterdir()}
    config = json.loads((out / "genai_config.json").read_text())
    assert config["model"]["decoder"]["inputs"]["past_key_names"] == "past_key_values.%d.key"
    assert [it[1:] for it in steps] == [(0, 2), (1, 2), (2, 2)]


def test_the_builder_gets_what_it_was_asked_and_no_network(checkpoint: Path, tmp_path: Path, stand_in: Path) -> None:
    stand_in.write_text(
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "out = Path(sys.argv[sys.argv.index('-o') + 1])\n"
        "out.mkdir()\n"
        "said = {'arguments': sys.argv[1:], 'offline': os.environ['HF_HUB_OFFLINE']}\n"
        "(out / 'genai_config.json').write_text(json.dumps(said))\n"
    )
    out = tmp_path / "out"
    got = write_causal_lm(checkpoint, "fp16", out, None)
    assert got == CausalLmEvidence("fp16", "cuda", unproven="there is no golden set to hold it against its source")
    said = json.loads((out / "genai_config.json").read_text())
    assert said["offline"] == "1"
    assert said["arguments"][:2] == ["-i", str(checkpoint)]
    assert said["arguments"][-7:] == [
        "-p",
        "fp16",
        "-e",
        "cuda",
        "--extra_options",
        "hf_remote=false",
        "hf_token=false",
    ]


def test_a_model_for_a_gpu_is_unproven_here(checkpoint: Path, golden: Path, tmp_path: Path, stand_in: Path) -> None:
    stand_in.write_text(
        "import sys\nfrom pathlib import Path\nout = Path(sys.argv[sys.argv.index('-o') + 1])\nout.mkdir()\n"
        "(out / 'genai_config.json').touch()\n"
    )
    got = write_causal_lm(checkpoint, "fp16", tmp_path / "out", golden)
    assert got.unproven == "fp16 needs an NVIDIA GPU and onnxruntime-genai-cuda"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("raise NotImplementedError('no such architecture')", "status 1: NotImplementedError: no such architecture"),
        ("import os; os.kill(os.getpid(), 11)", "status -11"),
        ("print('nothing to do')", "status 0: nothing to do"),
    ],
)
def test_a_builder_that_fails_is_told_in_its_last_words_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, stand_in: Path, script: str, said: str
) -> None:
    stand_in.write_text(script + "\n")
    with pytest.raises(SourceError) as caught:
        write_causal_lm(checkpoint, "int4", tmp_path / "out", None)
    assert f"onnxruntime-genai cannot build it as int4: it ended with {said}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="pickled weights are not read"):
        write_causal_lm(tmp_path, "fp32", tmp_path / "out", None)


def test_a_prompt_without_a_token_is_named(checkpoint: Path, tmp_path: Path, stand_in: Path) -> None:
    stand_in.write_text(
        "import sys\nfrom pathlib import Path\nout = Path(sys.argv[sys.argv.index('-o') + 1])\nout.mkdir()\n"
        "(out / 'genai_config.json').touch()\n"
    )
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"text": "w5"}\n{"text": ""}\n')
    with pytest.raises(SourceError, match="golden prompt 2 has no token"):
        write_causal_lm(checkpoint, "fp32", tmp_path / "out", golden)


def test_a_missing_extra_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(MissingExtraError, match="is not installed"):
        write_causal_lm(checkpoint, "fp32", tmp_path / "out", None)


def test_the_extra_that_is_named_is_one_of_ours_and_brings_the_builder() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    assert any(needed.startswith("onnxruntime-genai") for needed in extras[causal_lm._EXTRA])


def evidence(agreement: float, cosine: float, error: float) -> CausalLmEvidence:
    return CausalLmEvidence("fp32", "cpu", 2, 32, agreement, cosine, error, error / 2)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (evidence(1.0, 0.9, 1e-4), "cosine of the logits 0.9 is below 0.9999"),
        (evidence(0.97, 1.0, 1e-4), "share of equal greedy tokens 0.97 is below 1.0"),
        (evidence(1.0, 1.0, 0.5), "largest error of the logits 0.5 is above 0.01"),
        (evidence(1.0, float("nan"), 1e-4), "cosine of the logits nan is below"),
    ],
)
def test_what_is_beyond_the_tolerance_is_refused(found: CausalLmEvidence, said: str) -> None:
    with pytest.raises(ParityError) as caught:
        check_evidence(found, TOLERANCES["fp32"])
    assert said in str(caught.value)
    assert "over 32 greedy steps of 2 prompts" in str(caught.value)


def test_what_is_within_the_tolerance_or_unproven_passes() -> None:
    check_evidence(evidence(1.0, 1.0, 1e-4), TOLERANCES["fp32"])
    check_evidence(evidence(0.8, 0.95, 3.0), LogitsTolerance(0.9, 0.8))
    check_evidence(CausalLmEvidence("fp16", "cuda", unproven="no GPU"), TOLERANCES["fp16"])
