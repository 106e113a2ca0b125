"""A causal language model for ONNX Runtime with its KV cache, made by onnxruntime-genai's model builder, and proven.

Builder and built model run in processes of their own (`causal_lm_child`): the builder has a package `builders` too,
prints much and takes much memory. Nothing is fetched from a network. The version's files are the builder's own folder.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builders.errors import MissingExtraError, ParityError, SourceError
from builders.sources.cases import GoldenText, read_golden_texts
from builders.sources.checkpoint import require_safetensors
from builders.sources.pretrained import load_pretrained
from builders.sources.texts import tokenize
from builders.tensorrt.bounded_log import last_lines
from builders.tensorrt.limited import ChildEnd, Limits, run_limited

Precision = Literal["fp32", "fp16", "int4"]
Report = Callable[[str, int, int], None]

CONFIG_FILENAME = "genai_config.json"
NEW_TOKENS = 16
"""Greedy tokens that are compared for every prompt."""
MOST_PROMPTS = 16

_CHILD = "builders.sources.causal_lm_child"
_EXTRA = "generation"
_BUILD_S, _COMPARE_S = 3600.0, 1800.0
_MEMORY_SHARE = 0.9
# ONNX Runtime's CPU provider has no FP16 attention with a KV cache: such a model is for a GPU, and built as one.
_PROVIDERS: Mapping[str, str] = {"fp32": "cpu", "int4": "cpu", "fp16": "cuda"}


@dataclass(frozen=True, slots=True)
class LogitsTolerance:
    """What the logits of every step must hold, and the share of steps whose greedy token must be the source's."""

    min_cosine: float
    min_agreement: float
    max_abs_error: float | None = None


TOLERANCES: Mapping[str, LogitsTolerance] = {
    "fp32": LogitsTolerance(min_cosine=0.9999, min_agreement=1.0, max_abs_error=1e-2),
    "fp16": LogitsTolerance(min_cosine=0.999, min_agreement=0.98),
    "int4": LogitsTolerance(min_cosine=0.9, min_agreement=0.8),
}


@dataclass(frozen=True, slots=True)
class CausalLmEvidence:
    """How close the model comes to its source: `steps` greedy steps over `prompts`, on the source's own tokens.

    `agreement` is the share of steps whose most likely token is the source's. `unproven` says why there are no
    figures, "" where there are: then all of them were within the tolerance.
    """

    precision: Precision
    provider: str
    prompts: int = 0
    steps: int = 0
    agreement: float | None = None
    min_cosine: float | None = None
    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    unproven: str = ""


def write_causal_lm(
    checkpoint: Path,
    precision: Precision,
    out: Path,
    golden: Path | None,
    report: Report = lambda _step, _done, _total: None,
    tolerance: LogitsTolerance | None = None,
) -> CausalLmEvidence:
    """Build the checkpoint folder into `out`, and hold greedy steps on the golden prompts against transformers.

    Without a golden set the model is unproven. Raises SourceError with the end of the builder's log, ParityError, and
    MissingExtraError. `out` is left empty where this raises.
    """
    require_safetensors(checkpoint)
    script = _builder_script()
    prompts = read_golden_texts(golden)[:MOST_PROMPTS] if golden is not None else ()
    provider = _PROVIDERS[precision]
    with tempfile.TemporaryDirectory(prefix="tritonfleet-genai-") as name:
        work = Path(name)
        built = work / "model"
        report("building with onnxruntime-genai", 0, 2)
        _build(script, checkpoint, (precision, provider), work, built)
        report("comparing greedy steps", 1, 2)
        evidence = _prove(checkpoint, precision, built, prompts, work)
        check_evidence(evidence, tolerance or TOLERANCES[precision])
        shutil.copytree(built, out, dirs_exist_ok=True)
    report("comparing greedy steps", 2, 2)
    return evidence


def _builder_script() -> Path:
    """Find the model builder without importing it, and what it needs. MissingExtraError."""
    for module in ("torch", "transformers", "onnx_ir", "onnxruntime"):
        if find_spec(module) is None:
            raise MissingExtraError(module, "export" if module in {"torch", "transformers"} else _EXTRA)
    package = find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise MissingExtraError("onnxruntime-genai", _EXTRA)
    return Path(package.origin).parent / "models" / "builder.py"


