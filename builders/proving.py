"""Proves what a published version holds, on this machine: every target that can run here, against its reference set.

For `tritonfleet verify` on a machine with the GPU that an engine is for. The version is never changed: a signed
attestation goes into the artifact store, and the next version that is published from there counts as proven.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from builders.artifacts import Artifact, toolchain_id
from builders.digests import data_digest
from builders.errors import MachineError, SourceError, TargetError
from builders.manifest import Manifest, ManifestTarget, Parity, altered_files, parse_parity, read_manifest
from builders.parity import Run, compare
from builders.plan import Cached, ExportStep, ObservedPackage, plan_export, target_key
from builders.reference import load_reference
from builders.selection import parse_target
from builders.spec import Tolerance
from builders.store.artifacts import ArtifactStore
from builders.supply_chain.attestation import Attestation, attest, verify_attestation
from builders.supply_chain.keys import PublicKey, Signer
from builders.targets import Host, Target, why_not_run_here

Runner = Callable[[Target, Path], Run]
"""Returns what runs the artifact of a target at a path. Raises TargetError where it cannot be opened.

MachineError where this machine is why: the target is not run here then."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of one target: `skipped` is why it was not run here, `problems` what is wrong where it was."""

    target: str
    filename: str
    parity: Parity | None = None
    problems: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was run here and is within tolerance."""
        return self.parity is not None and not self.problems


def prove_version(
    version: Path, store: ArtifactStore, host: Host, runner: Runner, report: Callable[[str], None]
) -> tuple[Manifest, tuple[Proof, ...]]:
    """Run what can run here of the version in the folder `version`; return its manifest and what came of each target.

    Raises SourceError where it has no manifest, was altered, or its reference set is not in the store.
    """
    manifest = read_manifest(version)
    if manifest is None:
        raise SourceError(f"{version} has no manifest that can be read; there is nothing to prove it by")
    altered = altered_files(version, manifest)
    if altered:
        raise SourceError(f"{version} was altered after it was published: {', '.join(altered)}; publish a new version")
    with TemporaryDirectory(prefix="tritonfleet-verify-") as name:
        references = _references(manifest, store, Path(name))
        proofs = []
        for target, entry in sorted(manifest.targets.items()):
            report(target)
            proofs.append(_prove(version, target, entry, references, (host, runner)))
    return manifest, tuple(proofs)


def _references(manifest: Manifest, store: ArtifactStore, folder: Path) -> Path:
    """Fetch the reference sets of the export that the version was made from."""
    key, made = manifest.export.get("key", ""), manifest.export.get("id", "")
    if not manifest.targets:
        return folder
    export = next((artifact for artifact in store.find(key) if artifact.id == made), None) if key else None
    if export is None:
        raise SourceError(
            f"the artifact store does not hold the export that {manifest.package} {manifest.version} was made from, "
            "with the answers to prove it by; give the store that it was published from with --store"
        )
    store.fetch(export, folder, [file for file in export.files if file.endswith(".npz")])
    return folder


def _prove(version: Path, name: str, entry: ManifestTarget, references: Path, here: tuple[Host, Runner]) -> Proof:
    host, runner = here
    target = parse_target(name)
    if target is None:
        return Proof(name, entry.filename, skipped="is no target that this release of Tritonfleet knows")
    lacks = why_not_run_here(target, host)
    if lacks is not None:
        return Proof(name, entry.filename, skipped=lacks)
    cases = load_reference(references / f"{entry.form}.npz")
    try:
        run = runner(target, version / entry.filename)
        parity, problems = compare(run, cases, Tolerance.model_validate(dict(entry.tolerance)))
    except MachineError as exc:
        return Proof(name, entry.filename, skipped=str(exc))
    except TargetError as exc:
        return Proof(name, entry.filename, problems=(str(exc),))
    return Proof(name, entry.filename, parity, problems)


def attest_proof(store: ArtifactStore, manifest: Manifest, proof: Proof, host: Host, signer: Signer) -> str:
    """Put a signed attestation of `proof` into the store; return the name it has there.

    The name says who states what: an equal proof has it already, another one does not stand in the way, and neither
    does something under the name that is not this statement by this signer. Raises ValueError where `proof` is none.
    """
    if proof.parity is None or not proof.ok:
        raise ValueError(f"{proof.target} is not proven: there is nothing to attest")
    digest, entry = manifest.files[proof.filename].sha256, manifest.targets[proof.target]
    statement = {
        "package": manifest.package,
        "version": manifest.version,
        "target": proof.target,
        "form": entry.form,
        "tolerance": dict(entry.tolerance),
        "export": dict(manifest.export),
        "parity": asdict(proof.parity),
        "host": {"cpu": host.cpu, "gpus": [asdict(gpu) for gpu in host.gpus], "tools": dict(host.distributions)},
    }
    stated = data_digest(statement)

    def stands(there: bytes) -> bool:
        found = verify_attestation(there, signer.public_key, subject_digest=digest)
        return isinstance(found, Attestation) and data_digest(found.statement) == stated

    name = f"parity-{signer.fingerprint[:16]}-{stated[:16]}.json"
    store.add_attestation(digest, name, attest(digest, statement, signer), stands)
    return f"attestations/{digest}/{name}"


def with_attestations(
    observed: ObservedPackage, store: ArtifactStore, trusted: PublicKey
) -> dict[str, tuple[Artifact, ...]]:
    """Return the package's artifacts; those that were unproven when they were made, and are attested by now, as proven.

    The digest of a file alone is no proof: a graph for the CPU and one for CUDA can be equal byte for byte. What is
    attested must be the same target, held to the tolerance that is asked for now, against the same export's answers.
    """
    artifacts = dict(observed.artifacts)
    export = plan_export(observed)
    if export is None:
        return artifacts
    for spec in observed.spec.graph_targets:
        key = target_key(observed, spec, export)
        tolerance = observed.spec.tolerance_of(spec).model_dump(exclude_none=True)
        asked = _Asked(str(spec.target), tolerance, _identity(export))
        artifacts[key] = tuple(_attested(each, asked, store, trusted) for each in artifacts.get(key, ()))
    return artifacts


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a statement must be about to prove a target's artifact."""

    target: str
    tolerance: Mapping[str, float]
    export: Mapping[str, str]

    def parity(self, statement: Mapping[str, Any]) -> Parity | None:
        """Return the parity that a signed statement proves; None where it is about something else, or proves nothing.

        A target's name may have a version of TensorRT behind it, which the digest of the engine covers.
        """
        target = str(statement.get("target")).partition("@")[0]
        if (target, statement.get("tolerance"), statement.get("export")) != (self.target, self.tolerance, self.export):
            return None
        try:
            return parse_parity(statement.get("parity"))
        except (TypeError, KeyError, AttributeError):
            return None


def _identity(export: ExportStep) -> dict[str, str]:
    """Return key and id of the export as the manifest of a version made from it has them."""
    made = export.state.artifact.id if isinstance(export.state, Cached) else toolchain_id(export.toolchain)
    return {"key": export.key, "id": made}


def _attested(artifact: Artifact, asked: _Asked, store: ArtifactStore, trusted: PublicKey) -> Artifact:
    if not artifact.unproven:
        return artifact
    for name, entry in sorted(artifact.files.items()):
        if not name.endswith((".onnx", ".engine")):
            continue
        for content in store.attestations(entry.sha256).values():
            found = verify_attestation(content, trusted, subject_digest=entry.sha256)
            parity = asked.parity(found.statement) if isinstance(found, Attestation) else None
            if parity is not None:
                return replace(artifact, unproven="", parity=parity)
    return artifact
