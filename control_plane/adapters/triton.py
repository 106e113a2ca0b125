"""Triton's control calls over gRPC: the real `TritonControl`.

gRPC and not HTTP, because a load over HTTP blocks one of the server's HTTP threads, and inference with it. Every call
has a deadline; every vendor error is one of `control_plane.errors` with Triton's own reason, or, where Triton hides
that, the one in its index or its log (`triton_log`).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from control_plane.adapters.measured_memory import device_bytes_by, metrics_client
from control_plane.adapters.triton_log import cause_in_log, hides_cause, last_words
from control_plane.adapters.triton_probe import send_probe
from control_plane.adapters.triton_rows import Counts, counts, rows, with_config, with_counts
from control_plane.errors import (
    AdminKeyRefusedError,
    ControlPlaneError,
    DeadlineExceededError,
    LoadFailedError,
    ServerUnreachableError,
)
from control_plane.ports import ServerLog
from control_plane.state import (
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Probe,
    ProbeResult,
    Server,
    ServerCondition,
    ServerId,
)

logger = logging.getLogger(__name__)

ADMIN_METADATA = "triton-grpc-protocol-admin-key"

# Without these a channel to a server that was away keeps refusing for up to two minutes after the server is back.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each kind of call may take."""

    observe_s: float = 5.0
    probe_s: float = 5.0
    load_s: float = 120.0
    unload_s: float = 30.0


_NOT_READY = (
    "It answers, and says that it is not ready, so that a Kubernetes probe takes it out: with strict readiness, "
    "Triton's default, one model that failed to load is enough (--strict-readiness=false ends that)."
)
_MOST_REQUESTS = 4
"""How many requests a probe consists of at most, however many instances there are: each may take its deadline."""


