"""`tritonfleet infer`: sends one request to a deployed model with an unchanged `tritonclient`, over gRPC or HTTP."""

import json
import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.http
import typer
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from control_plane.cli import completion, output
from control_plane.cli.client import DEFAULT_URL, ControlPlaneClient, Token, Url
from control_plane.errors import PermanentError, ServerUnreachableError

_DEADLINE_S = 60.0
_SHOWN = 6
_NO_ANSWER = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


class Protocol(StrEnum):
    """How to reach Triton."""

    GRPC = "grpc"
    HTTP = "http"


class InferenceFailedError(PermanentError):
    """Triton, or the model, refused the request. `str()` is its own reason."""


def command(
    model: Annotated[str, typer.Argument(help="A model that is deployed.", autocompletion=completion.models)],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, for a model with one string input.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", help="NAME=JSON, or NAME=@FILE; nested lists give the shape.", show_default=False
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Which of Triton's protocols to use.")] = Protocol.GRPC,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: output.AsJson = False,
) -> None:
    """Send one inference request to a model and print its outputs.

    The control plane says which server has it; the request goes straight to that Triton.

    For example:

        tritonfleet infer text_embedding "The cat sat on the mat."

        tritonfleet infer sentence_encoder -i 'input_ids=[[101, 7592, 102]]' -i 'token_count=[[3]]'
    """
    with ControlPlaneClient(url, token) as client:
        endpoints = _endpoints(client, model)
    address = endpoints["grpc"] if protocol is Protocol.GRPC else endpoints["http"]
    try:
        outputs = _infer(protocol, address, model, texts or [], inputs or [])
    except InferenceServerException as exc:
        if exc.status() in _NO_ANSWER:
            raise ServerUnreachableError(f"{model}: the server at {address} does not answer: {exc.message()}") from exc
        raise InferenceFailedError(f"{model} at {address}: {exc.message()}") from exc
    except OSError as exc:
        raise ServerUnreachableError(f"{model}: the server at {address} does not answer: {exc}") from exc
    if as_json:
        output.print_json(
            {
                "model": model,
                "server": endpoints["id"],
                "outputs": [
                    {"name": name, "shape": list(array.shape), "datatype": array.dtype.name, "data": _plain(array)}
                    for name, array in outputs.items()
                ],
            }
        )
        return
    rows = [
        (name, array.dtype.name, "x".join(map(str, array.shape)), _excerpt(array)) for name, array in outputs.items()
    ]
    output.show(output.table(["output", "type", "shape", "values"], rows))


def _endpoints(client: ControlPlaneClient, model: str) -> dict[str, str]:
    """Return id and addresses of a server on which the model is ready."""
    servers = client.get("/v1/servers")["servers"]
    for server in servers:
        if any(row["name"] == model and row["state"] == "READY" for row in server["models"]):
            return {"id": server["id"], **server["endpoints"]}
    ready = sorted({row["name"] for server in servers for row in server["models"] if row["state"] == "READY"})
    raise InferenceFailedError(
        f"model '{model}' is ready on no server; ready are: {', '.join(ready) or 'none'}. "
        f"Deploy it: tritonfleet deploy {model}"
    )


def _infer(
    protocol: Protocol, address: str, model: str, texts: Sequence[str], inputs: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    library = tritonclient.grpc if protocol is Protocol.GRPC else tritonclient.http
    # The HTTP client's own deadline for an answer is 60 s.
    with library.InferenceServerClient(address) as client:
        metadata = (
            client.get_model_metadata(model, as_json=True, client_timeout=_DEADLINE_S)
            if protocol is Protocol.GRPC
            else client.get_model_metadata(model)
        )
        tensors = []
        for name, (datatype, array) in _arrays(metadata["inputs"], texts, inputs).items():
            tensor = library.InferInput(name, list(array.shape), datatype)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        if protocol is Protocol.GRPC:
            result = client.infer(model, tensors, client_timeout=_DEADLINE_S)
        else:
            result = client.infer(model, tensors)
        arrays = {entry["name"]: result.as_numpy(entry["name"]) for entry in metadata["outputs"]}
        return {name: array for name, array in arrays.items() if array is not None}


def _arrays(
    declared: Sequence[dict[str, Any]], texts: Sequence[str], inputs: Sequence[str]
) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """Return `{input: (Triton datatype, array)}` from what the user gave."""
    types = {entry["name"]: entry["datatype"] for entry in declared}
    given: dict[str, Any] = {}
    if texts:
        strings = [name for name, datatype in types.items() if datatype == "BYTES"]
        if len(strings) != 1:
            raise typer.BadParameter(f"texts need a model with one string input; it has {len(strings)}. Use --input.")
        given[strings[0]] = [[text] for text in texts]
    for entry in inputs:
        name, separator, text = entry.partition("=")
        if not separator or name not in types:
            raise typer.BadParameter(f"'{entry}' is not NAME=JSON with NAME one of: {', '.join(sorted(types))}")
        given[name] = _parse(name, text)
    if not given:
        raise typer.BadParameter(f"give texts, or --input for: {', '.join(f'{n} ({t})' for n, t in types.items())}")
    return {name: (types[name], _array(name, value, types[name])) for name, value in given.items()}


def _parse(name: str, text: str) -> object:
    try:
        return json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except OSError as exc:
        raise typer.BadParameter(f"{name}: cannot read {text[1:]}: {exc.strerror}") from exc
    except ValueError as exc:
        raise typer.BadParameter(f"{name}: not JSON: {exc}") from exc


def _array(name: str, value: object, datatype: str) -> npt.NDArray[Any]:
    try:
        if datatype == "BYTES":
            return _strings(value)
        array: npt.NDArray[Any] = np.asarray(value, dtype=triton_to_np_dtype(datatype))
    except (TypeError, ValueError, OverflowError) as exc:
        raise typer.BadParameter(f"{name}: not a regular array of {datatype}: {exc}") from exc
    return array


def _strings(value: object) -> npt.NDArray[Any]:
    """Return `value` as bytes; what the shell gave in another encoding than UTF-8 goes out as it came."""
    array = np.asarray(value, dtype=object)
    flat = array.reshape(-1)
    if not all(isinstance(item, str) for item in flat):
        raise TypeError("strings are asked for, nested evenly")
    flat[:] = [item.encode(errors="surrogateescape") for item in flat]
    return flat.reshape(array.shape)


def _plain(array: npt.NDArray[Any]) -> object:
    """Return what JSON can hold. What it has no number for is a string, as in protobuf's JSON: "NaN", "-Infinity"."""
    plain = np.empty(array.size, dtype=object)
    plain[:] = [_plain_value(item) for item in array.reshape(-1).tolist()]
    values: object = plain.reshape(array.shape).tolist()
    return values


def _plain_value(item: object) -> object:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return item


def _excerpt(array: npt.NDArray[Any]) -> str:
    flat = array.reshape(-1)
    values = [_plain_value(item) for item in flat[:_SHOWN].tolist()]
    shown = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
    return shown + (f", ... ({flat.size} values)" if flat.size > _SHOWN else "")
