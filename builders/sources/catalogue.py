"""Every kind of source in one place: its files' digests, the tools it needs, our code that reads it, and its export.

`observe` asks for digests and tools without importing anything heavy; `pipeline` calls `export`, which imports the
source's own module only then.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

from builders.digests import data_digest, file_digest, tree_digests
from builders.errors import SourceError
from builders.forms import EVIDENCE_FILENAME, ExportRequest, Form
from builders.onnx.external_data import external_files
from builders.sources.distribution import locate
from builders.sources.stage import stage_files
from builders.spec import (
    CONFIG_FILENAME,
    SPEC_FILENAME,
    BuildSpec,
    CausalLmSource,
    EnsembleSource,
    HuggingFaceSource,
    OnnxSource,
    SklearnTrainingSource,
    StageSource,
    TorchSource,
    TritonModelSource,
)

Report = Callable[[str, int, int], None]
"""What is being done, how many units are done, and of how many (0 and 0 where it cannot be counted)."""

_ONNX = ("onnx", "onnxruntime")
_TORCH = ("torch", "transformers", "onnxscript", *_ONNX)
_CASES = ("builders.sources.cases", "builders.reference", "builders.forms")
_TENSORS = ("builders.sources.tensors", *_CASES)
_PRETRAINED = ("builders.sources.pretrained", "builders.sources.checkpoint", "builders.onnx.torch_export")
_TEXTS = ("builders.sources.texts", *_PRETRAINED, *_CASES)
_MODULE = ("builders.onnx.torch_export", "builders.onnx.torch_module", *_TENSORS)
_ENCODER = (
    "builders.onnx.dense",
    "builders.onnx.dense_module",
    "builders.onnx.packed",
    "builders.onnx.packed_module",
    "builders.onnx.packed_text",
    "builders.onnx.optimise",
)


def export_tools(spec: BuildSpec) -> tuple[str, ...]:
    """Return the distributions whose versions decide what the package's export is."""
    match spec.source:
        case HuggingFaceSource() | TorchSource():
            return _TORCH
        case OnnxSource():
            return _ONNX
        case SklearnTrainingSource():
            return (*_TORCH, "scikit-learn", "skl2onnx")
        case CausalLmSource():
            return ("torch", "transformers", "onnxruntime-genai")
        case TritonModelSource() | StageSource() | EnsembleSource():
            return ()
        case other:
            assert_never(other)


def export_modules(spec: BuildSpec) -> tuple[str, ...]:  # noqa: PLR0911 - one for each kind of source
    """Return our own modules that decide what the package's export is."""
    match spec.source:
        case HuggingFaceSource(kind="huggingface_encoder"):
            return ("builders.sources.encoder", *_ENCODER, *_TEXTS)
        case HuggingFaceSource(kind=kind):
            return (f"builders.sources.{kind.removeprefix('huggingface_')}", *_TEXTS, *_MODULE)
        case OnnxSource():
            return ("builders.sources.onnx_file", "builders.onnx.external_data", *_TENSORS)
        case TorchSource():
            return ("builders.sources.torch_callable", *_MODULE)
        case SklearnTrainingSource():
            return ("builders.sources.sklearn_training", "builders.onnx.packed_module", *_TEXTS)
        case CausalLmSource():
            return ("builders.sources.causal_lm", "builders.sources.causal_lm_child")
        case TritonModelSource() | StageSource() | EnsembleSource():
            return ()
        case other:
            assert_never(other)


def module_digest(modules: tuple[str, ...]) -> str:
    """Return one digest of the sources of `modules`, found without importing them."""
    digests = {}
    for module in modules:
        found = find_spec(module)
        if found is None or found.origin is None:
            raise SourceError(f"the module {module} of this installation is missing; install tritonfleet again")
        digests[module] = file_digest(Path(found.origin))
    return data_digest(digests)


def source_digests(spec: BuildSpec, folder: Path) -> dict[str, str]:
    """Return the digest of everything a version is made from, by name. Raises SourceError."""
    try:
        digests = {"model.toml": data_digest(spec.model_dump(mode="json", exclude={"summary"}))}
        digests.update(_source_digests(spec, folder))
        for name in _own_files(spec):
            digests[name] = file_digest(folder / name)
        if not spec.graph_targets:
            digests[CONFIG_FILENAME] = file_digest(folder / CONFIG_FILENAME)
    except (OSError, ValueError) as exc:  # ValueError: a path that no file can have
        raise SourceError(f"{folder}: a source cannot be read: {exc}") from exc
    return digests


def _own_files(spec: BuildSpec) -> tuple[str, ...]:
    """Return the names of the golden set and the calibration data, where the package has them."""
    return tuple(given.file for given in (spec.golden, spec.calibration) if given is not None)


