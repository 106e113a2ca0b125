"""The REST API as the commands use it: one small client, whose errors carry the server's causes and next step."""

import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Self
from urllib.parse import quote

import httpx
import typer

from control_plane.settings import CLIENT_URL_VARIABLE, ENV_PREFIX

TOKEN_VARIABLE = f"{ENV_PREFIX}TOKEN"
DEFAULT_URL = "http://127.0.0.1:8700"

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar=CLIENT_URL_VARIABLE, help="Where the control plane answers (`tritonfleet serve` prints it)."
    ),
]
Token = Annotated[
    str | None, typer.Option("--token", envvar=TOKEN_VARIABLE, help="The control plane's token, where it has one.")
]

_DEADLINE_S = 30.0
_SILENCE_S = 45.0
"""A stream says something every 15 s; one that was silent for three of those has lost its control plane."""

Query = Mapping[str, str | Sequence[str]]


class ApiError(Exception):
    """The control plane answered with an error."""

    def __init__(self, status: int, title: str, causes: list[str], next_step: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.causes = causes
        self.next_step = next_step


class UnreachableError(Exception):
    """No control plane answered. `str()` names the address."""


class ControlPlaneClient:
    """Calls to one control plane; a context manager. Each call has a deadline of 30 s on top of what it waits for."""

    def __init__(self, url: str, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._url = url
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=_DEADLINE_S, trust_env=False)
        except httpx.InvalidURL as exc:
            raise UnreachableError(f"{url} is not an address: {exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str | Sequence[str]) -> Any:  # noqa: ANN401 - JSON
        """Return what GET `path` answers. Raises ApiError, UnreachableError."""
        return self._call("GET", path, query=query)

    def text(self, path: str) -> str:
        """Return what a GET answers, as it is. Raises ApiError, UnreachableError."""
        response = self._response("GET", path)
        if not response.is_success:
            _answer_of(response)
        return response.text

    def post(self, path: str, body: object = None, wait_s: float = 0, **query: str) -> Any:  # noqa: ANN401 - JSON
        """Return what POST `path` answers after at most `wait_s`. Raises ApiError, UnreachableError."""
        return self._call("POST", path, body, wait_s, query)

    def change(self, method: str, path: str, body: object, wait_s: float, *, revision: int | None, **query: str) -> Any:  # noqa: ANN401 - JSON
        """Return what a change of a deployment answers; refused where `revision` is given and no longer the present.

        Raises ApiError, UnreachableError.
        """
        headers = {} if revision is None else {"if-match": f'"{revision}"'}
        return self._call(method, path, body, wait_s, query, headers)

    def delete(self, path: str, wait_s: float = 0, **query: str) -> Any:  # noqa: ANN401 - JSON
        """Return what DELETE `path` answers after at most `wait_s`. Raises ApiError, UnreachableError."""
        return self._call("DELETE", path, None, wait_s, query)

    def events(self, path: str, **query: str) -> Iterator[Any]:
        """Yield the data of each server-sent event of `path`, and None whenever the stream only says that it lives.

        Ends where the control plane ends the stream. Raises ApiError, UnreachableError.
        """
        timeout = httpx.Timeout(_DEADLINE_S, read=_SILENCE_S)
        try:
            with self._http.stream("GET", path, params=query or None, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    _answer_of(response)
                for line in response.iter_lines():
                    if line.startswith(":"):
                        yield None
                    elif line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.TimeoutException as exc:
            raise UnreachableError(f"the control plane at {self._url} did not answer in time") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnreachableError(f"no control plane answers at {self._url} ({exc})") from exc
        except json.JSONDecodeError as exc:
            cause = f"An event of {self._url}{path} is no JSON."
            raise ApiError(HTTPStatus.OK, "Unexpected answer", [cause], "Check --url.") from exc

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        wait_s: float = 0,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        asked = {**({"wait": f"{wait_s:g}"} if wait_s else {}), **(query or {})}
        timeout = _DEADLINE_S + wait_s
        return _answer_of(
            self._response(method, path, params=asked or None, json=body, headers=headers, timeout=timeout)
        )

    def _response(self, method: str, path: str, **given: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        try:
            return self._http.request(method, path, **given)
        except httpx.TimeoutException as exc:
            raise UnreachableError(f"the control plane at {self._url} did not answer in time") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnreachableError(f"no control plane answers at {self._url} ({exc})") from exc


def deployment_path(name: str) -> str:
    """Return the path of the deployment `name`, whatever characters the user gave."""
    return f"/v1/deployments/{segment(name)}"


def segment(text: str) -> str:
    """Return `text` as one segment of a path, whatever characters the user gave."""
    return quote(text, safe="", errors="replace")


def _answer_of(response: httpx.Response) -> object:
    """Return the JSON object in an answer, or None where it has none. Raises ApiError."""
    if response.status_code == HTTPStatus.NO_CONTENT:
        return None
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict):
        return body
    raise _api_error(response, body)


def _api_error(response: httpx.Response, body: Any) -> ApiError:  # noqa: ANN401 - JSON
    try:
        return ApiError(response.status_code, body["title"], list(body["causes"]), body["next_step"])
    except (KeyError, TypeError):
        cause = (
            f"HTTP {response.status_code} from {response.url}, which is not an answer of a Tritonfleet control plane"
        )
        return ApiError(response.status_code, "Unexpected answer", [cause], "Check --url.")
