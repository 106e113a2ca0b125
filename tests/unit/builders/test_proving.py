"""Proving a published version: what can run here is run against the source's answers, and attested for the others."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.errors import MachineError, SourceError, TargetError
from builders.host import observe_host
from builders.manifest import Manifest
from builders.parity import Run, onnx_runner
from builders.pipeline import Builder, build, builder_of
from builders.proving import Proof, attest_proof, prove_version
from builders.reference import Tensors
from builders.supply_chain.attestation import Attestation, attest, verify_attestation
from builders.supply_chain.keys import PublicKey, Signer, generate_key, read_signer
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


def proven(builder: Builder) -> tuple[Manifest, Proof]:
    """Return the manifest and the proof of the target that needs a GPU."""
    manifest, proofs = prove_version(version(builder), builder.store, GPU_HOST, run_on_cpu, lambda _target: None)
    return manifest, next(proof for proof in proofs if proof.target == CUDA)


def why_unproven(builder: Builder, trusted: PublicKey) -> str:
    """Return why the artifact that needs a GPU is unproven to whom trusts this key; "" where it is proven."""
    observed = replace(builder, trusted=trusted).observe(GRAPH)
    (cuda,) = [made for all_made in observed.artifacts.values() for made in all_made if made.target == CUDA]
    assert cuda.unproven or cuda.parity is not None
    return cuda.unproven


def signed_statement(content: bytes, signer: Signer) -> Mapping[str, Any]:
    found = verify_attestation(content, signer.public_key)
    assert isinstance(found, Attestation)
    return found.statement


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


def test_a_busy_gpu_is_no_departure(builder: Builder) -> None:
    def busy(_target: Target, _path: Path) -> Run:
        raise MachineError("the GPU has no memory left")

    _, proofs = prove_version(version(builder), builder.store, GPU_HOST, busy, lambda _target: None)
    assert [(proof.problems, proof.skipped) for proof in proofs] == [((), "the GPU has no memory left")] * len(proofs)


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
    assert why_unproven(builder, other.public_key) == "needs an NVIDIA GPU"


def other_target(manifest: Manifest, proof: Proof) -> tuple[Manifest, Proof]:
    """One of the CPU's target, whose file could be the same byte for byte."""
    return manifest, replace(proof, target=FP32)


def other_tolerance(manifest: Manifest, proof: Proof) -> tuple[Manifest, Proof]:
    lax = replace(manifest.targets[CUDA], tolerance={"min_cosine": 0.1})
    return replace(manifest, targets={**manifest.targets, CUDA: lax}), proof


def other_export(manifest: Manifest, proof: Proof) -> tuple[Manifest, Proof]:
    return replace(manifest, export={**manifest.export, "id": "ab" * 32}), proof


@pytest.mark.parametrize("change", [other_target, other_tolerance, other_export])
def test_a_proof_of_something_else_with_equal_bytes_proves_nothing(
    builder: Builder, tmp_path: Path, change: Callable[[Manifest, Proof], tuple[Manifest, Proof]]
) -> None:
    signer = read_signer(generate_key(tmp_path).private)
    manifest, proof = proven(builder)
    changed, about = change(manifest, proof)
    attest_proof(builder.store, changed, about, GPU_HOST, signer)
    assert why_unproven(builder, signer.public_key) == "needs an NVIDIA GPU"
    attest_proof(builder.store, manifest, proof, GPU_HOST, signer)
    assert why_unproven(builder, signer.public_key) == ""


@pytest.mark.parametrize("parity", [None, {}, 1.0, {"cases": 1, "items": 1, "outputs": None}])
def test_a_statement_without_parity_proves_nothing(builder: Builder, tmp_path: Path, parity: object) -> None:
    signer = read_signer(generate_key(tmp_path).private)
    manifest, proof = proven(builder)
    name = attest_proof(builder.store, manifest, proof, GPU_HOST, signer)
    content = builder.store.objects.read(name)
    assert content is not None
    assert why_unproven(builder, signer.public_key) == ""
    statement = {**signed_statement(content, signer), "parity": parity}
    builder.store.objects.replace(name, attest(manifest.files[proof.filename].sha256, statement, signer))
    assert why_unproven(builder, signer.public_key) == "needs an NVIDIA GPU"


def test_what_is_not_proven_is_not_attested(builder: Builder, signer: Signer) -> None:
    manifest, proof = proven(builder)
    for no_proof in (replace(proof, parity=None), replace(proof, problems=("cosine",)), Proof(CUDA, proof.filename)):
        with pytest.raises(ValueError, match=f"{CUDA} is not proven"):
            attest_proof(builder.store, manifest, no_proof, GPU_HOST, signer)


def test_equal_proofs_share_a_name_and_another_gets_its_own(builder: Builder, signer: Signer) -> None:
    manifest, proof = proven(builder)
    name = attest_proof(builder.store, manifest, proof, GPU_HOST, signer)
    first = builder.store.objects.read(name)
    assert attest_proof(builder.store, manifest, proof, GPU_HOST, signer) == name
    assert builder.store.objects.read(name) == first
    elsewhere = replace(GPU_HOST, cpu="another CPU")
    other = attest_proof(builder.store, manifest, proof, elsewhere, signer)
    assert other != name
    content = builder.store.objects.read(other)
    assert content is not None
    assert signed_statement(content, signer)["host"]["cpu"] == "another CPU"


def test_what_is_no_such_statement_gives_way_to_the_proof(builder: Builder, signer: Signer) -> None:
    manifest, proof = proven(builder)
    name = attest_proof(builder.store, manifest, proof, GPU_HOST, signer)
    digest = manifest.files[proof.filename].sha256
    for there in (b"garbage", attest(digest, {"target": CUDA}, signer), attest("ab" * 32, {}, signer)):
        builder.store.objects.replace(name, there)
        assert attest_proof(builder.store, manifest, proof, GPU_HOST, signer) == name
        content = builder.store.objects.read(name)
        assert content is not None
        assert signed_statement(content, signer)["parity"] is not None


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