def _build(script: Path, checkpoint: Path, made_for: tuple[Precision, str], work: Path, built: Path) -> None:
    precision, provider = made_for
    log = work / "build.log"
    arguments = ["-i", str(checkpoint.resolve()), "-o", str(built), "-c", str(work / "cache")]
    more = ["-p", precision, "-e", provider, "--extra_options", "hf_remote=false", "hf_token=false"]
    end = run_limited(_CHILD, ["build", str(script), *arguments, *more], _limits(_BUILD_S), log)
    if end.status or end.stopped or not (built / CONFIG_FILENAME).is_file():
        raise SourceError(
            f"{checkpoint}: onnxruntime-genai cannot build it as {precision}: {_words(end, log)}; take a checkpoint of "
            "an architecture that it supports, or another precision"
        )


def _prove(
    checkpoint: Path, precision: Precision, built: Path, prompts: Sequence[GoldenText], work: Path
) -> CausalLmEvidence:
    provider = _PROVIDERS[precision]
    if not prompts:
        return CausalLmEvidence(precision, provider, unproven="there is no golden set to hold it against its source")
    if provider != "cpu":
        return CausalLmEvidence(
            precision, provider, unproven=f"{precision} needs an NVIDIA GPU and onnxruntime-genai-cuda"
        )
    steps, answer, log = work / "steps.npz", work / "parity.json", work / "compare.log"
    _save_steps(checkpoint, prompts, steps)
    end = run_limited(_CHILD, ["compare", str(steps), str(built), str(answer)], _limits(_COMPARE_S), log)
    if end.status or end.stopped or not answer.is_file():
        raise SourceError(
            f"{checkpoint}: the {precision} model of onnxruntime-genai cannot be run: {_words(end, log)}; try another "
            "precision"
        )
    return CausalLmEvidence(precision, provider, **json.loads(answer.read_text(encoding="utf-8")))


def _save_steps(checkpoint: Path, prompts: Sequence[GoldenText], path: Path) -> None:
    """Write each prompt's token ids [tokens] and the source's logits [NEW_TOKENS, vocabulary] at its greedy steps."""
    import torch  # noqa: PLC0415 - an optional extra, found by now

    source: Any = load_pretrained("AutoModelForCausalLM", checkpoint)
    longest = source.config.max_position_embeddings - NEW_TOKENS - 1
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, row in enumerate(tokenize(checkpoint / "tokenizer.json", prompts, longest)):
        if not row:
            raise SourceError(f"golden prompt {number + 1} has no token; take it out of the golden set")
        current = torch.tensor([row.ids])
        arrays[f"{number}/tokens"] = current[0].numpy()
        rows = []
        with torch.no_grad():
            for _ in range(NEW_TOKENS):
                rows.append(source(current).logits[0, -1])
                current = torch.cat([current, rows[-1].argmax().reshape(1, 1)], dim=1)
        arrays[f"{number}/logits"] = torch.stack(rows).numpy().astype(np.float32)
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def check_evidence(evidence: CausalLmEvidence, tolerance: LogitsTolerance) -> None:
    """Raise ParityError with every figure of `evidence` that is beyond `tolerance`; NaN is. Unproven passes."""
    if evidence.unproven:
        return
    problems = []
    for name, value, least in (
        ("cosine of the logits", evidence.min_cosine, tolerance.min_cosine),
        ("share of equal greedy tokens", evidence.agreement, tolerance.min_agreement),
    ):
        if value is None or not value >= least:
            problems.append(f"{name} {value} is below {least}")
    most = tolerance.max_abs_error
    if most is not None and (evidence.max_abs_error is None or not evidence.max_abs_error <= most):
        problems.append(f"largest error of the logits {evidence.max_abs_error} is above {most}")
    if problems:
        raise ParityError(
            f"the {evidence.precision} model does not give its source's answers over {evidence.steps} greedy steps of "
            f"{evidence.prompts} prompts: {'; '.join(problems)}; build it in a higher precision"
        )


def _limits(seconds: float) -> Limits:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(memory_bytes=int(total * _MEMORY_SHARE), seconds=seconds)


def _words(end: ChildEnd, log: Path) -> str:
    """Return why a child ended, in words: its limit, or the last line of its log."""
    if end.stopped == "time":
        return "it was not done in time"
    if end.stopped == "memory":
        return f"it took more than {_MEMORY_SHARE:.0%} of this machine's memory"
    lines = last_lines(log)
    said = lines[-1] if lines else "it said nothing"
    return f"it ended with status {end.status}: {said}"
