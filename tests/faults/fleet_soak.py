"""`python -m tests.faults.fleet_soak` (`make soak`): a fleet of four tritonservers is changed and broken under load.

First every planned change once: deploy, scale, reload, drain, resume, roll back. No request may fail in them, not even
at the first try. Then faults at random, one at a time: a tritonserver killed or stopped (SIGSTOP, a hang), a model's
Python process killed, a model unloaded by hand. A request that fails then must be saved by one retry on another
endpoint of the list. Prints how long each took to heal: from the fault until every wanted replica is listed again and
answers. Exits with 1 where any of that does not hold.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from control_plane.bootstrap import RunningControlPlane, running_control_plane
from control_plane.embedded import EmbeddedServer
from control_plane.embedded.record import read_record
from control_plane.settings import Settings
from tests.embedded_triton import record_of
from tests.faults.fleet_clients import Clients, Place, Tally, all_answer, examples_of
from tests.small_models import ensemble, multiplier

SERVERS = 4
PLAIN, CHAIN = "plain", "chain"
FACTORS = {PLAIN: (5.0, 7.0), CHAIN: (6.0, 12.0)}
"""What versions 1 and 2 answer for each 1. The chain's new version is that of its first member, 2 times 3 and 4 x 3."""
MEMBERS = ("first", "second")

RATE = 20.0
GIVE_UP_S = 90.0
_LOOK_S = 0.2
_SETTLED_S = 0.5


class NotOverError(Exception):
    """A change or a fault was not over after GIVE_UP_S seconds; the text says what was seen then."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A planned change or a fault, how long it took, and what clients saw of it."""

    name: str
    target: str
    seconds: float
    tally: Tally
    planned: bool

    @property
    def is_right(self) -> bool:
        """Whether clients saw no more of it than they may."""
        failed = self.tally.failed_first if self.planned else self.tally.failed_after_retry
        return not failed and not self.tally.wrong


@dataclass(slots=True)
class Wanted:
    """What should be seen once a change or a fault is over."""

    replicas: int = 2
    instances: int = 1
    version: int = 1
    drained: str = ""


