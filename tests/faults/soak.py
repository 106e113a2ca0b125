"""`python -m tests.faults.soak` (`make soak`): random faults on a fleet for ten minutes, answers checked throughout.

Two tritonservers serve text_embedding; clients ask both all the time and compare every answer with the first. At random
moments a server is killed -9, stopped (SIGSTOP, a hang) or restarted on request. Prints each kind of fault with the
time until that server answered rightly again. Exits with 1 for a wrong answer or a server that stays away.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from builders.pipeline import build, builder_of
from control_plane.bootstrap import running_control_plane
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.record import read_record
from control_plane.settings import Settings
from tests.deployed import MODEL, text_input

Embeddings = npt.NDArray[np.float32]

REPOSITORY = Path(__file__).parents[2] / "model_repository"
MEMBERS = ("text_tokenizer", "text_guard", "sentence_encoder", MODEL)
TEXTS = ("The cat sat on the mat.", "", "Wie spät ist es?", "word " * 300)
FAULTS = ("kill -9", "hang (SIGSTOP)", "restart")
GIVE_UP_S = 120.0
PAUSE_S = 5.0


@dataclass(slots=True)
class Soak:
    """What was seen so far."""

    answers: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    healed: list[tuple[str, str, float]] = field(default_factory=list)


async def ask_forever(server: EmbeddedServer, expected: Sequence[Embeddings], soak: Soak) -> None:
    """Ask one server again and again; a refusal is counted, a wrong answer is a failure of the soak."""
    async with tritonclient.grpc.aio.InferenceServerClient(server.server.endpoints.grpc) as client:
        while True:
            for text, right in zip(TEXTS, expected, strict=True):
                tensor = text_input(tritonclient.grpc, [text])
                try:
                    given = (await client.infer(MODEL, [tensor], client_timeout=5)).as_numpy("embedding")
                except InferenceServerException:
                    soak.refused += 1
                    await asyncio.sleep(0.1)
                    continue
                soak.answers += 1
                if not np.allclose(given, right, atol=1e-5):
                    soak.wrong.append(f"{server.server.id}: {text[:30]!r}")


async def answers_rightly(server: EmbeddedServer, right: Embeddings) -> bool:
    """Ask one server once."""
    async with tritonclient.grpc.aio.InferenceServerClient(server.server.endpoints.grpc) as client:
        try:
            tensor = text_input(tritonclient.grpc, TEXTS[:1])
            given = (await client.infer(MODEL, [tensor], client_timeout=5)).as_numpy("embedding")
        except InferenceServerException:
            return False
        return bool(np.allclose(given, right, atol=1e-5))


async def inflict(fault: str, server: EmbeddedServer) -> None:
    """Do one fault to one server."""
    record = read_record(server.record_path)
    if record is None:
        raise RuntimeError(f"{server.server.id} has no runtime record")
    if fault == "restart":
        await server.restart("soak")
    else:
        os.kill(record.server_pid, signal.SIGKILL if fault == "kill -9" else signal.SIGSTOP)


async def run(seconds: float, seed: int) -> Soak:
    """Inflict faults for `seconds`, one after the other."""
    chance, soak = random.Random(seed), Soak()
    with tempfile.TemporaryDirectory(prefix="tritonfleet-soak-") as folder:
        settings = Settings(port=0, servers=2, model_repository=REPOSITORY, state_path=Path(folder) / "state.db")
        async with running_control_plane(settings) as running:
            async with httpx.AsyncClient(base_url=running.url, timeout=200, trust_env=False) as rest:
                (await rest.post("/v1/deployments?wait=180", json={"name": "soak", "model": MODEL})).raise_for_status()
            servers = running.fleet.servers()
            expected = []
            async with tritonclient.grpc.aio.InferenceServerClient(servers[0].server.endpoints.grpc) as client:
                for text in TEXTS:
                    result = await client.infer(MODEL, [text_input(tritonclient.grpc, [text])])
                    expected.append(result.as_numpy("embedding"))
            clients = [asyncio.create_task(ask_forever(server, expected, soak)) for server in servers]
            end = time.monotonic() + seconds
            while time.monotonic() < end and not soak.wrong:
                fault, server = chance.choice(FAULTS), chance.choice(servers)
                begun = time.monotonic()
                await inflict(fault, server)
                while not await answers_rightly(server, expected[0]):
                    if time.monotonic() - begun > GIVE_UP_S:
                        raise RuntimeError(f"{server.server.id} did not come back after {fault}")
                    await asyncio.sleep(0.2)
                soak.healed.append((fault, server.server.id, time.monotonic() - begun))
                await asyncio.sleep(PAUSE_S)
            for task in clients:
                task.cancel()
            for outcome in await asyncio.gather(*clients, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome
    return soak


def main() -> int:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    for package in MEMBERS:
        build(builder_of(REPOSITORY), package)
    soak = asyncio.run(run(arguments.minutes * 60, arguments.seed))
    table = Table(box=None)
    for heading in ("fault", "times", "median s to heal", "longest s"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for fault in FAULTS:
        took = sorted(seconds for name, _server, seconds in soak.healed if name == fault)
        if took:
            table.add_row(fault, str(len(took)), f"{took[len(took) // 2]:.1f}", f"{took[-1]:.1f}")
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(f"{soak.answers} right answers, {soak.refused} refused during faults, {len(soak.wrong)} wrong")
    console.print(f"seed {arguments.seed}")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
