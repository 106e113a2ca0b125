"""The runtime record, and telling whether its processes are alive."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.embedded.reaper import start_time_of
from control_plane.embedded.record import RECORDS, RuntimeRecord, boot_id, read_record
from control_plane.embedded.spec import Ownership, ServerSpec
from control_plane.errors import ServerStartError
from control_plane.state import Endpoints, ServerId

OWN_START = start_time_of(os.getpid()) or 0
RECORD = RuntimeRecord(
    spec=ServerSpec(
        ServerId("a"),
        Path("/models"),
        cpus=frozenset({0, 1}),
        extra_env=(("A", "b"),),
        ownership=Ownership.ADOPTABLE,
    ),
    endpoints=Endpoints(http="127.0.0.1:1", grpc="127.0.0.1:2", metrics="127.0.0.1:3"),
    run="r1",
    admin_key="secret",
    boot_id=boot_id(),
    server_pid=os.getpid(),
    server_start_time=OWN_START,
    reaper_pid=os.getpid(),
    reaper_start_time=OWN_START,
)


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    path.write_bytes(RECORDS.dump_json(RECORD))
    assert read_record(path) == RECORD
    assert "secret" not in repr(RECORD)


def test_none_there_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "server.json") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"run": 1}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    with pytest.raises(ServerStartError, match="cannot be read"):
        read_record(tmp_path / "server.json")


def test_a_running_server_is_its_pid_and_its_start_time_in_this_boot() -> None:
    assert RECORD.is_running()
    assert not replace(RECORD, server_start_time=OWN_START + 1).is_running()  # the pid is somebody else's now
    assert not replace(RECORD, reaper_start_time=OWN_START + 1).is_running()
    assert not replace(RECORD, boot_id="another").is_running()
    assert not replace(RECORD, server_pid=2**22 + 1).is_running()  # above any pid there can be
