"""An imported Python model loads and answers on a real tritonserver as it did before, what lies beside it included."""

import json
from pathlib import Path

from builders.sources.triton_import import import_model
from builders.sources.triton_model import import_plan
from tests.embedded_triton import CONFIG, infer, load
from tests.serving import embedded_server

# Finds its weights as Python models do: by its version's folder, and by what its config is told of the model's.
MODEL = """\
import pathlib
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        own = pathlib.Path(args["model_repository"]) / "weights" / "w.txt"
        beside = pathlib.Path(__file__).resolve().parents[1] / "weights" / "w.txt"
        self.factor = float(own.read_text())
        assert own.read_text() == beside.read_text()

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", self.factor * tensor)]) for tensor in inputs]
"""


def test_a_python_model_finds_its_weights_beside_its_version(tmp_path: Path) -> None:
    source, repository = tmp_path / "source" / "scale", tmp_path / "repository"
    for folder in (source / "1", source / "weights", repository):
        folder.mkdir(parents=True)
    (source / "config.pbtxt").write_text(CONFIG.format(name="scale"))
    (source / "1" / "model.py").write_text(MODEL)
    (source / "weights" / "w.txt").write_text("21")
    for served in (source.parent, import_model(import_plan(source), repository).path.parent):
        with embedded_server(served) as running:
            server = running.server
            assert load(server, "scale") == (200, "")
            status, answer = infer(server, "scale", 2.0)
            assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [42.0])
