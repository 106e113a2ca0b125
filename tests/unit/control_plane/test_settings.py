"""Settings: where they come from, and what is refused."""

from pathlib import Path

import pytest

from builders.supply_chain.keys import KEY_PASSWORD_VARIABLE, KEY_PATH_VARIABLE, KEY_TEXT_VARIABLE
from control_plane.errors import SettingsError
from control_plane.settings import load_settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITONFLEET_MODEL_REPOSITORY", str(tmp_path))


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.servers) == ("127.0.0.1", 8700, 1)
    assert settings.state_path == Path(".tritonfleet/state.db")
    settings.validate_binding()


def test_the_environment_and_what_is_given_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFLEET_PORT", "9000")
    monkeypatch.setenv("TRITONFLEET_SERVERS", "2")
    settings = load_settings({"port": 9001})
    assert (settings.port, settings.servers) == (9001, 2)


def test_every_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFLEET_PORT", "many")
    monkeypatch.setenv("TRITONFLEET_SERVERS", "-1")
    with pytest.raises(SettingsError, match=r"(?s)TRITONFLEET_PORT: .*TRITONFLEET_SERVERS: "):
        load_settings()


def test_an_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="TRITONFLEET_PROT"):
        load_settings({"prot": 1})
    monkeypatch.setenv("TRITONFLEET_PROT", "1")
    with pytest.raises(SettingsError, match=r"There is no setting TRITONFLEET_PROT; there are: .*TRITONFLEET_PORT"):
        load_settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "fleet.example"])  # noqa: S104 - refused, which is the point
def test_other_machines_are_let_in_with_a_token_only(host: str) -> None:
    with pytest.raises(SettingsError, match="TRITONFLEET_TOKEN"):
        load_settings({"host": host}).validate_binding()
    with pytest.raises(SettingsError, match="TRITONFLEET_TOKEN"):
        load_settings({"host": host, "token": ""}).validate_binding()
    load_settings({"host": host, "token": "secret"}).validate_binding()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    load_settings({"host": host}).validate_binding()


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(load_settings({"token": "secret"}))


def test_a_repository_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TRITONFLEET_MODEL_REPOSITORY"):
        load_settings({"model_repository": tmp_path / "none"}).validate_binding()


@pytest.mark.parametrize("policy", ["warn", "require"])
def test_signatures_are_looked_at_with_a_key_only(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    monkeypatch.setenv("TRITONFLEET_SIGNATURE_POLICY", policy)
    with pytest.raises(SettingsError, match=f"SIGNATURE_POLICY is {policy}, .* TRITONFLEET_PUBLIC_KEY"):
        load_settings()
    monkeypatch.setenv("TRITONFLEET_PUBLIC_KEY", "/keys/tritonfleet.pub")
    assert load_settings().public_key == Path("/keys/tritonfleet.pub")


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="TRITONFLEET_SIGNATURE_POLICY: Input should be 'off', 'warn' or 'require'"):
        load_settings({"signature_policy": "on"})


def test_what_other_commands_read_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KEY_PATH_VARIABLE, KEY_TEXT_VARIABLE, KEY_PASSWORD_VARIABLE, "TRITONFLEET_ARTIFACT_STORE"):
        monkeypatch.setenv(name, "x")
    load_settings()


def test_gpus_that_are_cut_take_the_place_of_embedded_servers() -> None:
    cut = load_settings({"simulate": "h100-80gb:2", "warm": "1g.10gb:2,3g.40gb:1"})
    assert (cut.embedded_servers, cut.warm_counts) == (0, {"1g.10gb": 2, "3g.40gb": 1})
    asked = load_settings({"agents": "gpu1=https://a:8710,gpu2=https://b:8710"})
    assert (asked.embedded_servers, asked.agent_urls["gpu2"]) == (0, "https://b:8710")
    with pytest.raises(SettingsError, match=r"TRITONFLEET_AGENT_AUTHORITY, .*TRITONFLEET_AGENT_KEY"):
        asked.agent_files()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"simulate": "h100-80gb:2", "servers": 1}, "leave SERVERS out"),
        ({"simulate": "h100"}, "did you mean 'h100-80gb'"),
        ({"agents": "http://a:8710"}, "NAME=https://HOST:PORT"),
        ({"warm": "1g.10gb"}, "PROFILE:COUNT"),
        ({"moves_per_hour": -1}, "MOVES_PER_HOUR"),
    ],
)
def test_what_is_wrong_with_gpus_is_told(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(given)
