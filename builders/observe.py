"""Observes a package for `plan`: its spec, the digests of its sources, this machine, the store, what is published.

Reads only, and imports nothing that is slow to import: a plan that finds nothing to do is a matter of a second.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from builders.artifacts import Artifact
from builders.digests import file_digest
from builders.errors import ConfigError
from builders.host import ABSENT, observe_host, version_of
from builders.manifest import altered_files, read_manifest, version_numbers
from builders.pbtxt import parse_config
from builders.plan import ObservedPackage, PublishedVersion, export_key, plan_export, target_key
from builders.sources.catalogue import export_modules, export_tools, module_digest, source_digests
from builders.spec import CONFIG_FILENAME, BuildSpec, read_spec
from builders.store.artifacts import ArtifactStore
from builders.targets import DISTRIBUTIONS, Runtime
from builders.validate import config_problems

if TYPE_CHECKING:
    from builders.supply_chain.keys import PublicKey

_RUNTIME_TOOLS: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxslim"),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx",),
}
"""Whose versions decide what an artifact of the runtime is."""
_EXTRAS = {"onnxruntime": "cpu", "onnxruntime-genai": "generation"}
"""Which of our extras brings a tool that exports need, where it is not `export`."""
_CANDIDATES = (
    "builders.onnx.candidates",
    "builders.onnx.precision",
    "builders.onnx.quantize",
    "builders.onnx.optimise",
)
_RUNTIME_MODULES: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": _CANDIDATES,
    "tensorrt": (*_CANDIDATES, "builders.tensorrt.engine"),
    "tensorrt_rtx": (*_CANDIDATES, "builders.tensorrt.engine"),
}


def observe_package(
    repository: Path, package: str, store: ArtifactStore, trusted: "PublicKey | None" = None
) -> ObservedPackage:
    """Return what a build of `package` would be made from now. Raises SpecError, SourceError, ConfigError, StoreError.

    What an attestation under the key `trusted` proves counts as proven. A config that Triton would refuse without
    saying why is refused here.
    """
    folder = repository / package
    spec = read_spec(folder)
    if not spec.graph_targets:
        check_config(folder / CONFIG_FILENAME, package)
    tools = export_tools(spec)
    runtimes = sorted({target.runtime for target in spec.graph_targets})
    absent = [tool for tool in tools if _version(tool) == ABSENT]
    observed = ObservedPackage(
        spec,
        source_digests(spec, folder),
        recipes={
            "": _recipe(export_modules(spec)),
            **{runtime: _recipe(_RUNTIME_MODULES[runtime]) for runtime in runtimes},
        },
        toolchains={
            "": {tool: _version(tool) for tool in tools},
            **{runtime: _tools(runtime) for runtime in runtimes},
        },
        export_lacks=_told_absent(absent) if absent else None,
        host=_host(),
        versions=tuple(_published(folder)),
        config_differs=_config_differs(folder, spec),
    )
    artifacts = _stored(observed, store)
    if trusted is not None:
        from builders.proving import with_attestations  # noqa: PLC0415 - needs the extra `signing`

        artifacts = with_attestations(replace(observed, artifacts=artifacts), store, trusted)
    return replace(observed, artifacts=artifacts)


def check_config(path: Path, package: str) -> None:
    """Raise ConfigError where `path` is not a config that Triton would load as the model `package`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(str(path), "no such file; a package without a graph writes its ModelConfig itself") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), f"cannot be read: {exc}") from exc
    problems = config_problems(parse_config(text, path=str(path)), package=package)
    if problems:
        raise ConfigError(str(path), "; ".join(problems))


_host = cache(observe_host)
_recipe = cache(module_digest)


def _tools(runtime: Runtime) -> dict[str, str]:
    return {tool: _version(tool) for tool in _RUNTIME_TOOLS[runtime]}


def _distributions(tool: str) -> Iterable[str]:
    """Return the distributions that carry a tool, under whichever name."""
    return next((names for runtime, names in DISTRIBUTIONS.items() if runtime == tool), (tool,))


def _version(tool: str) -> str:
    """Return the version of a tool, whichever distribution carries it; ABSENT where none is installed."""
    versions = (version_of(name) for name in _distributions(tool))
    return next((version for version in versions if version != ABSENT), ABSENT)


def _told_absent(tools: Iterable[str]) -> str:
    extras = sorted({_EXTRAS.get(tool, "export") for tool in tools})
    return f"needs {', '.join(tools)}: pip install 'tritonfleet[{','.join(extras)}]'"


def _stored(observed: ObservedPackage, store: ArtifactStore) -> dict[str, tuple[Artifact, ...]]:
    """Ask the store for the export first: the keys of the targets depend on which one is taken."""
    if not observed.spec.graph_targets:
        key = export_key(observed)
        return dict(store.find_many([key]))
    stored = dict(store.find_many([export_key(observed)]))
    export = plan_export(replace(observed, artifacts=stored))
    if export is None:
        return stored
    return {**stored, **store.find_many([target_key(observed, spec, export) for spec in observed.spec.graph_targets])}


def _published(folder: Path) -> Iterator[PublishedVersion]:
    """Find what is published. Only the newest is held against its digests: no plan looks at another's content."""
    versions = version_numbers(folder)
    for version in versions:
        path = folder / str(version)
        manifest = read_manifest(path)
        if manifest is None:
            yield PublishedVersion(version)
        else:
            altered = altered_files(path, manifest) if version == versions[-1] else ()
            yield PublishedVersion(version, manifest.build_key, manifest.sources, altered)


def _config_differs(folder: Path, spec: BuildSpec) -> bool:
    """Whether a generated config beside the versions is not the newest version's (a build was killed in between)."""
    versions = version_numbers(folder)
    if not spec.graph_targets or not versions:
        return False
    own, newest = folder / CONFIG_FILENAME, folder / str(versions[-1]) / CONFIG_FILENAME
    if not newest.is_file():
        return False
    return not own.is_file() or file_digest(own) != file_digest(newest)
