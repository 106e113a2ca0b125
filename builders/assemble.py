"""Puts a version together from artifacts in the store: files, a config for every target, probes, SBOM, manifest.

Everything is in the staging folder until `publish` renames it. Nothing is built here.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.artifacts import Artifact
from builders.config_text import generate_config
from builders.digests import tree_digests
from builders.errors import ConfigError
from builders.exporting import SIGNATURE_SUFFIX
from builders.forms import EVIDENCE_FILENAME, FORMS_FILENAME, Form, load_forms
from builders.making import form_name
from builders.manifest import FileEntry, Manifest, ManifestTarget
from builders.onnx.signature import Signature, graph_versions, load_signature
from builders.overrides import override_layers
from builders.pbtxt import parse_config
from builders.plan import BuildPlan, Cached, ExportStep, ObservedPackage, TargetStep
from builders.probes import PROBES_FILENAME, probes_text
from builders.reference import load_reference
from builders.selection import cc_model_filenames, parse_target
from builders.spec import CONFIG_FILENAME, BuildSpec, CausalLmSource
from builders.store.artifacts import ArtifactStore
from builders.supply_chain.sbom import SBOM_FILENAME, BillOfMaterials, sbom_text
from builders.targets import PRECISIONS
from builders.validate import config_problems

_INTERNAL = (".onnx", ".npz", SIGNATURE_SUFFIX)
"""Files of an export that no version holds: graphs that targets are made from, and the reference set with the golden
answers, which stays behind."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a version is put together from, and where: `content` is the version's folder, `work` a place beside it."""

    observed: ObservedPackage
    plan: BuildPlan
    store: ArtifactStore
    folder: Path
    content: Path
    work: Path


def assemble(assembly: Assembly) -> Manifest:
    """Fill `content` with all of a version but its manifest and signature; return the manifest.

    Raises StoreError, DamagedArtifactError, ConfigError.
    """
    export = assembly.plan.export
    stored = export.state.artifact if export is not None and isinstance(export.state, Cached) else None
    targets: dict[str, ManifestTarget] = {}
    if assembly.plan.targets and stored is not None:
        targets = dict(_add_targets(assembly, stored))
    else:
        if stored is not None:
            assembly.store.fetch(stored, assembly.content)
        shutil.copyfile(assembly.folder / CONFIG_FILENAME, assembly.content / CONFIG_FILENAME)
    manifest = _manifest(assembly, export, targets, {})
    bill = BillOfMaterials(
        package=manifest.package,
        version=manifest.version,
        build_key=manifest.build_key,
        licence=manifest.licence,
        summary=manifest.summary,
        toolchain=_every_tool(assembly, targets),
        sources=manifest.sources,
        files=_entries(assembly.content),
    )
    (assembly.content / SBOM_FILENAME).write_text(sbom_text(bill), encoding="utf-8")
    return _manifest(assembly, export, targets, _entries(assembly.content))


def _add_targets(assembly: Assembly, export: Artifact) -> Iterator[tuple[str, ManifestTarget]]:
    """Fetch every target's files, and write the config that serves it. The default target's is `config.pbtxt`."""
    work = assembly.work
    small = [name for name in export.files if name == FORMS_FILENAME or name.endswith((SIGNATURE_SUFFIX, ".npz"))]
    assembly.store.fetch(export, work, small)
    public = [name for name in export.files if name != FORMS_FILENAME and not name.endswith(_INTERNAL)]
    assembly.store.fetch(export, assembly.content, public)
    forms = load_forms(work)
    included = [(name, step, artifact) for step in assembly.plan.targets for name, artifact in _artifacts(step)]
    default = _default({name: artifact for name, _, artifact in included})
    filenames = {name: _fetch(assembly, name, step, artifact) for name, step, artifact in included}
    for name, step, artifact in included:
        form, filename = forms[form_name(step, tuple(forms))], filenames[name]
        config = CONFIG_FILENAME if name == default else f"config.{name}.pbtxt"
        engines = cc_model_filenames(filenames, name)
        text = target_config(assembly.observed.spec, step, form, filename, work, engines)
        (assembly.content / config).write_text(text, encoding="utf-8")
        if name == default:
            probes = probes_text(text, load_reference(work / form.reference))
            (assembly.content / PROBES_FILENAME).write_text(probes, encoding="utf-8")
        yield (
            name,
            ManifestTarget(
                filename,
                config,
                artifact.toolchain,
                artifact.chosen,
                artifact.parity,
                artifact.unproven,
                {**_options(step), **_graph_options(assembly.content / filename)},
                form.name,
                assembly.observed.spec.tolerance_of(step.spec).model_dump(exclude_none=True),
            ),
        )


def _artifacts(step: TargetStep) -> Iterator[tuple[str, Artifact]]:
    """Name and artifact of everything a target brings: engines of several TensorRT versions stand side by side."""
    if not isinstance(step.state, Cached):
        return
    yield str(step.spec.target), step.state.artifact
    for artifact in step.others:
        yield f"{step.spec.target}@{artifact.toolchain.get('tensorrt', artifact.id[:12])}", artifact


def _default(artifacts: Mapping[str, Artifact]) -> str:
    """Return the target that serves where nothing is known of a server: what runs on any CPU, proven, most precise."""

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        target = parse_target(name)
        precision = PRECISIONS.index(target.precision) if target is not None else len(PRECISIONS)
        on_cpu, in_onnx = name.startswith("onnxruntime-cpu-"), name.startswith("onnxruntime-")
        return not on_cpu, not in_onnx, bool(artifacts[name].unproven), precision

    return min(artifacts, key=rank)  # the first of equals


