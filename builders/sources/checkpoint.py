"""A sentence encoder's checkpoint folder (Hugging Face and sentence-transformers layout), read without PyTorch.

Says what the exporter must know: how long a sentence may be, how token vectors become one, whether that is normalised.
What cannot be honoured is refused here, before minutes are spent on an export.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from builders.errors import SourceError, read_text

TOKENIZER = "tokenizer.json"

_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"
_MEAN_POOLING = "pooling_mode_mean_tokens"


@dataclass(frozen=True, slots=True)
class EncoderCheckpoint:
    """One checkpoint. `max_seq_length` counts tokens, the special ones included."""

    path: Path
    max_seq_length: int
    dimension: int
    normalize: bool


def read_checkpoint(path: Path) -> EncoderCheckpoint:
    """Return what `path` holds. Raises SourceError where something is missing or is not supported.

    `max_seq_length` is the one of `sentence_bert_config.json`, which is what sentence-transformers truncates to; the
    truncation and padding inside `tokenizer.json` are what the tokenizer was last saved with and are not the model's.
    """
    require_safetensors(path)
    pooling = read_json(path / "1_Pooling" / "config.json")
    modes = sorted(name for name, value in pooling.items() if name.startswith("pooling_mode_") and value is True)
    if modes != [_MEAN_POOLING]:
        raise SourceError(f"{path}: pooling is {', '.join(modes) or 'not stated'}; only mean pooling is supported")
    modules = [module.get("type", "") for module in _json_list(path / "modules.json")]
    return EncoderCheckpoint(
        path=path,
        max_seq_length=_integer(read_json(path / "sentence_bert_config.json"), "max_seq_length", path),
        dimension=_integer(pooling, "word_embedding_dimension", path),
        normalize=any(module.endswith(".Normalize") for module in modules),
    )


def require_safetensors(path: Path) -> None:
    """Raise SourceError where the folder `path` holds no weights as safetensors, in one file or in shards beside it."""
    if (path / _WEIGHTS).is_file():
        return
    if not (path / _SHARDS).is_file():
        raise SourceError(f"{path}: no {_WEIGHTS}; pickled weights are not read, since a pickle runs code")
    shards = read_json(path / _SHARDS).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise SourceError(f"{path / _SHARDS}: names no shard; copy the checkpoint again")
    for name in dict.fromkeys(map(str, shards.values())):
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise SourceError(f"{path / _SHARDS}: {name!r} is no safetensors file of this folder")
        if not (path / name).is_file():
            raise SourceError(f"{path}: no {name}, which {_SHARDS} names; copy the checkpoint again")


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file of a checkpoint. Raises SourceError."""
    data = _parse(path)
    if not isinstance(data, dict):
        raise SourceError(f"{path}: expected a JSON object")
    return data


def _json_list(path: Path) -> list[dict[str, str]]:
    data = _parse(path)
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise SourceError(f"{path}: expected a JSON list of objects")
    return data


def _parse(path: Path) -> object:
    try:
        return json.loads(read_text(path, "part of a checkpoint"))
    except (ValueError, RecursionError) as exc:
        raise SourceError(f"{path}: not JSON: {exc}") from exc


def _integer(data: dict[str, object], key: str, path: Path) -> int:
    value = data.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise SourceError(f"{path}: {key} is {value!r}; expected a positive integer")
    return value
