"""A machine with GPUs whose agent is asked over mutual TLS: the `GpuNode` of another machine.

Each side shows a certificate of one authority; without one of it, neither talks. What an agent tells of itself is
believed, since it alone sees its GPUs.
"""

import ssl
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import ValidationError

from control_plane.adapters.agent_wire import SERVERS, VIEWS, AgentError, RestartBody, SliceBody, heard
from control_plane.errors import DeadlineExceededError, ServerUnreachableError
from control_plane.nodes import NodeSlice, NodeView
from control_plane.ports import ServerLog
from control_plane.state import Server, ServerId

_ASK_S, _ACT_S = 5.0, 120.0


class AgentNode:
    """The agent at `url` (https). Use from one event loop; `close` ends it."""

    def __init__(self, name: str, url: str, context: ssl.SSLContext) -> None:
        self._name, self._url = name, url
        self._client = httpx.AsyncClient(base_url=url, verify=context)

    @property
    def name(self) -> str:
        """What it is called here."""
        return self._name

    async def close(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def look(self) -> NodeView:
        """Read its GPUs and servers; see the port."""
        answer = await self._ask("GET", "/v1/node", _ASK_S)
        try:
            return VIEWS.validate_json(answer.content)
        except ValidationError as error:
            raise AgentError(
                f"Agent {self._name} at {self._url} tells of itself what cannot be read: {error}"
            ) from error

    async def create(self, wanted: NodeSlice) -> Server:
        """Have it cut a slice and run a server there; see the port."""
        body = SliceBody.to(wanted).model_dump()
        answer = await self._ask("PUT", f"/v1/slices/{wanted.server}", _ACT_S, body)
        return SERVERS.validate_json(answer.content)

    async def destroy(self, left: NodeSlice) -> None:
        """Have it stop a slice's server and give the slice's room back; see the port."""
        await self._ask("POST", f"/v1/slices/{left.server}/destroy", _ACT_S, SliceBody.to(left).model_dump())

    async def restart(self, server: ServerId, reason: str) -> bool:
        """Have it restart a server; see the port."""
        answer = await self._ask(
            "POST", f"/v1/slices/{server}/restart", _ACT_S, RestartBody(reason=reason).model_dump()
        )
        return bool(answer.json())

    def log_of(self, server: ServerId) -> ServerLog | None:
        """None: its logs are on its machine."""
        del server
        return None

    def note(self, server: ServerId) -> str:
        """Say nothing: its processes are on its machine."""
        del server
        return ""

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Hear of nothing: it is looked at in every pass."""
        del changed
        return lambda: None

    async def _ask(self, method: str, path: str, seconds: float, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, json=body, timeout=seconds)
        except httpx.TimeoutException as error:
            raise DeadlineExceededError(
                f"Agent {self._name} at {self._url} did not answer within {seconds:g} s."
            ) from error
        except httpx.HTTPError as error:
            raise ServerUnreachableError(f"Agent {self._name} at {self._url} cannot be reached: {error}") from error
        if answer.is_success:
            return answer
        try:
            said = answer.json()
        except ValueError:
            said = None
        raise heard(said, f"Agent {self._name} at {self._url} (HTTP {answer.status_code})")
