"""A tiny encoder as users get models: inside an installed Python distribution, with a package that is built from it.

The distribution is a folder for `PYTHONPATH` with what an installer writes (a `.dist-info` beside the files); nothing
is installed into the environment that runs the tests.
"""

import json
from pathlib import Path

from tests.tiny_encoder import DIMENSION, save_tiny_encoder

DISTRIBUTION = "tiny-encoder"
ENCODER = "tiny_encoder"
ENSEMBLE = "tiny_ensemble"

_SPEC = f"""\
name = "{ENCODER}"
summary = "A BERT with random weights"
licence = "Apache-2.0"
[source]
kind = "huggingface_encoder"
checkpoint = {{ distribution = "{DISTRIBUTION}", path = "tiny_encoder/model" }}
[source.parity]
min_cosine = 0.9999
"""
_CONFIG = f"""\
name: "{ENCODER}"
backend: "onnxruntime"
max_batch_size: 8
input [
  {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "token_count" data_type: TYPE_INT32 dims: [ 1 ] }}
]
batch_input [
  {{ kind: BATCH_ITEM_SHAPE target_name: "input_ids_shape" data_type: TYPE_INT32 source_input: "input_ids" }}
]
output [ {{ name: "sentence_embedding" data_type: TYPE_FP32 dims: [ {DIMENSION} ] }} ]
"""
_ENSEMBLE_SPEC = f'name = "{ENSEMBLE}"\nsummary = "s"\nlicence = "Apache-2.0"\n[source]\nkind = "ensemble"\n'
_ENSEMBLE_CONFIG = f"""\
name: "{ENSEMBLE}"
platform: "ensemble"
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [ {{ model_name: "a" model_version: -1
  input_map {{ key: "X" value: "X" }} output_map {{ key: "Y" value: "Y" }} }} ] }}
"""


def write_distribution(site: Path) -> Path:
    """Write the distribution into `site`, which is made, and return it."""
    save_tiny_encoder(site / "tiny_encoder" / "model")
    _describe(site, DISTRIBUTION)
    return site


def write_encoder(repository: Path) -> Path:
    """Write the package that is built from the distribution; return its folder."""
    folder = _package(repository, ENCODER, _SPEC, _CONFIG)
    lines = [json.dumps({"text": f"w{first} w{first + 7} w3"}) for first in range(8)]
    (folder / "golden.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_ensemble(repository: Path) -> Path:
    """Write a package whose build takes no time: an ensemble; return its folder."""
    return _package(repository, ENSEMBLE, _ENSEMBLE_SPEC, _ENSEMBLE_CONFIG)


def write_large_stage(repository: Path, site: Path, name: str, size: int) -> Path:
    """Write a package of a stage that carries `size` bytes from a distribution in `site`; return its folder."""
    site.mkdir(exist_ok=True)
    _describe(site, name)
    with (site / f"{name}.bin").open("wb") as blob:
        blob.truncate(size)
    spec = (
        f'name = "{name}"\nsummary = "s"\nlicence = "Apache-2.0"\n[source]\nkind = "stage"\n'
        'stage = "ensembles.stages.token_budget:TokenBudget"\n[source.files]\n'
        f'"large.bin" = {{ distribution = "{name}", path = "{name}.bin" }}\n'
    )
    config = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\n'
    return _package(repository, name, spec, config)


def _describe(site: Path, distribution: str) -> None:
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")


def _package(repository: Path, name: str, spec: str, config: str) -> Path:
    folder = repository / name
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(spec)
    (folder / "config.pbtxt").write_text(config)
    return folder
