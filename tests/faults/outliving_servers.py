"""Real tritonservers that outlive the control plane that is killed over them: for `test_outliving_servers`.

The test's own process starts them and stops each at its end; to the control plane they are servers that its servers
file names.

Whether a load did anything is counted in each tritonserver's own log, where the Python backend says
`TRITONBACKEND_ModelInstanceInitialize` once for every instance that it starts. Triton leaves a model alone that is
ready as asked, or changes its number of instances in place, and then says that for no instance, or for the new ones. So
a model that was loaded twice to effect has a line too many, and a load that came to nothing has none. (As asked means
also that nothing in the version's folder is newer. Bytecode that an import leaves there is; so the models here have a
file `__pycache__`, like every version that the builders publish.)
"""

import asyncio
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from pydantic import TypeAdapter

from control_plane.embedded import EmbeddedServer
from control_plane.settings import Settings, load_settings
from control_plane.state import Server
from tests.embedded_triton import call
from tests.faults.test_control_plane_faults import process
from tests.serving import embedded_servers
from tests.small_models import multiplier

if TYPE_CHECKING:
    from subprocess import Popen

IDS = ("outer-0", "outer-1")
DEADLINE_S, _POLL_S = 60.0, 0.1
_STARTED = re.compile(r"TRITONBACKEND_ModelInstanceInitialize: (\w+?)_0(?:_\d+)? \(")
_OPEN = ("queued", "running", "waiting")

Row = tuple[str, int, str]
"""A line of a repository index: model, version, state."""


def publish(repository: Path, name: str, factor: float, version: int = 1, more: str = "") -> None:
    """Write a version of a multiplier that serving does not alter."""
    multiplier(repository, name, factor, version, more)
    (repository / name / str(version) / "__pycache__").touch()


class Gate:
    """What a model that is being loaded waits at: a file that is there while it is open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.code = f"from pathlib import Path\nwhile not Path({str(path)!r}).exists():\n    time.sleep(0.02)"

    def open(self) -> None:
        """Let through who waits, and who comes."""
        self._path.touch()

    def close(self) -> None:
        """Have who comes wait."""
        self._path.unlink(missing_ok=True)


class Site:
    """Two tritonservers, and a control plane process over them that can be killed and started again."""

    def __init__(self, settings: Settings, servers: tuple[EmbeddedServer, ...]) -> None:
        self.settings, self.servers = settings, servers
        self._marks = {server.spec.id: server.log_mark() for server in servers}
        self._life = ExitStack()
        self._process: Popen[str] | None = None
        self.client = httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def start(self) -> None:
        """Start a control plane; returns once it answers."""
        self._process, url = self._life.enter_context(process(self.settings))
        self.client = self._life.enter_context(httpx.Client(base_url=url, timeout=DEADLINE_S))

    def kill(self) -> None:
        """Kill -9 it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._life.close()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> None:
        """Ask the control plane for a change, and have it acknowledged."""
        response = self.client.post(f"/v1/deployments{path}", json=body)
        assert response.is_success, response.text

    def operations(self, *states: str) -> list[dict[str, Any]]:
        """Return the operations in these states, the newest first."""
        asked = [self.client.get("/v1/operations", params={"state": state}).json()["operations"] for state in states]
        return sorted((it for found in asked for it in found), key=lambda it: str(it["created_at"]), reverse=True)

    def status(self, deployment: str) -> str:
        """Return the state of a deployment."""
        return str(self.client.get(f"/v1/deployments/{deployment}").json()["status"]["state"])

    def rest(self, *deployments: str) -> None:
        """Wait until the deployments serve, no operation is open, and no tritonserver is at anything."""

        def at_rest() -> bool:
            served = all(self.status(it) == "serving" for it in deployments)
            return served and not self.operations(*_OPEN) and not any(self.busy(it.server) for it in self.servers)

        until(at_rest)

    def until_seen(self, row: Row) -> None:
        """Wait until the control plane has seen this on each server, and so has planned by it."""

        def seen() -> bool:
            servers = self.client.get("/v1/servers").json()["servers"]
            rows = [{(it["name"], it["version"], it["state"]) for it in one["models"]} for one in servers]
            return len(rows) == len(self.servers) and all(row in found for found in rows)

        until(seen)

    def until_loading(self, model: str) -> None:
        """Wait until each tritonserver says in its log that it begins to load a model; the index may not show it."""
        word = f'"loading: {model}:'
        until(lambda: all(any(word in it for it in log) for log in self._logs()))

    def ready(self) -> list[set[tuple[str, int]]]:
        """Return what is ready on each server."""
        return [{(model, version) for model, version, at in index(it.server) if at == "READY"} for it in self.servers]

    def busy(self, server: Server) -> bool:
        """Tell whether a tritonserver loads or unloads something."""
        return any(state in ("LOADING", "UNLOADING") for _, _, state in index(server))

    def started(self) -> list[dict[str, int]]:
        """Return how many instances of each model each server started since this was asked last."""
        logs = self._logs()
        self._marks = {server.spec.id: server.log_mark() for server in self.servers}
        return [dict(Counter(found[1] for line in log if (found := _STARTED.search(line)))) for log in logs]

    def _logs(self) -> list[list[str]]:
        return [asyncio.run(server.log_since(self._marks[server.spec.id])) for server in self.servers]


@contextmanager
def outliving_site(folder: Path) -> Iterator[Site]:
    """Have two tritonservers over `folder`/repository, and no control plane yet. All is gone afterwards."""
    repository, named = folder / "repository", folder / "servers.json"
    with embedded_servers(repository, *IDS) as servers:
        named.write_bytes(
            TypeAdapter(list[Server]).dump_json(
                [it.server for it in servers], exclude={"__all__": {"source", "reserved_for"}}
            )
        )
        given = {"servers": 0, "servers_file": named, "reconcile_interval_s": 0.5, "state_path": folder / "state.db"}
        with Site(load_settings({"port": 0, "model_repository": repository, **given}), servers) as site:
            yield site


def until(reached: Callable[[], bool]) -> None:
    """Wait for something that the processes come to by themselves."""
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() - begun < DEADLINE_S, "not reached"
        time.sleep(_POLL_S)


def index(server: Server) -> set[Row]:
    """Return what a tritonserver's own index shows, without what it was never asked for."""
    headers = {"triton-admin-key": server.admin_key or ""}
    status, body = call(server.endpoints.http, "POST", "/v2/repository/index", {}, headers)
    assert status == 200, body
    return {(it["name"], int(it["version"]), it["state"]) for it in json.loads(body) if it.get("state")}
