"""Checkpoint folders: what is refused before anything is loaded."""

import json
from pathlib import Path

import pytest

from builders.errors import SourceError
from builders.sources.checkpoint import read_json, require_safetensors

INDEX = "model.safetensors.index.json"


def test_pickled_weights_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(SourceError, match=r"no model\.safetensors; pickled weights are not read"):
        require_safetensors(tmp_path)


def test_shards_are_weights(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(SourceError, match=r"no two\.safetensors, which model\.safetensors\.index\.json names"):
        require_safetensors(tmp_path)
    (tmp_path / "two.safetensors").touch()
    require_safetensors(tmp_path)


@pytest.mark.parametrize("shard", ["../one.safetensors", "/etc/passwd", "weights.bin", ["one.safetensors"], 3])
def test_a_shard_is_a_safetensors_file_of_the_folder(tmp_path: Path, shard: object) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(SourceError, match="is no safetensors file of this folder"):
        require_safetensors(tmp_path)


@pytest.mark.parametrize("weights", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_of_nothing(tmp_path: Path, weights: str) -> None:
    (tmp_path / INDEX).write_text(weights)
    with pytest.raises(SourceError, match="names no shard"):
        require_safetensors(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 10_000, "{", ""])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SourceError, match="not JSON"):
        read_json(path)
