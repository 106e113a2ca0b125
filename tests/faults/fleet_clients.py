"""Clients as a fleet has them: they follow the list of endpoints, go by its weights, and retry once on another server.

`fleet_soak` runs them while it changes and breaks the fleet. Every answer's value is checked. A request is begun every
1/rate seconds whatever became of the ones before: a server that hangs must not make the clients quieter.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import httpx
import numpy as np
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

Protocol = Literal["grpc", "http"]
Place = dict[str, Any]
"""An endpoint as `GET /v1/endpoints` shows it."""

PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
DEADLINE_S = 4.0
_VALUE = 3.0
_KEPT = 10
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


@dataclass(slots=True)
class Tally:
    """What became of the requests of one phase. `examples` are the first errors, `worst` those that no retry saved."""

    requests: int = 0
    failed_first: int = 0
    failed_after_retry: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    worst: list[str] = field(default_factory=list)


class Callers:
    """One channel to each server and protocol, kept as a client program keeps them."""

    def __init__(self) -> None:
        self._open: dict[tuple[Protocol, str], Any] = {}

    async def ask(self, protocol: Protocol, address: str, model: str) -> float:
        """Send one number and return what comes back for each 1. InferenceServerException, OSError, TimeoutError."""
        client = self._client(protocol, address)
        library = tritonclient.grpc if protocol == "grpc" else tritonclient.http
        tensor = library.InferInput("X", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), _VALUE, np.float32))
        options = {"client_timeout": DEADLINE_S} if protocol == "grpc" else {}
        try:
            async with asyncio.timeout(DEADLINE_S + 0.5):
                answer = (await client.infer(model, [tensor], **options)).as_numpy("Y")
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        return float(answer[0, 0]) / _VALUE

    def _client(self, protocol: Protocol, address: str) -> Any:
        key = protocol, address
        if key not in self._open:
            self._open[key] = (
                tritonclient.grpc.aio.InferenceServerClient(address, channel_args=_RECONNECT)
                if protocol == "grpc"
                else tritonclient.http.aio.InferenceServerClient(address, conn_timeout=DEADLINE_S)
            )
        return self._open[key]

    async def close(self) -> None:
        """Close every channel."""
        clients, self._open = self._open, {}
        for client in clients.values():
            await client.close()


class Clients:
    """All clients of a fleet. `tally` is that of the phase under way; a request counts where it began.

    `right` are the answers for each 1 that a model may give now: two while it moves from one version to another.
    """

    def __init__(self, url: str, right: dict[str, set[float]], rate: float, seed: int) -> None:
        self.right = right
        self.tally = Tally()
        self.listed: dict[str, list[Place]] = {model: [] for model in right}
        self.callers = Callers()
        self._url, self._rate, self._chance = url, rate, random.Random(seed)
        self._in_flight: set[asyncio.Task[None]] = set()

    def begin_phase(self) -> Tally:
        """Count in a new tally from now on."""
        self.tally = Tally()
        return self.tally

    async def answered(self) -> None:
        """Wait for the requests that are under way now."""
        await asyncio.gather(*tuple(self._in_flight))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the lists, and ask: each protocol `rate` times a second, its models in turn."""
        tasks = [asyncio.create_task(self._follow(model)) for model in self.right]
        tasks += [asyncio.create_task(self._ask_forever(protocol)) for protocol in PROTOCOLS]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await self.answered()
            await self.callers.close()
            for end in ends:
                if isinstance(end, Exception):
                    raise end

    async def _follow(self, model: str) -> None:
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, trust_env=False) as rest,
            rest.stream("GET", "/v1/endpoints/events", params={"model": model}) as events,
        ):
            events.raise_for_status()
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    self.listed[model] = json.loads(line.removeprefix("data: "))["endpoints"]
        raise RuntimeError("the stream of the endpoints ended")

    async def _ask_forever(self, protocol: Protocol) -> None:
        clock, models, turn = asyncio.get_running_loop().time, sorted(self.right), 0
        due = clock()
        while True:
            model, turn = models[turn % len(models)], turn + 1
            if self.listed[model]:  # before the first deployment there is nobody to ask
                task = asyncio.create_task(self._request(protocol, model, self.tally))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
            due = max(due + 1 / self._rate, clock() - 1)
            await asyncio.sleep(max(0.0, due - clock()))

    async def _request(self, protocol: Protocol, model: str, tally: Tally) -> None:
        tally.requests += 1
        first = self._pick(model)
        error = await self._try(protocol, model, first, tally)
        if not error:
            return
        tally.failed_first += 1
        _keep(tally.examples, error)
        others = [place for place in self.listed[model] if place["server"] != first["server"]]
        again = await self._try(protocol, model, self._chance.choice(others), tally) if others else "nobody else listed"
        if again:
            tally.failed_after_retry += 1
            _keep(tally.worst, f"{error}; then {again}")

    def _pick(self, model: str) -> Place:
        places = self.listed[model]
        return self._chance.choices(places, [place["weight"] for place in places])[0]

    async def _try(self, protocol: Protocol, model: str, place: Place, tally: Tally) -> str:
        """Send one request. Returns why it failed; empty where it was answered."""
        right, where = self.right[model], f"{protocol} {model} on {place['server']}"
        try:
            given = await self.callers.ask(protocol, place[protocol], model)
        except (InferenceServerException, OSError, TimeoutError) as error:
            return f"{where}: {type(error).__name__} {error}"[:200]
        if not any(abs(given - value) < 1e-3 for value in right | self.right[model]):
            tally.wrong += 1
            _keep(tally.worst, f"{where}: {given}, not one of {sorted(right)}")
        return ""


def _keep(examples: list[str], text: str) -> None:
    if len(examples) < _KEPT:
        examples.append(text)


async def all_answer(callers: Callers, model: str, places: Sequence[Place], right: set[float], times: int) -> bool:
    """Tell whether each of `places` answers rightly `times` times in a row."""

    async def answers(place: Place) -> bool:
        try:
            given = [await callers.ask("grpc", place["grpc"], model) for _ in range(times)]
        except (InferenceServerException, OSError, TimeoutError):
            return False
        return all(any(abs(it - value) < 1e-3 for value in right) for it in given)

    return all(await asyncio.gather(*(answers(place) for place in places)))


def examples_of(tallies: Sequence[Tally]) -> list[str]:
    """Return the examples, each kind once with how often it was seen."""
    counted = Counter(example for tally in tallies for example in (*tally.worst, *tally.examples))
    return [f"{times} x {text}" for text, times in counted.most_common(_KEPT)]
