"""Probe requests of a version: a few public requests with the answers to expect, in KServe v2's JSON form.

They are made from random inputs, never from the golden set, which stays behind. The control plane sends them to find a
model that is ready and yet broken; `tritonfleet measure` sends them as load.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.model_config import TensorConfig
from builders.pbtxt import parse_config
from builders.reference import Case, Tensors

PROBES_FILENAME = "probes.json"
_PROBES = 2
_MOST_VALUES = 200_000
"""An input or output larger than this is not written out: a probe is sent often."""


def probes_text(config: str, cases: Sequence[Case]) -> str:
    """Return the text of `probes.json`: `[{"inputs": [...], "outputs": [...]}]`, empty where no case suits."""
    parsed = parse_config(config, path="config.pbtxt")
    batched = parsed.max_batch_size > 0
    probes: list[dict[str, list[dict[str, Any] | None]]] = []
    for case in sorted(cases, key=lambda case: case.batch):
        if case.kind in {"random", "range_end"} and len(probes) < _PROBES and _small(case):
            batch = case.batch if batched else None
            inputs = [_tensor(tensor, case.inputs, batch) for tensor in parsed.inputs]
            outputs = [_tensor(tensor, case.outputs, batch) for tensor in parsed.outputs]
            if None not in inputs and None not in outputs:
                probes.append({"inputs": inputs, "outputs": outputs})
    return json.dumps(probes, separators=(",", ":")) + "\n"


def _small(case: Case) -> bool:
    return all(array.size <= _MOST_VALUES for array in (*case.inputs.values(), *case.outputs.values()))


def _tensor(tensor: TensorConfig, arrays: Tensors, batch: int | None) -> dict[str, Any] | None:
    """Return a tensor as KServe v2 has it; None where the case has none of that name or it is no request's.

    `batch` is None where the model does not batch. A ragged input reaches the graph without its batch dimension, all
    requests in one; a single one's is put back.
    """
    array = arrays.get(tensor.name)
    if array is None:
        return None
    ragged = batch == 1 and array.ndim == len(tensor.dims)
    whole: npt.NDArray[Any] = array[np.newaxis] if ragged else array
    if batch is not None and (whole.ndim != len(tensor.dims) + 1 or whole.shape[0] != batch):
        return None
    datatype = tensor.data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
    return {
        "name": tensor.name,
        "datatype": datatype,
        "shape": list(whole.shape),
        "data": _values(whole),
    }


def _values(array: npt.NDArray[Any]) -> list[Any]:
    """Return the elements in row order; FP32 with the nine digits that name it, where Python would write seventeen."""
    if array.dtype == np.float32:
        return [float(f"{value:.9g}") for value in array.ravel()]
    values: list[Any] = array.ravel().tolist()
    return values