def _fetch(assembly: Assembly, name: str, step: TargetStep, artifact: Artifact) -> str:
    """Fetch an artifact's files under the target's name; return the one that Triton opens."""
    target = str(step.spec.target)
    fetched = assembly.work / name
    fetched.mkdir()
    assembly.store.fetch(artifact, fetched)
    for path in sorted(fetched.iterdir()):
        path.rename(assembly.content / path.name.replace(target, name, 1))
    return next(
        file.replace(target, name, 1) for file in sorted(artifact.files) if file.endswith((".onnx", ".engine", ".plan"))
    )


def target_config(
    spec: BuildSpec,
    step: TargetStep,
    form: Form,
    filename: str,
    signatures: Path,
    engines: Mapping[str, str] | None = None,
) -> str:
    """Return the config that serves a target's file. `signatures` is the folder of the export's signatures.

    `engines` are files of the same kind by compute capability: a Triton with other GPUs takes the one for those.
    Raises ConfigError where the package's overrides make one that Triton would refuse.
    """
    signature = load_signature(signatures / f"{form.name}{SIGNATURE_SUFFIX}")
    architectures = {"cc_model_filenames": dict(engines)} if engines else {}
    warm = _warm_up(spec, signature)
    text = generate_config(
        spec.name,
        step.spec.runtime,
        filename,
        signature,
        max_batch_size=spec.max_batch_size,
        layers=(form.config, warm, architectures, *override_layers(spec.config, step.spec.target, step.spec.config)),
    )
    where = f"{spec.name}/model.toml"
    problems = config_problems(parse_config(text, path=where), package=spec.name)
    if problems:
        raise ConfigError(where, f"the config generated for {step.spec.target} is not one: {'; '.join(problems)}")
    return text


def _warm_up(spec: BuildSpec, signature: Signature) -> Mapping[str, Any]:
    """Return a warm-up request of the usual shapes, so that the first real request is not the slow one.

    Nothing where the package does not give the shapes of every input, or an input is one value for each request.
    """
    ranges = {shapes.name: shapes.opt for shapes in spec.inputs}
    batched = spec.max_batch_size > 0
    inputs = {}
    for tensor in signature.inputs:
        shape = ranges.get(tensor.name)
        if shape is None or len(shape) != len(tensor.dims) or len(shape) <= batched:
            return {}
        inputs[tensor.name] = {"data_type": tensor.data_type, "dims": shape[batched:], "zero_data": True}
    if not inputs:
        return {}
    batch = min(spec.max_batch_size, *(ranges[name][0] for name in inputs)) if batched else 1
    return {"model_warmup": [{"name": "usual", "batch_size": batch, "inputs": inputs}]}


def _options(step: TargetStep) -> Mapping[str, str]:
    options = {}
    if step.spec.version_compatible:
        options["version_compatible"] = "true"
    if step.spec.hardware_compatible != "none":
        options["hardware_compatible"] = step.spec.hardware_compatible
    return options


def _graph_options(path: Path) -> dict[str, str]:
    """Return what decides whether an ONNX Runtime can open the file: opset and IR version; nothing for an engine."""
    if path.suffix != ".onnx":
        return {}
    ir_version, opset = graph_versions(path)
    return {"ir_version": str(ir_version), "opset": str(opset)}


def _manifest(
    assembly: Assembly,
    export: ExportStep | None,
    targets: Mapping[str, ManifestTarget],
    files: Mapping[str, FileEntry],
) -> Manifest:
    spec, plan = assembly.observed.spec, assembly.plan
    return Manifest(
        package=spec.name,
        version=plan.version,
        build_key=plan.build_key,
        licence=spec.licence,
        command=f"tritonfleet build {spec.name}",
        summary=spec.summary,
        toolchain={name: ", ".join(versions) for name, versions in _every_tool(assembly, targets).items()},
        sources=assembly.observed.sources,
        files=files,
        targets=targets,
        missing=plan.missing,
        export=_identity(export),
        unproven=_unproven(spec, assembly.content),
    )


def _every_tool(assembly: Assembly, targets: Mapping[str, ManifestTarget]) -> dict[str, tuple[str, ...]]:
    """Return every version of every tool: engines of several TensorRT versions stand side by side."""
    export = assembly.plan.export
    chains = [target.toolchain for target in targets.values()]
    if export is not None and isinstance(export.state, Cached):
        chains.append(export.state.artifact.toolchain)
    names = sorted({name for chain in chains for name in chain})
    return {name: tuple(sorted({chain[name] for chain in chains if name in chain})) for name in names}


def _unproven(spec: BuildSpec, content: Path) -> str:
    """Return why a causal language model could not be proven, as its export says; empty for any other source.

    A stage may bring a file of the same name, which says nothing of proofs.
    """
    if not isinstance(spec.source, CausalLmSource):
        return ""
    return str(json.loads((content / EVIDENCE_FILENAME).read_text(encoding="utf-8"))["unproven"])


def _identity(export: ExportStep | None) -> dict[str, str]:
    if export is None or not isinstance(export.state, Cached):
        return {}
    return {"key": export.key, "id": export.state.artifact.id}


def _entries(content: Path) -> dict[str, FileEntry]:
    return {name: FileEntry(digest, (content / name).stat().st_size) for name, digest in tree_digests(content).items()}
