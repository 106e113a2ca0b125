"""A whole config.pbtxt from an ONNX signature and what was written by hand: same input, same bytes.

Pure. Layers of overrides are laid over what the signature says: first the export's, then the package's, then the
target's own. `pbtxt` knows the fields; `validate` says whether Triton would take the result.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from builders import pbtxt
from builders.errors import ConfigError
from builders.onnx.signature import Signature, TensorSignature

HEADER = "Made by tritonfleet build from model.toml; edit that instead."


def generate_config(
    name: str,
    backend: str,
    filename: str,
    signature: Signature,
    *,
    max_batch_size: int,
    layers: Sequence[Mapping[str, Any]],
) -> str:
    """Return the config.pbtxt text of the model `name`, which serves the file `filename` by `backend`.

    `layers` have ModelConfig's own field names, as `json_format` takes them: scalars and lists replace, messages merge,
    entries of `input` and `output` are matched by name. An input that Triton makes itself (`batch_input`, a sequence's
    controls and states) is left out. The batch dimension is dropped where the config batches, but for a tensor whose
    `dims` a layer gives. Raises ConfigError.
    """
    where = f"{name}/model.toml"
    config: dict[str, Any] = {
        "name": name,
        "backend": backend,
        "max_batch_size": max_batch_size,
        "default_model_filename": filename,
    }
    for layer in layers:
        config = pbtxt.merge(config, layer, where=where)
    batched = _batches(config, where)
    made = set(_made_by_triton(config))
    for field, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        config[field] = _tensors(field, tensors, config.get(field, []), made, batched=batched, where=where)
    return pbtxt.from_json(config, header=HEADER, where=where)


def _batches(config: Mapping[str, Any], where: str) -> bool:
    size = config["max_batch_size"]
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(where, f"max_batch_size is {size!r}; it must be a whole number")
    return size > 0


def _made_by_triton(config: Mapping[str, Any]) -> Iterable[str]:
    """Yield the tensors that no request brings or gets: Triton makes them, or keeps them from request to request."""
    for entry in config.get("batch_input", []):
        yield from _listed(entry.get("target_name"))
    sequence = config.get("sequence_batching", {})
    for entry in sequence.get("control_input", []):
        yield from _listed(entry.get("name"))
    for entry in sequence.get("state", []):
        yield from _listed(entry.get("input_name"))
        yield from _listed(entry.get("output_name"))


def _listed(value: object) -> list[str]:
    """Return the names in `value`; whatever else stands there is refused later, where types are checked."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [entry for entry in entries if isinstance(entry, str)]


def _tensors(
    field: str,
    tensors: Sequence[TensorSignature],
    given: Sequence[Mapping[str, Any]],
    made: set[str],
    *,
    batched: bool,
    where: str,
) -> list[dict[str, Any]]:
    overrides = {entry["name"]: entry for entry in given}
    names = [tensor.name for tensor in tensors]
    for name in overrides:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            meant = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(names)}"
            raise ConfigError(where, f"{field} '{name}' is no {field} of the model{meant}")
    return [
        _entry(field, tensor, overrides.get(tensor.name, {}), batched=batched, where=where)
        for tensor in tensors
        if tensor.name in overrides or tensor.name not in made
    ]


def _entry(
    field: str, tensor: TensorSignature, override: Mapping[str, Any], *, batched: bool, where: str
) -> dict[str, Any]:
    base: dict[str, Any] = {"name": tensor.name, "data_type": tensor.data_type}
    if "dims" not in override:
        base |= _shape(field, tensor, batched=batched, where=where)
    return {**base, **override}


def _shape(field: str, tensor: TensorSignature, *, batched: bool, where: str) -> dict[str, Any]:
    dims = list(tensor.dims)
    if not dims:
        what = "it cannot share a batch" if batched else "Triton carries no scalar"
        raise ConfigError(
            where,
            f"{field} '{tensor.name}' has no dimension, so {what}; export it with one, or set its dims in [config]",
        )
    if not batched:
        return {"dims": dims}
    if dims[0] != -1:
        raise ConfigError(
            where,
            f"{field} '{tensor.name}' has the fixed first dimension {dims[0]}, which the batch needs; export it with a "
            "dynamic one, or set max_batch_size = 0",
        )
    # One value per request has no dimension of its own, and Triton has no empty dims: that is what reshape is for.
    return {"dims": dims[1:]} if dims[1:] else {"dims": [1], "reshape": {"shape": []}}
