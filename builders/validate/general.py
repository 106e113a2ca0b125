"""Rules about the model as a whole: its name, backend and platform, versions, instances, cache, tags and parameters."""

import re
from collections.abc import Iterator

from builders.model_config import InstanceGroup, ModelConfig
from builders.validate.paths import path_problem

_RESERVED_IN_NAMES = "/\\"
_PLATFORMS = {
    "tensorrt": ("tensorrt_plan",),
    "onnxruntime": ("onnxruntime_onnx",),
    "pytorch": ("pytorch_libtorch",),
    "tensorflow": ("tensorflow_graphdef", "tensorflow_savedmodel"),
}
"""Backends that know their platform. Triton fills in a platform that is left out, but for tensorflow, which has two."""
_FILENAMES = ("model.plan", "model.onnx", "model.pt", "model.py", "model.graphdef", "model.savedmodel", "model.xml")
"""Values of `default_model_filename` from which Triton finds the backend."""
_TAG = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_MODULE = re.compile(r"[A-Za-z0-9_-]+\.py")
_FORCE_CPU = "FORCE_CPU_ONLY_INPUT_TENSORS"


def problems(config: ModelConfig, package: str) -> Iterator[str]:
    """Yield what is wrong, one sentence each."""
    yield from _naming(config, package)
    yield from _backend(config)
    yield from _model_file(config)
    yield from _versions(config)
    for group in config.instance_groups:
        yield from _instances(group, config)
    if config.response_cache and config.decoupled:
        yield "response_cache cannot be enabled for a decoupled model"
    if config.agents is not None and not any(config.agents):
        yield "model_repository_agents names no agent; leave it out"  # without any, Triton dies of it
    yield from _tags_and_parameters(config)


def _naming(config: ModelConfig, package: str) -> Iterator[str]:
    if config.name and config.name != package:
        yield f"name: \"{config.name}\" differs from the folder's name '{package}'; Triton loads a model by its folder"
    if any(character in package for character in _RESERVED_IN_NAMES):
        yield f"'{package}': a model's name may not contain a slash"
    if config.is_python and not package.isascii():  # Triton's stub runs in the C locale
        yield f"'{package}': the Python backend loads no model whose name is not ASCII"
    if config.max_batch_size < 0:
        yield f"max_batch_size is {config.max_batch_size}; it must be 0 (no batching) or more"


def _backend(config: ModelConfig) -> Iterator[str]:
    backend, platform = config.backend, config.platform
    if backend == "ensemble" or (backend and platform == "ensemble"):
        yield 'an ensemble has platform: "ensemble" and no backend'
        return
    if any(character in backend for character in _RESERVED_IN_NAMES) or backend in (".", ".."):
        yield f"backend '{backend}' must be a plain name"
    if backend in _PLATFORMS and platform not in _PLATFORMS[backend] and (platform or backend == "tensorflow"):
        known = " or ".join(_PLATFORMS[backend])
        yield f"backend '{backend}' does not go with platform '{platform}', only with {known}"
    if not backend and platform and platform != "ensemble" and not any(platform in has for has in _PLATFORMS.values()):
        yield f"platform '{platform}' is unknown; name a backend instead"
    if not backend and not platform and config.default_model_filename not in ("", *_FILENAMES):
        yield f"no backend is named, and default_model_filename '{config.default_model_filename}' does not tell one"
    runtime = config.runtime
    if runtime and not config.is_ensemble:
        if any(character in runtime for character in _RESERVED_IN_NAMES):
            yield f"runtime '{runtime}' must be the name of a backend's library"
        elif config.is_python and runtime != "libtriton_python.so":
            yield f"runtime '{runtime}' is not the Python backend's; leave it out"


def _model_file(config: ModelConfig) -> Iterator[str]:
    name = config.default_model_filename
    if not name or config.is_ensemble:
        return
    problem = path_problem(name)
    if problem is not None:
        yield f"default_model_filename '{name}' {problem}"
    elif config.is_python and not _MODULE.fullmatch(
        name
    ):  # the stub imports it by this name, and the load hangs if not
        yield f"default_model_filename '{name}' must be a Python module's file, such as model.py"


def _versions(config: ModelConfig) -> Iterator[str]:
    policy = config.version_policy
    if policy.choice == "latest" and policy.num_versions == 0:
        yield "version_policy: latest needs num_versions of at least 1"
    if policy.choice == "specific" and not any(version > 0 for version in policy.versions):
        yield "version_policy: specific names no version; a version is a number from 1"


def _instances(group: InstanceGroup, config: ModelConfig) -> Iterator[str]:
    if group.gpus and group.kind in ("KIND_CPU", "KIND_MODEL"):
        yield f"an instance_group of {group.kind} may not name gpus"
    if group.profile and not config.is_tensorrt:
        yield "an instance_group names an optimization profile, which only a TensorRT model has"
    yield from (
        f"instance_group has profile '{name}'; it must be the number of an optimization profile, from 0"
        for name in group.profile
        if config.is_tensorrt and not (name.isascii() and name.isdigit())
    )


def _tags_and_parameters(config: ModelConfig) -> Iterator[str]:
    yield from (
        f"metric_tags: {tag!a} cannot be a label; take a letter, then letters, digits and underscores"  # Triton dies
        for tag in sorted(config.metric_tags)
        if not _TAG.fullmatch(tag)
    )
    if config.is_python and config.parameters.get(_FORCE_CPU, "yes") not in ("yes", "no"):
        yield f'parameter {_FORCE_CPU} must be "yes" or "no"'
