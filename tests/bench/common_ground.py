"""What the benches of the text_embedding ensemble share: packages, texts, and runs in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from builders.manifest import version_numbers
from builders.pipeline import build, builder_of
from builders.sources.checkpoint import EncoderCheckpoint, read_checkpoint
from builders.sources.distribution import locate
from builders.spec import HuggingFaceSource, read_spec
from control_plane.state import Server

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
MODEL, ENCODER, TOKENIZER = "text_embedding", "sentence_encoder", "text_tokenizer"
MEMBERS = (TOKENIZER, "text_guard", ENCODER, MODEL)
"""In the order in which they are loaded."""
GRAPH = "onnxruntime-cpu-fp32.onnx"
"""The encoder's file that serves on a CPU."""


def corpus() -> list[str]:
    """Return the thousand real sentences of `tests/data`."""
    lines = (ROOT / "tests/data/sentences.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def build_packages() -> None:
    """Make sure that the ensemble and its members have a version of their present sources."""
    builder = builder_of(REPOSITORY)
    for package in MEMBERS:
        build(builder, package)


def newest(package: Path) -> Path:
    """Return the folder of a package's newest version."""
    return package / str(version_numbers(package)[-1])


def encoder_checkpoint() -> EncoderCheckpoint:
    """Return the checkpoint that the sentence encoder is built from."""
    source = read_spec(REPOSITORY / ENCODER).source
    if not isinstance(source, HuggingFaceSource):
        raise TypeError(f"{ENCODER} is not built from a checkpoint")
    return read_checkpoint(locate(source.checkpoint, REPOSITORY / ENCODER))


def admin(server: Server) -> dict[str, str]:
    """Return the gRPC metadata that opens a server's restricted APIs."""
    return {"triton-grpc-protocol-admin-key": server.admin_key or ""}


def run_module(module: str, plan: dict[str, Any], cpus: frozenset[int]) -> dict[str, Any]:
    """Run a bench module in a process of its own on `cpus`."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}"],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
