"""The whole command: what it teaches, how it ends, and that nothing but the result is on standard output."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from control_plane.cli.client import TOKEN_VARIABLE
from control_plane.cli.main import app
from control_plane.settings import CLIENT_URL_VARIABLE
from tests.command_line import command_line, environment, run_apart, run_here
from tests.scripted_http import Answer, scripted_server

COMMANDS = (
    *("build", "publish", "import", "verify", "measure", "verify-signature"),
    *(
        "serve",
        "agent",
        "certificates",
        "deploy",
        "undeploy",
        "scale",
        "rollback",
        "revisions",
        "status",
        "plan",
        "explain",
    ),
    *("operations", "cancel", "watch", "endpoints", "gpus", "infer", "demo"),
)
GROUPS = ("key", "server", "placement")
SERVER_COMMANDS = ("list", "show", "add", "remove", "drain", "resume", "restart", "release")
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def test_there_are_no_other_commands() -> None:
    assert [command.name for command in app.registered_commands] == list(COMMANDS)
    assert [group.name for group in app.registered_groups] == list(GROUPS)


@pytest.mark.parametrize("command", [*COMMANDS, *(f"server {it}" for it in SERVER_COMMANDS)])
def test_every_help_has_an_example_that_the_command_takes(command: str) -> None:
    ended = run_here(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"tritonfleet {command} [OPTIONS]" in ended.out
    assert f"xample: tritonfleet {command}" in ended.flat
    assert "--json" in ended.out or command in {"serve", "agent"}


def test_the_first_help_names_every_command_and_the_exit_codes() -> None:
    ended = run_here("--help")
    assert ended.code == 0
    assert all(command in ended.out for command in COMMANDS)
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no control plane" in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage: tritonfleet"),
        (("deply", "m"), "No such command 'deply'"),
        (("deploy",), "Missing argument"),
        (("undeploy",), "Missing argument"),
        (("infer",), "Missing argument"),
        (("deploy", "m", "--version", "0"), "--version"),
        (("deploy", "m", "--version", "new"), "--version"),
        (("deploy", "m", "--wait", "601"), "--wait"),
        (("deploy", "m", "--redeploy", "--version", "2"), "leave --version out"),
        (("undeploy", "m", "--wait", "-1"), "--wait"),
        (("status", "--watch", "--json"), "leave out"),
        (("infer", "m", "text", "--protocol", "smtp"), "--protocol"),
        (("serve", "--port", "70000"), "--port"),
        (("serve", "--servers", "0"), "--servers"),
        (("demo", "--seconds", "0"), "--seconds"),
        (("build", "--sentences"), "No such option"),
        (("build", "--shard", "3/2"), "--shard is i/n"),
        (("build", "--all", "m"), "not both"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    ended = run_here(*arguments)
    assert ended.code == 2
    assert said in ended.flat
    assert not arguments or ended.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        *(("deploy", "m"), ("undeploy", "m"), ("status",), ("infer", "m", "text"), ("scale", "m", "--replicas", "1")),
        *(("rollback", "m"), ("revisions", "m"), ("plan",), ("explain", "m"), ("operations",), ("cancel", "o")),
        *(("watch",), ("watch", "m"), ("endpoints", "m"), ("endpoints", "m", "--watch")),
        *(("server", "list"), ("server", "drain", "s"), ("server", "release", "s", "m")),
    ],
)
def test_no_control_plane_ends_with_3_and_says_how_to_start_one(arguments: tuple[str, ...]) -> None:
    ended = run_here(*arguments, "--url", NOBODY, "--json")
    assert (ended.code, ended.out) == (3, "")
    assert f"no control plane answers at {NOBODY}" in ended.err
    assert "next: start one with `tritonfleet serve`, or set --url or TRITONFLEET_URL" in ended.err


@pytest.mark.parametrize("url", ["nonsense", "http://[", "http://127.0.0.1:port", "ftp://127.0.0.1", ""])
def test_an_address_that_is_none_ends_with_3(url: str) -> None:
    ended = run_here("status", "--url", url)
    assert ended.code == 3
    assert "next: " in ended.err


@pytest.mark.parametrize(
    "answer",
    [Answer(b"<html>"), Answer(b"[1]"), Answer(b"<html>", 502), Answer({"detail": "?"}, 404), Answer(b"", 301)],
)
def test_another_server_at_the_address_is_recognised(answer: Answer) -> None:
    with scripted_server() as server:
        server.answer("GET /v1/servers", answer)
        ended = run_here("status", "--url", server.url, "--json")
    assert (ended.code, ended.out) == (1, "")
    assert f"HTTP {answer.status} from {server.url}/v1/servers" in ended.err
    assert "next: Check --url." in ended.err


def test_the_control_planes_causes_and_next_step_are_told_as_they_are() -> None:
    with scripted_server() as server:
        problem = {"title": "No [red]way", "causes": ["[StatusCode.X] :cat:", "[/closed]"], "next_step": "Try [b]."}
        server.answer("GET /v1/servers", Answer(problem, 503))
        ended = run_here("status", "--url", server.url)
    assert ended.code == 1
    assert ended.err == "error: No [red]way\n  [StatusCode.X] :cat:\n  [/closed]\nnext: Try [b].\n"


def test_address_and_token_come_from_the_environment() -> None:
    with scripted_server() as server:
        server.answer("GET /v1/deployments/d", {"name": "d"})
        ended = run_apart("status", "d", "--json", **{CLIENT_URL_VARIABLE: server.url, TOKEN_VARIABLE: "secret"})
    assert (ended.code, ended.data, ended.err) == (0, {"name": "d"}, "")
    assert server.asked[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_code_and_no_traceback(number: signal.Signals, code: int) -> None:
    with scripted_server() as server:
        server.answer("GET /v1/servers", {"servers": []})
        server.answer("GET /v1/deployments", {"deployments": []})
        server.answer("GET /v1/models", {"models": []})
        watching = command_line("status", "--watch", "--url", server.url)
        with subprocess.Popen(
            watching, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while len(server.asked) < 3:
                assert process.poll() is None
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with scripted_server() as server, os.fdopen(writing, "wb") as nobody_reads:
        server.answer("GET /v1/deployments/d", {"name": "d" * 100_000})
        arguments = command_line("status", "d", "--json", "--url", server.url)
        done = subprocess.run(
            arguments, env=environment(), stdout=nobody_reads, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "pwsh"])
def test_completion_scripts_name_the_command(shell: str) -> None:
    # Typer finds the shell by looking at its parents; this variable makes the shell an argument, for such tests.
    shown = run_apart("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (shown.code, shown.err) == (0, "")
    assert "_TRITONFLEET_COMPLETE" in shown.out
    assert "tritonfleet" in shown.out


def test_completion_completes_commands_and_options() -> None:
    words = {"_TRITONFLEET_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    commands = run_apart(**words, COMP_WORDS="tritonfleet ")
    assert sorted(commands.out.split()) == sorted((*COMMANDS, *GROUPS))
    options = run_apart(**{**words, "COMP_CWORD": "2"}, COMP_WORDS="tritonfleet deploy --red")
    assert options.out.split() == ["--redeploy"]


def test_completion_is_installed_into_the_users_shell(tmp_path: Path) -> None:
    installed = run_apart(
        "--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert installed.code == 0, installed
    script = tmp_path / ".bash_completions" / "tritonfleet.sh"
    assert "_TRITONFLEET_COMPLETE" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
