"""`serve` where it must not start: the cause, the next step, and exit code 1. Serving itself: tests/integration."""

import socket
from pathlib import Path

import pytest

from tests.command_line import run_here


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "repository").mkdir()
    return ("-r", str(tmp_path / "repository"), "--state", str(tmp_path / "state.db"), "--port", "0")


def test_an_open_address_without_a_token_is_refused(options: tuple[str, ...]) -> None:
    ended = run_here("serve", *options, "--host", "0.0.0.0")  # noqa: S104 - that it is refused is the point
    assert (ended.code, ended.out) == (1, "")
    assert "set TRITONFLEET_TOKEN" in ended.flat


def test_a_repository_that_is_none_is_refused(options: tuple[str, ...], tmp_path: Path) -> None:
    ended = run_here("serve", *options, "-r", str(tmp_path / "nowhere"))
    assert (ended.code, ended.out) == (1, "")
    assert "nowhere is no folder" in ended.flat


def test_a_taken_port_is_named(options: tuple[str, ...], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run_here("serve", *options, "--port", str(port))
    assert (ended.code, ended.out) == (1, "")
    assert f"Cannot listen on 127.0.0.1:{port}" in ended.flat
    assert "or give another TRITONFLEET_PORT" in ended.flat
    assert not (tmp_path / "state.db").exists()


def test_a_state_file_that_is_none_is_told(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("not a database " * 100)
    ended = run_here("serve", *options)
    assert (ended.code, ended.out) == (1, "")
    assert "state.db" in ended.flat


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRITONFLEET_SERVER", "2", "There is no setting TRITONFLEET_SERVER"),
        ("TRITONFLEET_SERVERS", "many", "TRITONFLEET_SERVERS: Input should be a valid integer"),
    ],
)
def test_settings_that_are_wrong_are_named(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    ended = run_here("serve", *options)
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.flat


def test_the_commands_own_variable_is_no_wrong_setting(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRITONFLEET_URL", "http://127.0.0.1:8700")
    ended = run_here("serve", *options, "-r", str(tmp_path / "nowhere"))
    assert "nowhere is no folder" in ended.flat
