"""Triton's control calls over gRPC: the real `TritonControl`.

gRPC and not HTTP, because a load over HTTP blocks one of the server's HTTP threads, and inference with it. Every call
has a deadline; every vendor error is one of `control_plane.errors` with Triton's own reason, or, where Triton hides
that, the one in its index or its log (`triton_log`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from control_plane.adapters.triton_log import cause_in_log, hides_cause, last_words
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
    Server,
    ServerCondition,
    ServerId,
)

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
    load_s: float = 120.0
    unload_s: float = 30.0


class GrpcTritonControl:
    """One gRPC channel per server, opened at the first call and again when the server's address changed.

    `log_of` gives the log of a server where it can be read. Use from one event loop.
    """

    def __init__(self, log_of: Callable[[ServerId], ServerLog | None], deadlines: Deadlines | None = None) -> None:
        self._log_of = log_of
        self._deadlines = deadlines or Deadlines()
        self._channels: dict[ServerId, tuple[Server, Any]] = {}
        self._versions: dict[ServerId, str] = {}

    async def observe(self, server: Server) -> ObservedServer:
        """Read the repository index, and the file of each ready model from the config that Triton runs it with.

        A server that does not answer is UNREACHABLE, one that refuses us DEGRADED. Its Triton's version is asked again
        when it was away, for then it may have come back as another one.
        """
        try:
            models, version = await self._index(server), await self._version(server)
            filled = await asyncio.gather(*(self._with_file(server, row) for row in models))
            return ObservedServer(server, ServerCondition.HEALTHY, tuple(filled), triton_version=version)
        except AdminKeyRefusedError as error:
            return ObservedServer(server, ServerCondition.DEGRADED, detail=str(error))
        except ControlPlaneError as error:
            self._versions.pop(server.id, None)
            return ObservedServer(server, ServerCondition.UNREACHABLE, detail=str(error))

    async def load(self, server: Server, model: ModelName, config: str) -> None:
        """Load `model` with `config`; see the port."""
        log = self._log_of(server.id)
        mark = await asyncio.to_thread(log.log_mark) if log is not None else None
        client = await self._client(server)
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
        client = await self._client(server)
        deadline_s = self._deadlines.unload_s
        try:
            await client.unload_model(model, headers=_headers(server), client_timeout=deadline_s)
        except InferenceServerException as exc:
            raise _translated(exc, server, f"unload model '{model}'", deadline_s) from exc

    async def close(self) -> None:
        """Close every channel."""
        channels, self._channels = self._channels, {}
        for _, client in channels.values():
            await client.close()

    async def _client(self, server: Server) -> Any:  # noqa: ANN401 - tritonclient has no types
        known = self._channels.get(server.id)
        if known is not None and known[0] == server:
            return known[1]
        client = InferenceServerClient(server.endpoints.grpc, channel_args=_CHANNEL)
        self._channels[server.id] = (server, client)
        self._versions.pop(server.id, None)
        if known is not None:
            await known[1].close()
        return client

    async def _index(self, server: Server) -> tuple[ObservedModel, ...]:
        client = await self._client(server)
        deadline_s = self._deadlines.observe_s
        try:
            index = await client.get_model_repository_index(headers=_headers(server), client_timeout=deadline_s)
        except InferenceServerException as exc:
            raise _translated(exc, server, "read the repository index", deadline_s) from exc
        return tuple(_row(entry) for entry in index.models if entry.version and entry.state)

    async def _version(self, server: Server) -> str:
        if server.id not in self._versions:
            client = await self._client(server)
            deadline_s = self._deadlines.observe_s
            try:
                metadata = await client.get_server_metadata(headers=_headers(server), client_timeout=deadline_s)
            except InferenceServerException as exc:
                raise _translated(exc, server, "read the server's version", deadline_s) from exc
            self._versions[server.id] = str(metadata.version)
        return self._versions[server.id]

    async def _with_file(self, server: Server, row: ObservedModel) -> ObservedModel:
        """Return `row` with its file. Without one where there is no answer: it may just have been unloaded."""
        if row.state is not ModelState.READY:
            return row
        client = await self._client(server)
        try:
            answer = await client.get_model_config(
                row.name, str(row.version), headers=_headers(server), client_timeout=self._deadlines.observe_s
            )
        except InferenceServerException:
            return row
        return replace(row, filename=str(answer.config.default_model_filename))

    async def _hidden_cause(self, server: Server, model: ModelName, lines: list[str]) -> str:
        """Return the cause from the log of this very call, or else from the index, where one may be from before."""
        if cause := cause_in_log(lines, model):
            return cause
        rows = (await self.observe(server)).rows_of(model)
        return next((row.reason.strip() for row in rows if row.state is ModelState.UNAVAILABLE and row.reason), "")


def _headers(server: Server) -> dict[str, str] | None:
    return {ADMIN_METADATA: server.admin_key} if server.admin_key is not None else None


def _row(entry: Any) -> ObservedModel:  # noqa: ANN401 - generated protobuf classes have no types
    return ObservedModel(ModelName(entry.name), int(entry.version), ModelState(entry.state), entry.reason)


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
