"""The demo's figures and its settings. The demo itself: tests/integration."""

from pathlib import Path

import numpy as np
import pytest

from control_plane.cli.demo import SENTENCES, Measured, _settings, neighbours
from tests.command_line import run_here


def test_neighbours_are_mutual_pairs_once_and_best_first() -> None:
    angles = np.repeat(np.arange(6) * 0.5, 2) + np.tile([0.0, 0.1], 6)
    rows = neighbours(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    pairs = {(row["sentence"], row["nearest"]) for row in rows}
    assert pairs == {(SENTENCES[index], SENTENCES[index + 1]) for index in range(0, 12, 2)}
    assert [row["cosine"] for row in rows] == sorted((row["cosine"] for row in rows), reverse=True)


def test_figures_of_what_was_measured() -> None:
    measured = Measured([float(ms) for ms in range(1, 101)], seconds=4.0)
    assert measured.rate == 25.0
    assert (measured.percentile(50), measured.percentile(99)) == (51.0, 100.0)


def test_the_environments_settings_of_serve_are_not_the_demos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"HOST": "0.0.0.0", "TOKEN": "secret", "SERVERS": "many", "PORT": "1"}.items():  # noqa: S104
        monkeypatch.setenv(f"TRITONFLEET_{name}", value)
    settings = _settings(tmp_path, tmp_path / "state.db")
    assert (settings.host, settings.port, settings.token, settings.servers) == ("127.0.0.1", 0, None, 1)


def test_a_repository_without_packages_is_told(tmp_path: Path) -> None:
    ended = run_here("demo", "-r", str(tmp_path), "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "has no package text_embedding; it has: none" in ended.flat