@dataclass(slots=True)
class _Connection:
    """The channel to a server, and what stays true of it for as long as it does not go away."""

    server: Server
    client: Any
    version: str = ""
    instances: dict[ModelName, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget all: it may come back as another Triton."""
        self.version = ""
        self.instances.clear()


class GrpcTritonControl:
    """One gRPC channel per server, opened at the first call and again when the server's address changed.

    `log_of` gives the log of a server where it can be read. Use from one event loop.
    """

    def __init__(self, log_of: Callable[[ServerId], ServerLog | None], deadlines: Deadlines | None = None) -> None:
        self._log_of = log_of
        self._deadlines = deadlines or Deadlines()
        self._connections: dict[ServerId, _Connection] = {}
        self._metrics = metrics_client()

    async def observe(self, server: Server) -> ObservedServer:
        """Read the repository index, the statistics, and each ready model's config as Triton runs it; see the port.

        A server that does not answer is UNREACHABLE, one that refuses us DEGRADED. Its Triton's version is asked again
        when it was away, for then it may have come back as another one.
        """
        try:
            models, version = await self._index(server), await self._version(server)
            counted, filled, used, remark = await asyncio.gather(
                self._counts(server),
                self._with_configs(server, models),
                self._memory_used(server),
                self._unreadiness(server),
            )
        except AdminKeyRefusedError as error:
            return ObservedServer(server, ServerCondition.DEGRADED, detail=str(error))
        except ControlPlaneError as error:
            self._forget(server)
            return ObservedServer(server, ServerCondition.UNREACHABLE, detail=str(error))
        known = await self._connection(server)
        known.instances = {row.name: row.instances for row in filled}
        seen = tuple(with_counts(row, counted) for row in filled)
        return ObservedServer(
            server, ServerCondition.HEALTHY, seen, detail=remark, triton_version=version, memory_used_bytes=used
        )

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load `model` with `config`; see the port."""
        log = self._log_of(server.id)
        mark = await asyncio.to_thread(log.log_mark) if log is not None else None
        client = (await self._connection(server)).client
        deadline_s = self._deadlines.load_s
        try:
            await client.load_model(model, headers=_headers(server), config=config, client_timeout=deadline_s)
        except InferenceServerException as exc:
            error = _translated(exc, server, f"load model '{model}'", deadline_s)
            lines = await log.log_since(mark) if log is not None else []
            if isinstance(error, DeadlineExceededError):
                raise DeadlineExceededError(_hung(model, server, deadline_s, lines)) from exc
            if isinstance(error, LoadFailedError) and hides_cause(str(error)):
                cause = await self._hidden_cause(server, model, lines)
                raise LoadFailedError(cause or _no_cause(model, server, str(error))) from exc
            raise error from exc

    async def unload(self, server: Server, model: ModelName) -> None:
        """Unload every version of `model`; see the port."""
        client = (await self._connection(server)).client
        deadline_s = self._deadlines.unload_s
        try:
            await client.unload_model(model, headers=_headers(server), client_timeout=deadline_s)
        except InferenceServerException as exc:
            raise _translated(exc, server, f"unload model '{model}'", deadline_s) from exc

    async def probe(self, server: Server, probe: Probe) -> ProbeResult:
        """Send a request to each instance that was observed, within bounds; see the port."""
        known = await self._connection(server)
        times = min(known.instances.get(probe.model, 1), _MOST_REQUESTS)
        return await send_probe(known.client, probe, self._deadlines.probe_s, times)

    def forget_others(self, servers: frozenset[ServerId]) -> None:
        """Drop the channels to all servers but these.

        A channel closes by itself once nothing uses it any more. To close it here would cancel the calls that are
        under way on it, and with them the tasks that wait for them.
        """
        self._connections = {it: known for it, known in self._connections.items() if it in servers}

    async def close(self) -> None:
        """Close every channel."""
        await self._metrics.aclose()
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.client.close()

    async def _connection(self, server: Server) -> _Connection:
        known = self._connections.get(server.id)
        if known is not None and known.server == server:
            return known
        client = InferenceServerClient(server.endpoints.grpc, channel_args=_CHANNEL)
        made = self._connections[server.id] = _Connection(server, client)
        if known is not None:
            await known.client.close()
        return made

    def _forget(self, server: Server) -> None:
        known = self._connections.get(server.id)
        if known is not None:
            known.forget()

    async def _index(self, server: Server) -> tuple[ObservedModel, ...]:
        client = (await self._connection(server)).client
        deadline_s = self._deadlines.observe_s
        try:
            index = await client.get_model_repository_index(headers=_headers(server), client_timeout=deadline_s)
        except InferenceServerException as exc:
            raise _translated(exc, server, "read the repository index", deadline_s) from exc
        return rows(index.models)

    async def _version(self, server: Server) -> str:
        known = await self._connection(server)
        if not known.version:
            deadline_s = self._deadlines.observe_s
            try:
                metadata = await known.client.get_server_metadata(headers=_headers(server), client_timeout=deadline_s)
            except InferenceServerException as exc:
                raise _translated(exc, server, "read the server's version", deadline_s) from exc
            known.version = str(metadata.version)
        return known.version

    async def _counts(self, server: Server) -> Counts:
        """Return what the statistics of all models count. Without an answer nothing: it is no reason to give up."""
        client = (await self._connection(server)).client
        deadline_s = self._deadlines.observe_s
        try:
            answer = await client.get_inference_statistics(headers=_headers(server), client_timeout=deadline_s)
        except InferenceServerException as exc:
            logger.debug("No statistics of server %s: %s", server.id, exc)
            return {}
        return counts(answer.model_stats)

    async def _memory_used(self, server: Server) -> int | None:
        """Return what is taken of the memory of the server's devices; None where its metrics do not tell."""
        if not server.devices:
            return None
        try:
            return await device_bytes_by(
                self._metrics, server.endpoints.metrics, frozenset(device.uuid for device in server.devices)
            )
        except ServerUnreachableError as error:
            logger.debug("No memory of server %s: %s", server.id, error)
            return None

    async def _unreadiness(self, server: Server) -> str:
        """Return a remark where the server says that it is not ready; empty where it is, or keeps that to itself."""
        client = (await self._connection(server)).client
        try:
            ready = await client.is_server_ready(headers=_headers(server), client_timeout=self._deadlines.observe_s)
        except InferenceServerException as exc:
            logger.debug("Server %s does not say whether it is ready: %s", server.id, exc)
            return ""
        return "" if ready else _NOT_READY

    async def _with_configs(self, server: Server, models: tuple[ObservedModel, ...]) -> list[ObservedModel]:
        return await asyncio.gather(*(self._with_config(server, row) for row in models))

    async def _with_config(self, server: Server, row: ObservedModel) -> ObservedModel:
        """Return `row` with its config's part. Without it where there is no answer: it may just have been unloaded."""
        if row.state is not ModelState.READY:
            return row
        client = (await self._connection(server)).client
        try:
            answer = await client.get_model_config(
                row.name, str(row.version), headers=_headers(server), client_timeout=self._deadlines.observe_s
            )
        except InferenceServerException:
            return row
        return with_config(row, answer.config)

    async def _hidden_cause(self, server: Server, model: ModelName, lines: list[str]) -> str:
        """Return the cause from the log of this very call, or else from the index, where one may be from before."""
        if cause := cause_in_log(lines, model):
            return cause
        rows = (await self.observe(server)).rows_of(model)
        return next((row.reason.strip() for row in rows if row.state is ModelState.UNAVAILABLE and row.reason), "")


def _headers(server: Server) -> dict[str, str] | None:
    return {ADMIN_METADATA: server.admin_key} if server.admin_key is not None else None


def _translated(exc: Any, server: Server, call: str, deadline_s: float) -> ControlPlaneError:  # noqa: ANN401
    """Return our error for the vendor's `exc`. A refused restricted API comes as UNAVAILABLE, like a dead server."""
    status, message = exc.status() or "", (exc.message() or "").strip(" \n;")
    where = f"server '{server.id}' ({server.endpoints.grpc})"
    if status == "StatusCode.UNAVAILABLE" and "restricted" in message:
        return AdminKeyRefusedError(f"{where} refused to {call}: its admin key is another one. Triton says: {message}")
    if status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
        return ServerUnreachableError(f"{where} did not answer to {call}: {message}")
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return DeadlineExceededError(f"{where} did not {call} within {deadline_s:g} s")
    return LoadFailedError(message)


def _hung(model: ModelName, server: Server, deadline_s: float, lines: list[str]) -> str:
    words = last_words(lines, model)
    tail = f" The server's log last said:\n{words}" if words else " The server's log says nothing about it."
    return f"model '{model}' did not load on server '{server.id}' within {deadline_s:g} s.{tail}"


def _no_cause(model: ModelName, server: Server, message: str) -> str:
    said = message or "nothing"
    return f"Triton says only: {said}. The reason to refuse '{model}' is in the log of server '{server.id}' alone."
