"""Does a configuration fit its engine? Pure; `triton_model` asks before a model counts as loaded."""

from collections.abc import Iterable, Mapping

from .errors import ModelSetupError
from .model_config import ServedModel, TensorConfig
from .signature import EngineSignature, TensorInfo


def check_model(model: ServedModel, signature: EngineSignature) -> None:
    """Check `model` against `signature`.

    Raises:
        ModelSetupError: they do not fit; the text names model, tensor and both values.

    """
    try:
        _check_names("input", model.inputs, signature.inputs, all_needed=True)
        _check_names("output", model.outputs, signature.outputs, all_needed=False)
        for kind, configs, tensors in (
            ("input", model.inputs, signature.inputs),
            ("output", model.outputs, signature.outputs),
        ):
            for config in configs:
                _check_tensor(f"{kind} '{config.name}'", config, tensors[config.name], batched=model.batched)
        if model.batched:
            _check_batch(model, signature)
    except ModelSetupError as exc:
        raise ModelSetupError(f"unable to load model '{model.name}': {exc}") from exc


def _check_names(
    kind: str, configs: Iterable[TensorConfig], tensors: Mapping[str, TensorInfo], *, all_needed: bool
) -> None:
    names = {config.name for config in configs}
    if unknown := names - tensors.keys():
        raise ModelSetupError(f"the engine has no {kind} {_listed(unknown)}, it has {_listed(tensors)}")
    if all_needed and (missing := tensors.keys() - names):
        raise ModelSetupError(f"the engine needs the {kind} {_listed(missing)}, absent from the configuration")


def _check_tensor(label: str, config: TensorConfig, tensor: TensorInfo, *, batched: bool) -> None:
    if tensor.data_type == "TYPE_INVALID":
        raise ModelSetupError(f"{label} is {tensor.engine_type} in the engine, which cannot be carried")
    if config.data_type != tensor.data_type:
        raise ModelSetupError(f"{label}: the configuration has {config.data_type}, the engine {tensor.data_type}")
    if batched and tensor.dims[:1] != (-1,):
        raise ModelSetupError(f"max_batch_size > 0 needs a variable first dimension: {label} has {list(tensor.dims)}")
    full = (-1, *config.dims) if batched else config.dims
    if len(full) != len(tensor.dims) or any(
        have not in {-1, want} for have, want in zip(tensor.dims, full, strict=True)
    ):
        batch = ", the batch dimension first" if batched else ""
        raise ModelSetupError(
            f"{label}: the engine has shape {list(tensor.dims)}, the configuration {list(full)}{batch}"
        )


def _check_batch(model: ServedModel, signature: EngineSignature) -> None:
    """Check that some profile takes the largest batch: all that fail only under load shall fail the load."""
    largest = max((min(part.max[0] for part in profile.values()) for profile in signature.profiles), default=0)
    if model.max_batch_size > largest:
        raise ModelSetupError(
            f"max_batch_size is {model.max_batch_size}, the largest batch of the engine's profiles is {largest}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
