"""Serves any stage in Triton's Python backend: the one place where stages meet `triton_python_backend_utils`.

Copied into a version beside the stage it serves; the version's `model.py` calls `serve` with the stage's class.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import triton_python_backend_utils as pb_utils

from ensembles.stages.base import Rejected, Stage, StageConfigError, Tensor, TensorSpec


class _TritonPythonModel(Protocol):
    def initialize(self, args: dict[str, str]) -> None: ...
    def execute(self, requests: Sequence[Any]) -> list[Any]: ...


def serve(stage_type: type[Stage]) -> type[_TritonPythonModel]:
    """Return the `TritonPythonModel` class that serves `stage_type`."""

    class StageModel:
        """What Triton's Python backend calls."""

        @staticmethod
        def auto_complete_config(config: Any) -> Any:  # noqa: ANN401 - Triton's own untyped object
            """Complete a config that leaves the tensors out with the stage's signature."""
            for spec in stage_type.inputs:
                config.add_input(_entry(spec))
            for spec in stage_type.outputs:
                config.add_output(_entry(spec))
            return config

        def initialize(self, args: dict[str, str]) -> None:
            """Make the stage from the config's parameters and the version's folder."""
            config = json.loads(args["model_config"])
            parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
            folder = Path(args["model_repository"]) / args["model_version"]
            try:
                self._stage = stage_type.create(parameters, folder)
            except StageConfigError as exc:
                raise pb_utils.TritonModelException(str(exc)) from exc

        def execute(self, requests: Sequence[Any]) -> list[Any]:
            """Run the stage over one batch; a rejected request fails alone."""
            tensors = [
                {
                    spec.name: pb_utils.get_input_tensor_by_name(request, spec.name).as_numpy()
                    for spec in stage_type.inputs
                }
                for request in requests
            ]
            return [_response(result) for result in self._stage.run(tensors)]

    return StageModel


def _entry(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "data_type": spec.data_type, "dims": list(spec.dims)}


def _response(result: dict[str, Tensor] | Rejected) -> Any:  # noqa: ANN401 - Triton's own untyped object
    if isinstance(result, Rejected):
        error = pb_utils.TritonError(result.reason, pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(output_tensors=[], error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor) for name, tensor in result.items()])
