"""Packages that are built in a moment: an ONNX file, an ensemble, and a stage with a file out of a distribution.

The file comes as users get models: inside an installed Python distribution, here a folder for `PYTHONPATH` with what an
installer writes (a `.dist-info` beside the files). Nothing is installed into the environment that runs the tests.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ENSEMBLE = "tiny_ensemble"
GRAPH = "tiny_graph"
FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"
WIDTH = 8

_GRAPH_SPEC = """\
name = "{name}"
summary = "One layer"
licence = "Apache-2.0"
[source]
kind = "onnx"
file = {{ path = "layer.onnx" }}
[measure]
batch_sizes = [1, 4]
threads = 1
seconds = 0.01
[config]
max_batch_size = 8
"""
PLAIN = """\
[[targets]]
runtime = "onnxruntime"
device = "cpu"
precision = "fp32"
candidates = ["plain", "merged"]
"""
"""The target FP32, required."""
QUANTIZED = """\
[[targets]]
runtime = "onnxruntime"
device = "cpu"
precision = "int8"
required = false
candidates = ["dynamic"]
tolerance = { min_cosine = 0.5 }
"""
"""The target INT8, optional."""
REFUSED = QUANTIZED.replace("min_cosine = 0.5", "max_abs_error = 1e-9")
"""The target INT8, optional, which no candidate can come close enough to."""
_ENSEMBLE_SPEC = f'name = "{ENSEMBLE}"\nsummary = "s"\nlicence = "Apache-2.0"\n[source]\nkind = "ensemble"\n'
_ENSEMBLE_CONFIG = f"""\
name: "{ENSEMBLE}"
platform: "ensemble"
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [ {{ model_name: "a" model_version: -1
  input_map {{ key: "X" value: "X" }} output_map {{ key: "Y" value: "Y" }} }} ] }}
"""


def write_graph(repository: Path, *targets: str, name: str = GRAPH, factor: float = 1.0) -> Path:
    """Write a package of an ONNX file, its `targets` as in PLAIN and QUANTIZED (those two if none are given).

    `factor` scales the weights: another source. Returns the package's folder.
    """
    folder = _package(repository, name, _GRAPH_SPEC.format(name=name) + "".join(targets or (PLAIN, QUANTIZED)))
    write_layer(folder / "layer.onnx", factor)
    return folder


def write_layer(path: Path, factor: float = 1.0, size: Sequence[int | str] = ("batch", WIDTH)) -> None:
    """Write y = relu(x W + b), x and y of `size`."""
    rng = np.random.default_rng(5)
    weights = {"w": rng.normal(0, factor, (WIDTH, WIDTH)), "b": rng.normal(0, 0.1, WIDTH)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
            helper.make_node("Add", ["product", "b"], ["sum"], "bias"),
            helper.make_node("Relu", ["sum"], ["y"], "activation"),
        ],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, size)],
        [numpy_helper.from_array(value.astype(np.float32), tensor) for tensor, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


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


def _package(repository: Path, name: str, spec: str, config: str | None = None) -> Path:
    folder = repository / name
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(spec)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder
