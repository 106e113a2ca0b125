"""The real `MeasuredServer`: one model on one tritonserver, loaded through Triton's own calls and asked by gRPC.

The server may be one that was started for this or any other that serves nothing meanwhile; where its processes are on
this machine, `processes` finds them. The load itself comes from a process of its own (`load_generator`).
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from builders.measure.sweep import AS_CONFIGURED, Ran
from control_plane.adapters import load_generator
from control_plane.adapters.load_generator import LoadPlan
from control_plane.adapters.measured_memory import device_bytes, host_bytes
from control_plane.adapters.measured_requests import Item, describe, generated_items, request_bytes
from control_plane.adapters.triton import ADMIN_METADATA
from control_plane.errors import ControlPlaneError, DeadlineExceededError, LoadFailedError, ServerUnreachableError
from control_plane.measuring import LoadResult, Memory, with_instances
from control_plane.ports import TritonControl
from control_plane.state import ModelName, Server

_SAMPLE_INTERVAL_S = 1.0
_MOST_WARM_UP_S = 1.0
_WARM_UP_SHARE = 0.2
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What is measured: the load call's config, and those of an ensemble's members in the order to load them.

    `items` are what to send; none are made from the model's dims, dynamic ones as `shapes` says.
    """

    name: ModelName
    config: str
    members: tuple[tuple[ModelName, str], ...] = ()
    items: tuple[Item, ...] = ()
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


class TritonMeasuredServer:
    """Measures `model` on `server`, as an async context manager: what it loaded is unloaded at its end.

    `control` makes the control calls. `processes` gives the pids of the server and its stubs, where they can be read;
    `metrics` says whether the server's metrics are asked for device memory. Use from one event loop.
    """

    request_deadline_s = 60.0
    """How long one inference request may take."""

    def __init__(
        self,
        server: Server,
        model: MeasuredModel,
        control: TritonControl,
        processes: Callable[[], Iterable[int]] | None = None,
        *,
        metrics: bool = True,
    ) -> None:
        self._server, self._model, self._control = server, model, control
        self._processes, self._metrics = processes, metrics
        self._empty: Memory | None = None
        self._peak = Memory(None, None)
        self._sampling: asyncio.Task[None] | None = None
        self._config: Any = None
        self._items: tuple[Item, ...] = ()
        self._requests: tuple[int, list[bytes]] = (0, [])
        self._loaded: list[ModelName] = []

    async def __aenter__(self) -> Self:
        """Refuse a server that serves the model already: measuring would disturb it, and be disturbed.

        Raises LoadFailedError, ServerUnreachableError.
        """
        seen = await self._control.observe(self._server)
        if seen.detail:
            raise ServerUnreachableError(seen.detail)
        names = [self._model.name, *(name for name, _ in self._model.members)]
        busy = sorted(name for name in names if seen.ready_versions(name))
        if busy:
            raise LoadFailedError(
                f"Server '{self._server.id}' serves {', '.join(busy)} already: measure on a server that serves nothing."
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unload what was loaded. Where the server is gone or hangs, so is the model."""
        with contextlib.suppress(ControlPlaneError):
            await self.unload()

    @property
    def requests(self) -> str:
        """Say what is sent: the shapes of an item. Empty before the first load."""
        return describe(self._items) if self._items else ""

    async def load(self, instances: int) -> LoadResult:
        """Load the members, then the model; see the port."""
        if self._empty is None:
            self._empty = await self._sample()
        self._peak = self._empty
        self._sampling = asyncio.create_task(self._keep_sampling(), name="memory samples")
        began = time.perf_counter()
        for name, config in (*self._model.members, (self._model.name, self._model.config)):
            own = name == self._model.name and not self._model.members
            self._loaded.append(name)
            await self._control.load(self._server, name, with_instances(config, instances if own else AS_CONFIGURED))
        seconds = time.perf_counter() - began
        configs = [await self._config_of(name) for name in self._loaded]
        self._config = configs[-1]
        self._items = self._model.items or generated_items(self._config, self._model.shapes)
        kinds = {group.kind for config in configs for group in config.instance_group}
        return LoadResult(seconds, on_gpu=model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds)

    async def run(self, batch_size: int, concurrency: int, seconds: float) -> Ran:
        """Run the load generator; see the port."""
        if self._config is None:
            raise LoadFailedError(f"Model '{self._model.name}' is not loaded: load it before it is measured.")
        if self._requests[0] != batch_size:
            made = await asyncio.to_thread(request_bytes, self._config, self._items, batch_size)
            self._requests = (batch_size, made)
        warm_up_s = min(_MOST_WARM_UP_S, seconds * _WARM_UP_SHARE)
        plan = LoadPlan(self._server.endpoints.grpc, concurrency, seconds, warm_up_s, self.request_deadline_s)
        report = await _generate(plan, self._requests[1])
        return Ran(
            latencies_ms=tuple(report["latencies_ms"]),
            seconds=report["seconds"],
            failed=report["failed"],
            reason=report["reason"],
            client_cpu_s=report["cpu_s"],
        )

    async def memory(self) -> Memory:
        """Return the peak of all samples since the load, above the empty server."""
        self._note(await self._sample())
        empty = self._empty or Memory(None, None)
        return Memory(
            _above(self._peak.host_bytes, empty.host_bytes), _above(self._peak.device_bytes, empty.device_bytes)
        )

    async def unload(self) -> None:
        """Unload the model, then its members; see the port."""
        task, self._sampling = self._sampling, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._config, self._requests = None, (0, [])
        while self._loaded:
            await self._control.unload(self._server, self._loaded.pop())

    async def _keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_INTERVAL_S)
            with contextlib.suppress(ServerUnreachableError):  # the run that it belongs to tells of this
                self._note(await self._sample())

    async def _sample(self) -> Memory:
        host = None if self._processes is None else await asyncio.to_thread(lambda: host_bytes(self._pids()))
        return Memory(host, await device_bytes(self._server.endpoints.metrics) if self._metrics else None)

    def _pids(self) -> list[int]:
        return list(self._processes()) if self._processes is not None else []

    def _note(self, sample: Memory) -> None:
        self._peak = Memory(
            _larger(self._peak.host_bytes, sample.host_bytes), _larger(self._peak.device_bytes, sample.device_bytes)
        )

    async def _config_of(self, model: ModelName) -> Any:  # noqa: ANN401 - generated protobuf classes have no types
        """Return the ModelConfig that Triton made of the model's own."""
        headers = {ADMIN_METADATA: self._server.admin_key} if self._server.admin_key is not None else None
        async with InferenceServerClient(self._server.endpoints.grpc) as client:
            try:
                answer = await client.get_model_config(model, headers=headers, client_timeout=_START_S)
            except InferenceServerException as exc:
                raise ServerUnreachableError(f"No config of model '{model}': {exc.message()}") from exc
        return answer.config


async def triton_version(server: Server) -> str:
    """Return the version that the server says it is. Raises ServerUnreachableError."""
    async with InferenceServerClient(server.endpoints.grpc) as client:
        try:
            metadata = await client.get_server_metadata(client_timeout=_START_S)
        except InferenceServerException as exc:
            raise ServerUnreachableError(f"{server.endpoints.grpc} did not answer: {exc.message()}") from exc
    return str(metadata.version)


async def _generate(plan: LoadPlan, requests: list[bytes]) -> Any:  # noqa: ANN401 - parsed JSON
    """Run the load generator and return its report. It is gone afterwards, whatever happens.

    Its standard input stays open while it works: its end is what tells it that nobody waits any more.
    """
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", load_generator.__file__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the command, which ends this one
    )
    assert child.stdin is not None  # noqa: S101 - a pipe was asked for
    assert child.stdout is not None  # noqa: S101 - likewise
    assert child.stderr is not None  # noqa: S101 - likewise
    deadline_s = _START_S + plan.warm_up_s + plan.seconds + plan.deadline_s
    try:
        async with asyncio.timeout(deadline_s):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: its own words follow
                child.stdin.writelines(load_generator.frames(plan, requests))
                await child.stdin.drain()
            said, words = await asyncio.gather(child.stdout.read(), child.stderr.read())
            await child.wait()
    except TimeoutError as exc:
        raise DeadlineExceededError(f"The load generator did not end within {deadline_s:.0f} s.") from exc
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        child.stdin.close()
    if child.returncode != 0:
        raise ControlPlaneError(f"The load generator ended with status {child.returncode}: {words.decode().strip()}")
    return json.loads(said)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((it for it in (one, other) if it is not None), default=None)


def _above(peak: int | None, empty: int | None) -> int | None:
    return None if peak is None or empty is None else max(0, peak - empty)
