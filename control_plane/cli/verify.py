"""`tritonfleet verify`: proves on this machine what a version holds, and attests it for those that cannot.

An engine that was built without its GPU is unproven, and is loaded nowhere by itself. On a machine with that GPU this
command runs it against the source's own answers.
"""

import os
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from builders.errors import SourceError
from builders.host import observe_host
from builders.manifest import version_numbers
from builders.pipeline import builder_of
from builders.proving import Proof, attest_proof, prove_version
from builders.supply_chain.keys import signer_from_environment
from control_plane.adapters.engine_runner import run_target
from control_plane.cli import output
from control_plane.cli.build import Repository, Store, Versioned
from control_plane.cli.completion import DEFAULT_REPOSITORY


def command(
    model: Versioned,
    repository: Repository = DEFAULT_REPOSITORY,
    store: Store = None,
    as_json: output.AsJson = False,
) -> None:
    """Prove a version's targets on this machine, against the answers of their source.

    Nothing of the version changes. With a signing key in TRITONFLEET_SIGNING_KEY, each proof becomes a signed
    attestation in the artifact store: the next version published with TRITONFLEET_PUBLIC_KEY set to its public key
    counts it as proven. Ends with 1 where a target departs from its source.

    Example: tritonfleet verify sentence_encoder
    """
    host, builder = observe_host(), builder_of(repository, store)
    version = _version(repository, model)
    signer = signer_from_environment(os.environ)
    with output.Spinner("reading the version") as spinner:
        manifest, proofs = prove_version(
            version, builder.store, host, run_target, lambda target: spinner.update(f"proving {target}")
        )
        attested = {}
        if signer is not None:
            attested = {
                proof.target: attest_proof(builder.store, manifest, proof, host, signer) for proof in proofs if proof.ok
            }
    if as_json:
        output.print_json([_as_data(proof, attested.get(proof.target)) for proof in proofs])
    elif proofs:
        headings = ["target", "", ">lowest cosine", ">largest error", ">cases", "attestation"]
        output.show(output.table(headings, [_row(proof, attested.get(proof.target, "")) for proof in proofs]))
    else:
        output.show(f"{model} has no targets: its files serve on every device")
    failed = [proof for proof in proofs if proof.problems]
    for proof in failed:
        output.print_error(f"{proof.target} departs from its source", proof.problems)
    if failed:
        raise typer.Exit(1)


def _version(repository: Path, model: str) -> Path:
    name, _, number = model.partition(":")
    try:
        versions = version_numbers(repository / name)
    except OSError as exc:
        raise SourceError(f"{repository} has no package {name}") from exc
    if not versions:
        raise SourceError(f"{name} has no version yet; make one: tritonfleet build {name}")
    if number and (not number.isdecimal() or int(number) not in versions):
        raise SourceError(f"{name} has no version {number}; it has: {', '.join(map(str, versions))}")
    return repository / name / (number or str(versions[-1]))


def _row(proof: Proof, attested: str) -> tuple[str | Text, ...]:
    if proof.skipped:
        return (proof.target, Text(f"not run: {proof.skipped}", "yellow"), "", "", "", "")
    if proof.parity is None:
        return (proof.target, Text("failed", "red"), "", "", "", "")
    word = Text("failed", "red") if proof.problems else Text("proven", "green")
    parity = proof.parity
    figures = (f"{parity.min_cosine:.6f}", f"{parity.max_abs_error:.1e}", str(parity.cases))
    return (proof.target, word, *figures, attested)


def _as_data(proof: Proof, attested: str | None) -> dict[str, Any]:
    return {
        "target": proof.target,
        "proven": proof.ok,
        "skipped": proof.skipped,
        "problems": list(proof.problems),
        "min_cosine": None if proof.parity is None else proof.parity.min_cosine,
        "max_abs_error": None if proof.parity is None else proof.parity.max_abs_error,
        "attestation": attested,
    }