@dataclass(slots=True)
class Soak:
    """A fleet under load, and what was done to it so far."""

    running: RunningControlPlane
    rest: httpx.AsyncClient
    clients: Clients
    repository: Path
    wanted: Wanted = field(default_factory=Wanted)
    phases: list[Phase] = field(default_factory=list)

    async def change(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """Make a planned change, and wait until it is done and nothing moves any more."""
        tally, begun = self.clients.begin_phase(), time.monotonic()
        await act()
        await self._until(self._is_settled, name)
        took = time.monotonic() - begun
        await asyncio.sleep(_SETTLED_S)
        await self.clients.answered()
        self.phases.append(Phase(name, "", took, tally, planned=True))

    async def fault(self, name: str, server: EmbeddedServer, model: str) -> None:
        """Break one thing, and wait until it is healed; then until nothing moves any more, for the next one."""
        tally, begun = self.clients.begin_phase(), time.monotonic()
        await FAULTS[name](self, server, model)
        await self._until(self._is_healed, name)
        took = time.monotonic() - begun
        await self._until(self._is_whole, name)
        await asyncio.sleep(_SETTLED_S)
        await self.clients.answered()
        self.phases.append(Phase(name, f"{model} on {server.server.id}", took, tally, planned=False))

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Call the API; what it refuses is a failure of the soak."""
        answer = await self.rest.post(path, json=body or {})
        if answer.is_error:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")

    async def post_to_each(self, action: str, body: Mapping[str, Any] | None = None) -> None:
        """Do the same with every deployment."""
        for name in FACTORS:
            await self.post(f"/v1/deployments/{name}/{action}", body)

    def holders(self, model: str) -> list[EmbeddedServer]:
        """Return the servers that clients of a model are sent to."""
        listed = {place["server"] for place in self.clients.listed[model]}
        return [server for server in self.running.fleet.servers() if server.server.id in listed]

    async def _until(self, reached: Callable[[], Awaitable[bool]], name: str) -> None:
        end = time.monotonic() + GIVE_UP_S
        while not await reached():
            if time.monotonic() > end:
                status = (await self.rest.get("/v1/deployments")).text
                raise NotOverError(f"Not over after {GIVE_UP_S:.0f} s: {name}; {self.clients.tally}; {status}")
            await asyncio.sleep(_LOOK_S)

    async def _is_healed(self) -> bool:
        """Whether every wanted replica is listed and answers, on each of its instances."""
        for model in FACTORS:
            places: list[Place] = self.clients.listed[model]
            if len(places) != self.wanted.replicas or self.wanted.drained in {place["server"] for place in places}:
                return False
            right, times = {FACTORS[model][self.wanted.version - 1]}, 2 * self.wanted.instances
            if not await all_answer(self.clients.callers, model, places, right, times):
                return False
            if any(not self._has_stubs(server, model) for server in self.holders(model)):
                return False
        return True

    def _has_stubs(self, server: EmbeddedServer, model: str) -> bool:
        """Whether a Python process runs for each instance: one that is dead among others may miss every request."""
        wanted = {PLAIN: self.wanted.instances} if model == PLAIN else dict.fromkeys(MEMBERS, 1)
        return all(len(stubs_of(server, name)) >= count for name, count in wanted.items())

    async def _is_settled(self) -> bool:
        """Whether beside that nothing is left where no replica is to be, and each has its instances."""
        deployments = (await self.rest.get("/v1/deployments")).json()["deployments"]
        if any(it["status"]["state"] != "serving" for it in deployments) or not await self._is_healed():
            return False
        plan = (await self.rest.get("/v1/plan")).json()
        return not plan["actions"] and not plan["waiting"]

    async def _is_whole(self) -> bool:
        """Whether every server is healthy again. One taken out for failing too often is let back in, as people do."""
        healthy = True
        for server in (await self.rest.get("/v1/servers")).json()["servers"]:
            if server["condition"] == "draining":
                await self.post(f"/v1/servers/{server['id']}/resume")
            healthy &= server["condition"] == "healthy"
        return healthy and await self._is_settled()

    async def deploy(self) -> None:
        """Deploy the first versions on two servers each."""
        for name in FACTORS:
            body = {"name": name, "model": name, "replicas": {"min": self.wanted.replicas}, "instances": 1}
            if name == CHAIN:  # an ensemble has no instances
                del body["instances"]
            await self.post("/v1/deployments", body)

    async def scale_replicas(self) -> None:
        """Have one replica more."""
        self.wanted.replicas = 3
        await self.post_to_each("scale", {"replicas": 3})

    async def scale_instances(self) -> None:
        """Have two instances of the plain model on each server."""
        self.wanted.instances = 2
        await self.post(f"/v1/deployments/{PLAIN}/scale", {"instances": 2})

    async def reload(self) -> None:
        """Publish new versions the way builds do, with a rename, and move to them."""
        self.clients.right.update({name: set(factors) for name, factors in FACTORS.items()})
        with tempfile.TemporaryDirectory(dir=self.repository.parent) as folder:
            for name, factor in ((PLAIN, FACTORS[PLAIN][1]), ("first", 4.0)):
                multiplier(Path(folder), name, factor, version=2)
                (Path(folder) / name / "2").rename(self.repository / name / "2")
        self.wanted.version = 2
        await self.post_to_each("redeploy")

    async def drain(self) -> None:
        """Empty a server that serves."""
        self.wanted.drained = self.holders(PLAIN)[0].server.id
        await self.post(f"/v1/servers/{self.wanted.drained}/drain", {"reason": "soak"})

    async def resume(self) -> None:
        """Let it back in."""
        server, self.wanted.drained = self.wanted.drained, ""
        await self.post(f"/v1/servers/{server}/resume")

    async def roll_back(self) -> None:
        """Return to the first versions."""
        self.wanted.version = 1
        await self.post_to_each("rollback")

    async def planned(self) -> None:
        """Make every planned change once, one after the other."""
        await self.change("deploy", self.deploy)
        await self.change("scale replicas 2 -> 3", self.scale_replicas)
        await self.change("scale instances 1 -> 2", self.scale_instances)
        await self.change("reload (redeploy)", self.reload)
        self.clients.right.update({name: {factors[1]} for name, factors in FACTORS.items()})
        await self.change("drain", self.drain)
        await self.change("resume", self.resume)
        self.clients.right.update({name: set(factors) for name, factors in FACTORS.items()})
        await self.change("rollback", self.roll_back)
        self.clients.right.update({name: {factors[0]} for name, factors in FACTORS.items()})


def stubs_of(server: EmbeddedServer, model: str) -> list[psutil.Process]:
    """Return the Python processes of a model on a server; none where the server is just gone."""
    record = read_record(server.record_path)
    if record is None:
        return []
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(record.server_pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if f"/{model}/" in " ".join(child.cmdline()):
                    found.append(child)
    return found


async def _kill_server(_: Soak, server: EmbeddedServer, _model: str) -> None:
    os.kill(record_of(server).server_pid, signal.SIGKILL)


async def _stop_server(_: Soak, server: EmbeddedServer, _model: str) -> None:
    os.kill(record_of(server).server_pid, signal.SIGSTOP)


async def _kill_stub(_: Soak, server: EmbeddedServer, model: str) -> None:
    min(stubs_of(server, MEMBERS[0] if model == CHAIN else model), key=lambda it: it.pid).kill()


async def _unload_by_hand(_: Soak, server: EmbeddedServer, model: str) -> None:
    headers = {"triton-admin-key": server.server.admin_key or ""}
    url = f"http://{server.server.endpoints.http}/v2/repository/models/{model}/unload"
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        (await client.post(url, headers=headers, json={})).raise_for_status()


FAULTS: Mapping[str, Callable[[Soak, EmbeddedServer, str], Awaitable[None]]] = {
    "kill -9 a tritonserver": _kill_server,
    "hang a tritonserver (SIGSTOP)": _stop_server,
    "kill -9 a model's stub": _kill_stub,
    "unload by hand": _unload_by_hand,
}


@asynccontextmanager
async def soaking(folder: Path, seed: int) -> AsyncIterator[Soak]:
    """Run four servers over a repository in `folder`, and the clients of what is deployed there."""
    repository = folder / "repository"
    for name, factor in ((PLAIN, FACTORS[PLAIN][0]), ("first", 2.0), ("second", 3.0)):
        multiplier(repository, name, factor)
    ensemble(repository, CHAIN, *MEMBERS)
    settings = Settings(port=0, servers=SERVERS, model_repository=repository, state_path=folder / "state.db")
    async with (
        running_control_plane(settings) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30, trust_env=False) as rest,
    ):
        right = {name: {factors[0]} for name, factors in FACTORS.items()}
        clients = Clients(running.url, right, RATE, seed)
        async with clients.running():
            yield Soak(running, rest, clients, repository)


async def one_of_each(seed: int) -> list[Phase]:
    """Make every planned change and do every fault once."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="tritonfleet-soak-") as folder:
        async with soaking(Path(folder), seed) as soak:
            await soak.planned()
            for name in FAULTS:
                model = chance.choice(sorted(FACTORS))
                await soak.fault(name, chance.choice(soak.holders(model)), model)
            return soak.phases


async def at_random(seconds: float, seed: int) -> tuple[list[Phase], str]:
    """Make every planned change once, then do faults for `seconds`. Returns what was done, and what never ended."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="tritonfleet-soak-") as folder:
        async with soaking(Path(folder), seed) as soak:
            try:
                await soak.planned()
                end = time.monotonic() + seconds
                while time.monotonic() < end and all(phase.is_right for phase in soak.phases):
                    name, model = chance.choice(sorted(FAULTS)), chance.choice(sorted(FACTORS))
                    await soak.fault(name, chance.choice(soak.holders(model)), model)
            except NotOverError as error:
                return soak.phases, str(error)
            return soak.phases, ""


def table_of(phases: list[Phase]) -> Table:
    """Show each kind of change and fault: how often, how long, and what clients saw."""
    table = Table(box=None)
    headings = ("what", "times", "median s", "longest s", "requests", "failed first", "after retry", "wrong")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for name in dict.fromkeys(phase.name for phase in phases):
        own = [phase for phase in phases if phase.name == name]
        took = sorted(phase.seconds for phase in own)
        counts = (
            sum(phase.tally.requests for phase in own),
            sum(phase.tally.failed_first for phase in own),
            sum(phase.tally.failed_after_retry for phase in own),
            sum(phase.tally.wrong for phase in own),
        )
        table.add_row(name, str(len(own)), f"{took[len(took) // 2]:.1f}", f"{took[-1]:.1f}", *map(str, counts))
    return table


def main() -> int:
    """Run the soak and print its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    phases, never_ended = asyncio.run(at_random(arguments.minutes * 60, arguments.seed))
    console = Console(width=110, highlight=False)
    console.print(table_of(phases))
    bad = [phase for phase in phases if not phase.is_right]
    for phase in bad:
        console.print(f"{phase.name} {phase.target}: {phase.tally.failed_first} failed first", markup=False)
    for example in examples_of([phase.tally for phase in (bad or phases)]):
        console.print(f"  {example}", markup=False)
    if never_ended:
        console.print(never_ended, markup=False)
    console.print(f"seed {arguments.seed}")
    return 1 if bad or never_ended else 0


if __name__ == "__main__":
    sys.exit(main())
