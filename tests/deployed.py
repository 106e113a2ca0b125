"""This project's own ensemble, deployed through REST on a real Triton: what the tests and the soak of it share."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from control_plane.bootstrap import RunningControlPlane, running_control_plane
from control_plane.settings import Settings

MODEL = "text_embedding"


@asynccontextmanager
async def deployed(repository: Path, state: Path) -> AsyncIterator[RunningControlPlane]:
    """Serve MODEL from a built repository; it is serving when this is entered."""
    settings = Settings(port=0, model_repository=repository, state_path=state / "state.db")
    async with running_control_plane(settings) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=200, trust_env=False) as rest:
            answer = await rest.post("/v1/deployments?wait=180", json={"name": "e", "model": MODEL})
        assert answer.status_code == 201, answer.text
        assert answer.json()["status"]["state"] == "serving", answer.text
        yield running


def text_input(library: Any, texts: Sequence[str | bytes]) -> Any:
    """Return the `text` input of one request for `library`, tritonclient.grpc or tritonclient.http."""
    raw = [text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass") for text in texts]
    tensor = library.InferInput("text", [len(raw), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(raw, dtype=object).reshape(-1, 1))
    return tensor
