"""Reading the log across rotations, as `reaper.RotatingLog` writes it."""

from pathlib import Path

import pytest

from control_plane.embedded.log_window import LogMark, LogWindow
from control_plane.embedded.reaper import RotatingLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tritonserver.log"


def test_an_absent_log_is_empty(path: Path) -> None:
    window = LogWindow(path)
    assert window.mark() == LogMark(0, 0)
    assert window.tail(5) == []


def test_since_gives_what_came_after_the_mark(path: Path) -> None:
    log, window = RotatingLog(path, cap=1000), LogWindow(path)
    log.write(b"one\n")
    mark = window.mark()
    assert window.since(mark) == []
    log.write(b"two\nthree\n")
    assert window.since(mark) == ["two", "three"]
    assert window.since(LogMark(0, 0)) == ["one", "two", "three"]
    assert window.tail(2) == ["two", "three"]
    log.close()


def test_a_mark_outlives_one_rotation_and_a_restart_of_the_writer(path: Path) -> None:
    log, window = RotatingLog(path, cap=70), LogWindow(path)
    log.write(b"before\n")
    mark = window.mark()
    log.write(b"after 1\n")
    log.close()
    log = RotatingLog(path, cap=70)  # the next life of the server appends
    log.write(b"x" * 30 + b"\n")
    assert path.with_suffix(".log.1").exists()
    log.write(b"after 2\n")
    assert window.since(mark) == ["after 1", "x" * 30, "after 2"]
    assert window.tail(3) == ["after 1", "x" * 30, "after 2"]
    log.close()


def test_what_was_rotated_away_is_gone_and_the_size_is_bounded(path: Path) -> None:
    log, window = RotatingLog(path, cap=100), LogWindow(path)
    mark = window.mark()
    for number in range(50):
        log.write(b"line %d\n" % number)
    lines = window.since(mark)
    assert lines[-1] == "line 49"
    assert lines == [f"line {number}" for number in range(50 - len(lines), 50)]
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= 200
    log.close()


def test_a_line_cut_by_a_rotation_is_whole_again(path: Path) -> None:
    log, window = RotatingLog(path, cap=50), LogWindow(path)
    log.write(b"a" * 20)
    log.write(b"b" * 20 + b"\n")
    assert window.tail(1) == ["a" * 20 + "b" * 20]
    log.close()


def test_bytes_that_are_no_text_do_not_break_it(path: Path) -> None:
    log = RotatingLog(path, cap=1000)
    log.write(b"\xff\xfe ok\n")
    assert LogWindow(path).tail(1) == ["\ufffd\ufffd ok"]
    log.close()


def test_a_full_disk_loses_lines_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RotatingLog(path, cap=1000)
    with monkeypatch.context() as full, Path("/dev/full").open("wb") as no_room:
        full.setattr(log, "_file", no_room.fileno())
        log.write(b"lost\n")
    log.write(b"kept\n")
    assert LogWindow(path).tail(2) == ["(5 bytes of log were lost: the disk was full)", "kept"]
    log.close()