def _source_digests(spec: BuildSpec, folder: Path) -> Iterator[tuple[str, str]]:
    own = _own_files(spec)
    match spec.source:
        case HuggingFaceSource(checkpoint=checkpoint) | CausalLmSource(checkpoint=checkpoint):
            yield from _named("checkpoint", locate(checkpoint, folder))
        case OnnxSource(file=file):
            yield from _named("file", locate(file, folder))
            yield from _external(locate(file, folder))
        case TorchSource(callable=function):
            yield from _script(folder, function)
            yield from _package_files(folder, own)
        case SklearnTrainingSource(script=script, dataset=dataset, encoder=encoder):
            yield from _script(folder, script)
            yield dataset, file_digest(folder / dataset)
            yield from _package_files(folder, own, locate(encoder, folder))
            yield from _named("encoder", locate(encoder, folder))
        case StageSource(stage=stage, files=files):
            for name, content in stage_files(stage).items():
                yield f"stage/{name}", data_digest({"content": content.decode()})
            for name, origin in sorted(files.items()):
                yield f"files/{name}", file_digest(locate(origin, folder))
        case EnsembleSource() | TritonModelSource():
            return
        case other:
            assert_never(other)


def _named(name: str, path: Path) -> Iterator[tuple[str, str]]:
    if path.is_file():
        yield f"{name}/{path.name}", file_digest(path)
        return
    for relative, digest in tree_digests(path).items():
        yield f"{name}/{relative}", digest


def _external(model: Path) -> Iterator[tuple[str, str]]:
    """External data of an ONNX file, as its graph names them. Of a file that is none the export tells."""
    for name in external_files(model):
        path = model.parent / name
        if path.is_file():
            yield f"file/{name}", file_digest(path)


def _package_files(folder: Path, own: Collection[str], named: Path | None = None) -> Iterator[tuple[str, str]]:
    """Every file of the package that a script could read: all but what we make, and texts for people.

    `own` and `named` are files and a source that the spec names, which have their digests already.
    """
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        first = relative.parts[0]
        ours = first in {SPEC_FILENAME, CONFIG_FILENAME, *own} or first.isdecimal()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        told = named is not None and (path == named or named in path.parents)
        if path.is_file() and not ours and not hidden and not told and path.suffix != ".md":
            yield str(relative), file_digest(path)


def _script(folder: Path, function: str) -> Iterator[tuple[str, str]]:
    name = function.partition(":")[0]
    yield name, file_digest(folder / name)


def export(  # noqa: PLR0911 - one for each kind of source
    spec: BuildSpec, request: ExportRequest, out: Path, report: Report
) -> tuple[Form, ...]:
    """Write the package's export into the empty folder `out`; return its forms, none where it is no graph.

    Raises BuildError.
    """
    folder = request.package
    match spec.source:
        case HuggingFaceSource(kind="huggingface_encoder", checkpoint=checkpoint):
            from builders.sources.encoder import export_encoder  # noqa: PLC0415 - each kind imports its own tools

            return export_encoder(locate(checkpoint, folder), request, out, report)
        case HuggingFaceSource(kind="huggingface_sequence_classifier", checkpoint=checkpoint):
            from builders.sources.sequence_classifier import export_sequence_classifier  # noqa: PLC0415

            return export_sequence_classifier(locate(checkpoint, folder), request, out)
        case HuggingFaceSource(checkpoint=checkpoint):
            from builders.sources.image_classifier import export_image_classifier  # noqa: PLC0415

            return export_image_classifier(locate(checkpoint, folder), request, out)
        case OnnxSource(file=file):
            from builders.sources.onnx_file import export_onnx_file  # noqa: PLC0415

            return export_onnx_file(locate(file, folder), request, out)
        case TorchSource(callable=function):
            from builders.sources.torch_callable import export_torch_callable  # noqa: PLC0415

            script, _, name = function.partition(":")
            return export_torch_callable(folder / script, name, request, out)
        case SklearnTrainingSource(script=function, dataset=dataset, encoder=encoder):
            from builders.sources.sklearn_training import export_sklearn_training  # noqa: PLC0415

            script, _, name = function.partition(":")
            return export_sklearn_training(
                folder / script, name, folder / dataset, locate(encoder, folder), request, out
            )
        case CausalLmSource(checkpoint=checkpoint, precision=precision):
            from builders.sources.causal_lm import write_causal_lm  # noqa: PLC0415

            evidence = write_causal_lm(locate(checkpoint, folder), precision, out, request.golden, report)
            text = json.dumps(asdict(evidence), indent=2, sort_keys=True)
            (out / EVIDENCE_FILENAME).write_text(text + "\n", encoding="utf-8")
            return ()
        case StageSource(stage=stage, files=files):
            write_stage(stage, {name: locate(origin, folder) for name, origin in files.items()}, out)
            return ()
        case EnsembleSource() | TritonModelSource():
            return ()
        case other:
            assert_never(other)


def write_stage(stage: str, files: dict[str, Path], out: Path) -> None:
    """Write a stage's modules, its entry point and its files."""
    for name, content in stage_files(stage).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, origin in files.items():
        (out / name).write_bytes(origin.read_bytes())
