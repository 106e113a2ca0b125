"""Proving a published version: what can run here is run against the source's answers, and attested for the others."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builders.errors import SourceError, TargetError
from builders.host import observe_host
from builders.parity import Run, onnx_runner
from builders.pipeline import Builder, build, builder_of
from builders.proving import attest_proof, prove_version
from builders.reference import Tensors
from builders.supply_chain.keys import Signer, generate_key, read_signer
from builders.targets import Gpu, Host, Target
from tests.tiny_packages import GRAPH, PLAIN, write_graph

CUDA = "onnxruntime-cuda-fp16"
FP32 = "onnxruntime-cpu-fp32"
GPU_HOST = Host("a CPU", (Gpu("L4", "8.9", 24 * 10**9),), {"onnxruntime-gpu": "1.32"})


def run_on_cpu(_target: Target, path: Path) -> Run:
    """Stand in for a GPU: the same graph runs on the CPU, in other precisions too."""
    return onnx_runner(path)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    repository = tmp_path_factory.mktemp("proving") / "repository"
    cuda = PLAIN.replace('"cpu"', '"cuda"').replace('"fp32"', '"fp16"').replace('candidates = ["plain", "merged"]', "")
    write_graph(repository, PLAIN, f"{cuda}required = false\n")
    builder = builder_of(repository)
    assert build(builder, GRAPH).built
    return builder


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return read_signer(generate_key(tmp_path_factory.mktemp("key")).private)


def version(builder: Builder) -> Path:
    return builder.repository / GRAPH / "1"


def test_what_can_run_here_is_proven_and_the_rest_is_told(builder: Builder) -> None:
    seen: list[str] = []
    manifest, proofs = prove_version(version(builder), builder.store, observe_host(), run_on_cpu, seen.append)
    assert [(proof.target, proof.ok) for proof in proofs] == [(FP32, True), (CUDA, False)]
    assert proofs[1].skipped == "needs an NVIDIA GPU"
    assert manifest.targets[CUDA].unproven == "needs an NVIDIA GPU"
    assert seen == [FP32, CUDA]


def test_an_artifact_that_departs_is_no_proof(builder: Builder) -> None:
    def wrong(_target: Target, path: Path) -> Run:
        right = onnx_runner(path)

        def run(inputs: Tensors) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
            return {name: -value for name, value in right(inputs).items()}

        return run

    _, proofs = prove_version(version(builder), builder.store, GPU_HOST, wrong, lambda _target: None)
    assert not any(proof.ok for proof in proofs)
    assert all("cosine" in " ".join(proof.problems) for proof in proofs)


def test_an_artifact_that_cannot_be_opened_is_told(builder: Builder) -> None:
    def refuse(target: Target, _path: Path) -> Run:
        raise TargetError(f"{target} cannot be opened")

    _, proofs = prove_version(version(builder), builder.store, GPU_HOST, refuse, lambda _target: None)
    assert proofs[1].problems == (f"{CUDA} cannot be opened",)


def test_what_is_attested_counts_as_proven_from_the_next_version_on(builder: Builder, signer: Signer) -> None:
    manifest, proofs = prove_version(version(builder), builder.store, GPU_HOST, run_on_cpu, lambda _target: None)
    proof = next(proof for proof in proofs if proof.target == CUDA)
    assert proof.ok
    name = attest_proof(builder.store, manifest, proof, GPU_HOST, signer)
    assert name.startswith(f"attestations/{manifest.files[proof.filename].sha256}/")
    stranger = build(builder, GRAPH)
    assert not stranger.built
    trusting = build(replace(builder, trusted=signer.public_key), GRAPH)
    assert trusting.built
    assert trusting.made == ("publish 2",)
    assert trusting.manifest is not None
    assert trusting.manifest.targets[CUDA].proven
    assert trusting.manifest.targets[CUDA].parity == proof.parity
    assert not build(replace(builder, trusted=signer.public_key), GRAPH).built


def test_an_attestation_of_a_stranger_proves_nothing(builder: Builder, tmp_path: Path) -> None:
    manifest, proofs = prove_version(version(builder), builder.store, GPU_HOST, run_on_cpu, lambda _target: None)
    stranger = read_signer(generate_key(tmp_path / "other").private)
    attest_proof(builder.store, manifest, proofs[1], GPU_HOST, stranger)
    other = read_signer(generate_key(tmp_path / "third").private)
    observed = replace(builder, trusted=other.public_key).observe(GRAPH)
    unproven = [made.unproven for all_made in observed.artifacts.values() for made in all_made if made.target == CUDA]
    assert unproven == ["needs an NVIDIA GPU"]


def test_what_cannot_be_proven_by_is_told(builder: Builder, tmp_path: Path) -> None:
    copy = tmp_path / "repository" / GRAPH / "1"
    shutil.copytree(version(builder), copy)
    elsewhere = builder_of(tmp_path / "repository")
    with pytest.raises(SourceError, match="does not hold the export"):
        prove_version(copy, elsewhere.store, GPU_HOST, run_on_cpu, lambda _target: None)
    (copy / f"{FP32}.onnx").chmod(0o644)
    (copy / f"{FP32}.onnx").write_bytes(b"other")
    with pytest.raises(SourceError, match=rf"was altered after it was published: {FP32}\.onnx"):
        prove_version(copy, builder.store, GPU_HOST, run_on_cpu, lambda _target: None)
    (copy / "manifest.json").unlink()
    with pytest.raises(SourceError, match="has no manifest"):
        prove_version(copy, builder.store, GPU_HOST, run_on_cpu, lambda _target: None)
