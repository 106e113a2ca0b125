"""Proves what a published version holds, on this machine: every target that can run here, against its reference set.

For `tritonfleet verify` on a machine with the GPU that an engine is for. The version is never changed: a signed
attestation goes into the artifact store, and the next version that is published from there counts as proven.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from builders.artifacts import Artifact
from builders.errors import SourceError, TargetError
from builders.manifest import Manifest, ManifestTarget, Parity, altered_files, parse_parity, read_manifest
from builders.parity import Run, compare
from builders.reference import load_reference
from builders.selection import parse_target
from builders.spec import Tolerance
from builders.store.artifacts import ArtifactStore
from builders.supply_chain.attestation import Attestation, attest, verify_attestation
from builders.supply_chain.keys import PublicKey, Signer
from builders.targets import Host, Target, why_not_run_here

Runner = Callable[[Target, Path], Run]
"""Returns what runs the artifact of a target at a path. Raises TargetError where it cannot be opened."""


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
    except TargetError as exc:
        return Proof(name, entry.filename, problems=(str(exc),))
    return Proof(name, entry.filename, parity, problems)


def attest_proof(store: ArtifactStore, manifest: Manifest, proof: Proof, host: Host, signer: Signer) -> str:
    """Put a signed attestation of `proof` into the store; return the name it has there."""
    digest = manifest.files[proof.filename].sha256
    statement = {
        "package": manifest.package,
        "version": manifest.version,
        "target": proof.target,
        "parity": None if proof.parity is None else asdict(proof.parity),
        "host": {"cpu": host.cpu, "gpus": [asdict(gpu) for gpu in host.gpus], "tools": dict(host.distributions)},
    }
    name = f"parity-{signer.fingerprint[:16]}.json"
    store.add_attestation(digest, name, attest(digest, statement, signer))
    return f"attestations/{digest}/{name}"


def with_attestations(
    artifacts: Mapping[str, tuple[Artifact, ...]], store: ArtifactStore, trusted: PublicKey
) -> dict[str, tuple[Artifact, ...]]:
    """Return the artifacts; those that were unproven when they were made, and are attested by now, as proven."""
    return {key: tuple(_attested(each, store, trusted) for each in made) for key, made in artifacts.items()}


def _attested(artifact: Artifact, store: ArtifactStore, trusted: PublicKey) -> Artifact:
    if not artifact.unproven:
        return artifact
    for name, entry in sorted(artifact.files.items()):
        if not name.endswith((".onnx", ".engine")):
            continue
        for content in store.attestations(entry.sha256).values():
            found = verify_attestation(content, trusted, subject_digest=entry.sha256)
            if isinstance(found, Attestation):
                return replace(artifact, unproven="", parity=parse_parity(found.statement.get("parity")))
    return artifact
