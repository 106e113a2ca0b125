"""What a real tritonserver says to a config: each is given what it asks for (members, files) and loaded by itself.

Only the config is judged: the model behind it is a Python-backend model that takes anything. A config that kills the
server counts as refused. What was under way then, or too slow, is asked again by itself.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.serving import embedded_server

if TYPE_CHECKING:
    from control_plane.embedded import EmbeddedServer

MODEL = """\
import json
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        policy = json.loads(args["model_config"]).get("model_transaction_policy", {})
        self.decoupled = policy.get("decoupled", False)

    def execute(self, requests):
        if not self.decoupled:
            return [pb_utils.InferenceResponse([]) for _ in requests]
        for request in requests:
            request.get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""
LOAD_DEADLINE_S = 40.0
AT_ONCE = 4
LOG_LINES = 4000
_TOO_LATE = "Deadline Exceeded"


@dataclass(frozen=True, slots=True)
class Member:
    """A model that an ensemble calls."""

    text: str
    versions: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Question:
    """One config text and what it takes: the models of an ensemble, versions, and files below the model's folder.

    `override` is sent as the load call's `config` parameter, as the control plane does; the text counts where it is "".
    """

    text: str
    members: Mapping[str, Member] = field(default_factory=dict)
    versions: tuple[int, ...] = (1,)
    files: Mapping[str, bytes] = field(default_factory=dict)
    override: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the server loaded it, and its reason where not; `crashed`: the server died of it."""

    loaded: bool
    reason: str = ""
    crashed: bool = False


class ConfigCourt:
    """A server over an empty folder, to be used in a `with`; `ask` writes, loads and unloads models there.

    Auto-completion asks the model's own code for what its config leaves out. The one here has nothing to add, and a
    load takes ten times as long with it (0.16 s and 1.5 s were measured).
    """

    def __init__(self, repository: Path, *, auto_complete: bool = False) -> None:
        self._repository = repository
        self._arguments = () if auto_complete else ("--disable-auto-complete-config",)
        self._running = ExitStack()
        self._server: EmbeddedServer | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.close()

    def ask(self, questions: Mapping[str, Question]) -> dict[str, Verdict]:
        """Return the verdict on each; the keys are the models' names."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            verdicts = dict(zip(questions, pool.map(self._ask, questions, questions.values()), strict=True))
        doubtful = [name for name, verdict in verdicts.items() if verdict.crashed or verdict.reason == _TOO_LATE]
        if any(verdict.crashed for verdict in verdicts.values()):
            self._restart()
        for name in doubtful if len(questions) > 1 else ():  # by itself, it was itself
            verdicts[name] = self._ask(name, questions[name])
            if verdicts[name].crashed:
                self._restart()
        return verdicts

    def _start(self) -> None:
        self._server = self._running.enter_context(embedded_server(self._repository, *self._arguments))

    def _restart(self) -> None:
        self._running.close()
        self._start()

    def _ask(self, name: str, question: Question) -> Verdict:
        folders = [self._repository / entry for entry in (name, *question.members)]
        assert self._server is not None
        server = self._server.server
        headers = {"triton-grpc-protocol-admin-key": server.admin_key or ""}
        try:
            self._write(name, question.text, question.versions, question.files)
            for member, config in question.members.items():
                self._write(member, config.text, config.versions, {})
            with triton.InferenceServerClient(server.endpoints.grpc) as client:
                override = question.override or None
                client.load_model(name, headers=headers, config=override, client_timeout=LOAD_DEADLINE_S)
                client.unload_model(name, headers=headers, unload_dependents=True, client_timeout=LOAD_DEADLINE_S)
        except InferenceServerException as error:
            if error.status() == "StatusCode.UNAVAILABLE":
                return Verdict(loaded=False, reason="the server died", crashed=True)
            return Verdict(loaded=False, reason=self._reason(name, error.message()))
        finally:
            for folder in folders:
                if folder.exists():
                    shutil.rmtree(folder)
        return Verdict(loaded=True)

    def _write(self, name: str, text: str, versions: Sequence[int], files: Mapping[str, bytes]) -> None:
        folder = self._repository / name
        contents = {f"{version}/model.py": MODEL.encode() for version in versions}
        for path, content in {**contents, "config.pbtxt": text.encode(), **files}.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def _reason(self, name: str, message: str) -> str:
        """Return Triton's reason; of a config that does not validate only the log has it."""
        if "failed to poll" not in message:
            return message
        assert self._server is not None
        lines = [line for line in self._server.log_tail(LOG_LINES) if f"'{name}'" in line or f"/{name}/" in line]
        return lines[-1] if lines else message
