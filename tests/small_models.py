"""Small real models for tests against a real tritonserver: Python-backend multipliers and ensembles of them."""

from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from control_plane.state import Server

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 8
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
"""
MODEL = """\
import time
import triton_python_backend_utils as pb_utils

{more}

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", tensor * {factor})]) for tensor in inputs]
"""
ENSEMBLE = """\
name: "{name}"
platform: "ensemble"
max_batch_size: 8
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
ensemble_scheduling {{ step [ {steps} ] }}
"""
STEP = """{{ model_name: "{model}" model_version: -1
  input_map {{ key: "X" value: "{source}" }} output_map {{ key: "Y" value: "{target}" }} }}"""


def multiplier(repository: Path, name: str, factor: float, version: int = 1, more: str = "") -> None:
    """Write a version of a model that multiplies by `factor`; `more` runs when the model is imported."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL.format(factor=np.format_float_positional(factor), more=more))
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name))


def ensemble(repository: Path, name: str, *members: str) -> None:
    """Write an ensemble that applies `members` one after the other."""
    (repository / name / "1").mkdir(parents=True)
    tensors = ["X", *(f"after_{index}" for index in range(1, len(members))), "Y"]
    steps = ", ".join(
        STEP.format(model=member, source=source, target=target)
        for member, source, target in zip(members, tensors, tensors[1:], strict=False)
    )
    (repository / name / "config.pbtxt").write_text(ENSEMBLE.format(name=name, steps=steps))


def answer(server: Server, model: str, value: float = 1.0) -> float:
    """Send one number through `model` and return what comes back. InferenceServerException where nothing does."""
    tensor = triton.InferInput("X", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1), value, np.float32))
    with triton.InferenceServerClient(server.endpoints.grpc) as client:
        result = client.infer(model, [tensor], client_timeout=5.0)
    return float(result.as_numpy("Y")[0, 0])
