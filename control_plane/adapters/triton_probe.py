"""Probes over gRPC: a request as KServe v2's JSON has it becomes tensors, and the answer a verdict.

What is told apart: a model that cannot answer (its Python process died, or it hangs), one that answers wrongly, one
that refuses the request (which it may), and a server that is not there. `triton` gives the channel.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from control_plane.state import Probe, ProbeResult

ABSOLUTE = RELATIVE = 1e-2
"""How far a golden answer's floating-point numbers may be off: other hardware rounds otherwise."""

Array = npt.NDArray[Any]
Untyped = Any
"""tritonclient has no types."""

_DEAD = re.compile(r"stub process.* (?:is not healthy|is unhealthy|has exited)", re.IGNORECASE)
"""In Triton's error where the process of a Python model is gone, an ensemble's member included (measured on 2.51)."""
_NOT_THERE = re.compile(r"request for unknown model|has no available versions|model .* is not ready", re.IGNORECASE)
_DECOUPLED = "decoupled transaction policy"
_SEQUENCE = "correlation ID"
_SEQUENCE_ID = 4_202_611


async def send_probe(client: Untyped, probe: Probe, deadline_s: float, times: int = 1) -> ProbeResult:
    """Send the probe `times` times, each with the deadline, up to the first that tells of something wrong.

    Triton gives requests to a model's idle instances in turn, if not strictly (measured on 2.51): as many requests as
    there are instances nearly always find the one that is dead among others that answer, and the next probe does.
    """
    try:
        tensors = tensors_of(probe.inputs)
    except (ValueError, KeyError, TypeError, OverflowError, InferenceServerException) as error:
        return ProbeResult(probe, unsure=f"its probe cannot be sent: {error}")
    result = ProbeResult(probe)
    for _ in range(max(times, 1)):
        try:
            result = judge_answer(probe, await _ask(client, probe, tensors, deadline_s))
        except InferenceServerException as exc:
            result = judge_error(probe, exc, deadline_s)
        if result.broken or result.unsure:
            break
    return result


async def _ask(client: Untyped, probe: Probe, tensors: list[Untyped], deadline_s: float) -> Untyped:
    """Return the answer, the first one of a decoupled model; None where such a model gives none."""
    request = {"model_name": probe.model, "inputs": tensors, "model_version": str(probe.version)}
    try:
        return await client.infer(**request, client_timeout=deadline_s)
    except InferenceServerException as exc:
        if _DECOUPLED in str(exc.message()):
            return await _first_response(client, request, deadline_s)
        if _SEQUENCE in str(exc.message()):
            alone = {"sequence_id": _SEQUENCE_ID, "sequence_start": True, "sequence_end": True}
            return await client.infer(**request, **alone, client_timeout=deadline_s)
        raise


async def _first_response(client: Untyped, request: Mapping[str, Any], deadline_s: float) -> Untyped:
    async def requests() -> AsyncIterator[Mapping[str, Any]]:
        yield request

    responses = client.stream_infer(requests(), stream_timeout=deadline_s)
    try:
        async for answer, error in responses:
            if error is not None:
                raise error
            return answer
    except grpc.RpcError as exc:
        raise InferenceServerException(msg=exc.details(), status=str(exc.code())) from exc
    finally:
        responses.cancel()
    return None


def tensors_of(inputs: Sequence[Mapping[str, Any]]) -> list[Untyped]:
    """Return tritonclient's tensors. ValueError, KeyError, TypeError or OverflowError where `inputs` are none."""
    return [_tensor(given) for given in inputs]


def _tensor(given: Mapping[str, Any]) -> Untyped:
    shape, datatype = [int(size) for size in given["shape"]], str(given["datatype"])
    tensor = InferInput(str(given["name"]), shape, datatype)
    tensor.set_data_from_numpy(_array(given["data"], datatype, shape))
    return tensor


def _array(data: Sequence[Any], datatype: str, shape: Sequence[int]) -> Array:
    if datatype == "BYTES":
        texts = np.empty(len(data), dtype=np.object_)
        texts[:] = [value if isinstance(value, bytes) else str(value).encode() for value in data]
        return texts.reshape(shape)
    dtype = triton_to_np_dtype(datatype)
    if dtype is None:
        raise ValueError(f"no numpy type for {datatype}")
    return np.array(data, dtype=dtype).reshape(shape)


def judge_answer(probe: Probe, answer: Untyped) -> ProbeResult:
    """Hold an answer against the golden one, if the probe has one."""
    for expected in probe.outputs:
        name = str(expected["name"])
        given = answer.as_numpy(name) if answer is not None else None
        if given is None:
            return ProbeResult(probe, broken=f"its answer to a golden request lacks output '{name}'")
        problem = difference(given, expected)
        if problem:
            return ProbeResult(probe, broken=f"it answers a golden request wrongly: output '{name}' {problem}")
    return ProbeResult(probe)


def difference(given: Array, expected: Mapping[str, Any]) -> str:
    """Say how an output differs from the one expected, as KServe v2's JSON has it; empty where it does not."""
    shape, datatype = [int(size) for size in expected["shape"]], str(expected["datatype"])
    if list(given.shape) != shape:
        return f"has shape {list(given.shape)}, not {shape}"
    wanted = _array(expected["data"], datatype, shape)
    if datatype not in {"FP16", "FP32", "FP64", "BF16"}:
        return "" if np.array_equal(given, wanted) else "differs"
    one, other = given.astype(np.float64), wanted.astype(np.float64)
    close = np.isclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    if close.all():
        return ""
    apart = np.abs(one[~close] - other[~close])
    return f"is off by up to {float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()):.3g}"


def judge_error(probe: Probe, error: InferenceServerException, deadline_s: float) -> ProbeResult:
    """Tell what an error says of the model. One that is the model's own is wrong only where the request is golden."""
    status, message = str(error.status() or ""), str(error.message() or "").strip()
    first = message.splitlines()[0] if message else "no reason"
    if _DEAD.search(message):
        return ProbeResult(probe, broken=first)
    if status.endswith("DEADLINE_EXCEEDED"):
        return ProbeResult(probe, broken=f"it did not answer within {deadline_s:g} s")
    if status.endswith(("UNAVAILABLE", "CANCELLED")) or _NOT_THERE.search(message):
        return ProbeResult(probe, unsure=first)
    if probe.outputs:
        return ProbeResult(probe, broken=f"it refuses a golden request: {first}")
    return ProbeResult(probe)
