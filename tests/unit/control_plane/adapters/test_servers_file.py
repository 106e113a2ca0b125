"""The servers file: what it may say, what is refused, and every way in which its content can change."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters.servers_file import ServersFile
from control_plane.errors import SettingsError
from control_plane.planning.discovery import DnsName, Entry, Family
from control_plane.state import Device, Endpoints, Server, ServerId, Source

WHERE = {"http": "h:1", "grpc": "[fd00::1]:2", "metrics": "10.0.0.1:3"}
GPU = {"uuid": "GPU-1", "product": "H100", "compute_capability": "9.0", "memory_bytes": 80 * 10**9}


def read(tmp_path: Path, *entries: dict[str, Any]) -> tuple[Entry, ...]:
    path = tmp_path / "servers.json"
    path.write_text(json.dumps(entries))
    return ServersFile(path).read()


def ids(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.server.id for entry in entries]


def test_a_server_with_all_that_can_be_said_of_it(tmp_path: Path) -> None:
    (entry,) = read(
        tmp_path,
        {
            "id": "gpu-7",
            "endpoints": WHERE,
            "admin_key": "secret",
            "compute_capabilities": ["8.9"],
            "backends": ["tensorrt"],
            "versions": {"onnxruntime": "1.23"},
            "devices": [GPU],
            "memory_bytes": 5,
            "pool": "big",
            "labels": {"zone": "a"},
            "repository": "/srv/models",
        },
    )
    device = Device("GPU-1", "H100", "9.0", 80 * 10**9)
    assert entry == Entry(
        Server(
            ServerId("gpu-7"),
            Endpoints("h:1", "[fd00::1]:2", "10.0.0.1:3"),
            "secret",
            ("8.9", "9.0"),
            frozenset({"tensorrt"}),
            {"onnxruntime": "1.23"},
            (device,),
            5,
            "big",
            {"zone": "a"},
            "/srv/models",
            Source.FILE,
        )
    )


def test_what_devices_say_need_not_be_said_again(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, {"id": "gpu-7", "endpoints": WHERE, "devices": [GPU]})
    assert (entry.server.compute_capabilities, entry.server.memory_bytes) == (("9.0",), 80 * 10**9)
    assert entry.server.backends == {"python", "onnxruntime"}


def test_a_name_in_place_of_addresses(tmp_path: Path) -> None:
    name = {"dns": "triton-h100.ml.svc.cluster.local", "grpc_port": 9001, "family": "ipv4"}
    (entry,) = read(tmp_path, {"id": "h100", "discover": name, "pool": "big"})
    assert entry.discover == DnsName("triton-h100.ml.svc.cluster.local", 8000, 9001, 8002, Family.IPV4)
    assert (entry.server.id, entry.server.pool) == ("h100", "big")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"endpoints": WHERE}, "0.id: Field required"),
        ({"id": "a"}, "0: Value error, give either endpoints or discover"),
        ({"id": "a", "endpoints": WHERE, "discover": {"dns": "x"}}, "give either endpoints or discover"),
        ({"id": "a", "endpoints": WHERE, "pol": "big"}, "0.pol: Extra inputs are not permitted"),
        ({"id": "a", "endpoints": WHERE, "source": "embedded"}, "0.source: Extra inputs"),
        ({"id": "a", "endpoints": {**WHERE, "grcp": "h:1"}}, "0.endpoints.grcp: Extra inputs"),
        ({"id": "a", "endpoints": {**WHERE, "grpc": "http://h:1"}}, "0.endpoints.grpc: String should match"),
        ({"id": "a", "endpoints": WHERE, "memory_bytes": "many"}, "0.memory_bytes: Input should be a valid integer"),
        ({"id": "a", "discover": {"dns": "x", "port": 1}}, "0.discover.port: Extra inputs"),
        ({"id": "a", "discover": {"dns": "x y"}}, "0.discover.dns: String should match"),
        ({"id": "a", "discover": {"dns": "x", "grpc_port": 0}}, "0.discover.grpc_port: Input should be greater"),
        ({"id": "a", "discover": {"dns": "x"}, "repository": "/r"}, "leave repository out"),
        ({"id": "a b", "endpoints": WHERE}, "0.id: String should match"),
        ({"id": "a", "endpoints": WHERE, "devices": [GPU, {"uuid": "M", "mig_profile": "1g.10gb"}]}, "one MIG slice"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=r"servers\.json: ") as caught:
        read(tmp_path, entry)
    assert said in str(caught.value)


def test_a_refusal_does_not_show_the_admin_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, {"id": "a", "endpoints": WHERE, "admin_key": ["secret"]})
    assert "secret" not in str(caught.value)


def test_an_id_that_is_there_twice_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names a twice"):
        read(tmp_path, {"id": "a", "endpoints": WHERE}, {"id": "a", "discover": {"dns": "x"}})


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"\xff", b'["a"]', b"null"])
def test_what_is_no_list_of_entries_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(SettingsError, match=r"The file of servers .*/f: "):
        ServersFile(tmp_path / "f").read()


def test_a_file_that_cannot_be_read_or_is_far_too_big_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        ServersFile(tmp_path / "none").read()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        ServersFile(tmp_path).read()
    (tmp_path / "big").write_bytes(b" " * (16 * 2**20 + 1))
    with pytest.raises(SettingsError, match="more than 16 MiB"):
        ServersFile(tmp_path / "big").read()


def one(name: str) -> str:
    return json.dumps([{"id": name, "endpoints": WHERE}])


def test_every_way_to_change_the_content_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text(one("a"))
    file = ServersFile(path)
    assert ids(file.read()) == ["a"]
    assert file.read() is file.read()
    before = path.stat()
    path.write_text(one("b"))  # in place, of the same size, with the same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ids(file.read()) == ["b"]
    (tmp_path / "new").write_text(one("c"))
    (tmp_path / "new").replace(path)
    assert ids(file.read()) == ["c"]
    path.unlink()
    with pytest.raises(SettingsError):
        file.read()
    path.write_text(one("c"))
    assert ids(file.read()) == ["c"]
    path.write_text("[")
    for _ in range(2):
        with pytest.raises(SettingsError):
            file.read()


def test_a_config_map_is_followed_through_its_links(tmp_path: Path) -> None:
    """Kubernetes: servers.json -> ..data/servers.json, ..data -> a folder; the link ..data is renamed over."""
    for name in ("a", "b"):
        (tmp_path / f"..{name}").mkdir()
        (tmp_path / f"..{name}" / "servers.json").write_text(one(name))
    (tmp_path / "..data").symlink_to("..a")
    path = tmp_path / "servers.json"
    path.symlink_to("..data/servers.json")
    file = ServersFile(path)
    assert ids(file.read()) == ["a"]
    (tmp_path / "..data_tmp").symlink_to("..b")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert ids(file.read()) == ["b"]
