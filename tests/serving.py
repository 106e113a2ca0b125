"""A real tritonserver for a test: one embedded server over a repository folder, and gRPC calls to it.

The server's own behaviour is tested elsewhere; here it is what a contract test of a backend talks to.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from control_plane.embedded import EmbeddedFleet, EmbeddedServer, ServerSpec
from control_plane.state import Server, ServerId

DEADLINE_S: Final = 60.0

Array = NDArray[Any]


@contextmanager
def embedded_server(repository: Path, *extra_args: str) -> Iterator[EmbeddedServer]:
    """Run one server over `repository`, models loaded on demand; it is gone afterwards."""
    with embedded_servers(repository, "test", extra_args=extra_args) as (server,):
        yield server


@contextmanager
def embedded_servers(
    repository: Path, *ids: str, extra_args: tuple[str, ...] = ()
) -> Iterator[tuple[EmbeddedServer, ...]]:
    """Run servers over `repository`, models loaded on demand; they are gone afterwards."""
    specs = [ServerSpec(ServerId(name), repository, extra_args=extra_args) for name in ids]
    with asyncio.Runner() as runner:
        fleet = EmbeddedFleet(specs)
        runner.run(_enter(fleet))
        try:
            yield fleet.servers()
        finally:
            runner.run(fleet.__aexit__(None, None, None))


async def _enter(fleet: EmbeddedFleet) -> None:
    await fleet.__aenter__()


@dataclass(frozen=True, slots=True)
class Serving:
    """A repository and the server that loads from it."""

    repository: Path
    server: Server

    def load(self, name: str, model: onnx.ModelProto | bytes, config: str = "", filename: str = "model.onnx") -> str:
        """Write the model and load it. Returns its name. Raises InferenceServerException with Triton's reason."""
        version = self.repository / name / "1"
        version.mkdir(parents=True)
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (version / filename).write_bytes(content)
        (version.parent / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}')
        with self.client() as client:
            client.load_model(name, headers=self._headers(), client_timeout=DEADLINE_S)
        return name

    def config(self, name: str) -> Any:
        """Return the configuration that Triton made of the model's."""
        with self.client() as client:
            return client.get_model_config(name, headers=self._headers(), client_timeout=DEADLINE_S).config

    def executions(self, name: str) -> tuple[int, int]:
        """Return how many items and how many batches the model has run."""
        with self.client() as client:
            stats = client.get_inference_statistics(name, headers=self._headers(), client_timeout=DEADLINE_S)
        return stats.model_stats[0].inference_count, stats.model_stats[0].execution_count

    def infer(self, name: str, feed: Mapping[str, Array], *outputs: str) -> dict[str, Array]:
        """Send one request for `outputs`."""
        inputs = []
        for key, array in feed.items():
            tensor = triton.InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        wanted = [triton.InferRequestedOutput(output) for output in outputs]
        with self.client() as client:
            result = client.infer(name, inputs, outputs=wanted, client_timeout=DEADLINE_S)
        return {output: np.asarray(result.as_numpy(output)) for output in outputs}

    def client(self) -> triton.InferenceServerClient:
        """Open a client of the server, to be used in a `with`."""
        return triton.InferenceServerClient(self.server.endpoints.grpc)

    def _headers(self) -> dict[str, str]:
        return {"triton-grpc-protocol-admin-key": self.server.admin_key or ""}
