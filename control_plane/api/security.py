"""Who may call, and with how much.

A bearer token where one is configured, on loopback only requests that mean this machine, and bodies of a bounded size.
A web page that a browser of this machine shows can send requests here under a name it chose for 127.0.0.1 (DNS
rebinding); its Host header gives it away. It can also send them without reading the answer, which is enough to change
something; browsers say so in Sec-Fetch-Site and Origin, and programs send neither. An ASGI middleware, so that it
holds for every path there is.
"""

import hmac
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.problems import Problem

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
LARGEST_BODY = 1024 * 1024
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}  # browsers leave these out
OPEN_PATHS = frozenset({"/v1/health/live"})


@dataclass(frozen=True, slots=True)
class Access:
    """`token` is asked of every call when set. `loopback_only` refuses a Host that is not this machine's loopback."""

    token: str | None = None
    loopback_only: bool = True

    def __repr__(self) -> str:
        """Like the generated one, without the secret."""
        return f"Access(token={'***' if self.token else None}, loopback_only={self.loopback_only})"


class Guard:
    """ASGI middleware that lets through what `access` allows."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in place of the app, or hand over to it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            problem = (
                self._wrong_host(headers)
                or _from_another_site(headers, scope["method"])
                or self._wrong_token(headers, scope["path"])
            )
            if problem is not None:
                extra = {"WWW-Authenticate": "Bearer"} if problem.status is HTTPStatus.UNAUTHORIZED else None
                await problem.response(extra)(scope, receive, send)
                return
            receive = _bounded(receive)
        await self._app(scope, receive, send)

    def _wrong_host(self, headers: Headers) -> Problem | None:
        if not self._access.loopback_only or _host_name(headers.get("host", "")) in LOOPBACK_NAMES:
            return None
        cause = f"The Host header says '{headers.get('host', '')}'; this control plane serves its own machine only."
        step = "Call http://127.0.0.1:<port>, or start it with a token and another TRITONFLEET_HOST."
        return Problem(HTTPStatus.MISDIRECTED_REQUEST, "wrong-host", "Not for this host", (cause,), step)

    def _wrong_token(self, headers: Headers, path: str) -> Problem | None:
        if self._access.token is None or path in OPEN_PATHS:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._access.token.encode()):
            return None
        cause = "The request carries no bearer token." if not given else "The bearer token is not the right one."
        step = "Send `Authorization: Bearer <token>`; the token is what TRITONFLEET_TOKEN is on the control plane."
        return Problem(HTTPStatus.UNAUTHORIZED, "unauthorized", "A token is needed", (cause,), step)


def _from_another_site(headers: Headers, method: str) -> Problem | None:
    """Refuse to change anything for a web page that is not this control plane's own."""
    if method in _READING or (_same_site(headers) and _same_origin(headers)):
        return None
    origin = headers.get("origin")
    cause = "A web page of another site sent this request" + (f" (Origin: {origin})." if origin else ".")
    step = "Use the command line, /docs of this control plane itself, or a client that is no web page."
    return Problem(HTTPStatus.FORBIDDEN, "cross-site", "Not for other web pages", (cause,), step)


def _same_site(headers: Headers) -> bool:
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _same_origin(headers: Headers) -> bool:
    """Tell whether Origin, where there is one, is what Host says. The scheme is a proxy's to know, not ours."""
    origin = headers.get("origin")
    if origin is None:
        return True
    scheme, separator, authority = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    host = headers.get("host", "").lower()
    return bool(separator and authority) and authority.removesuffix(port) == host.removesuffix(port)


def _bounded(receive: Receive) -> Receive:
    """Pass a body on as long as it is not larger than LARGEST_BODY bytes."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            detail = f"the body is larger than {LARGEST_BODY} bytes"
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        return message

    return bounded


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # such as an unfinished [::1
        return ""
