"""The artifact store when its server is gone, its disk is full, or a builder dies while it writes."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builders.artifacts import Artifact
from builders.store.artifacts import ArtifactStore
from builders.store.errors import DamagedArtifactError, StoreError
from builders.store.objects import ObjectStore, open_objects
from builders.store.s3 import Deadlines
from tests.command_line import DEADLINE_S, environment
from tests.scripted_http import Answer, scripted_server
from tests.small_disk import small_disk

SHORT = Deadlines(connect_s=0.2, silence_s=0.2, request_s=0.3, retries=1, retry_s=0.3)
KEY = "ab" * 32

WRITER = """
import sys
from pathlib import Path
from builders.artifacts import Artifact
from builders.store.artifacts import ArtifactStore
from builders.store.objects import open_objects

store = ArtifactStore(open_objects(sys.argv[1]))
files = store.add_files(Path(sys.argv[2]), ["model.onnx"])
print(store.add(Artifact("ab" * 32, "", {}, files, made={"by": sys.argv[3]})))
"""
# What a builder is told to do first: die at the first byte beyond 1 MB of a file, as if by kill -9 in its middle.
DYING = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
"""


def in_bounded_time(objects: ObjectStore, expected: str) -> None:
    """See that every kind of call fails with one sentence, soon."""
    calls: list[Callable[[], object]] = [
        lambda: objects.read("a"),
        lambda: objects.create("a", b"1"),
        lambda: objects.replace("a", b"1"),
        lambda: objects.names("a"),
        lambda: objects.delete("a"),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreError) as caught:
            call()
        assert time.monotonic() - began < 10
        assert expected in str(caught.value), caught.value
        assert "\n" not in str(caught.value)


@pytest.fixture
def s3_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ObjectStore]:
    def opened(endpoint: str, deadlines: Deadlines = SHORT) -> ObjectStore:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        return open_objects("s3://bucket/prefix", deadlines)

    return opened


def test_a_server_that_is_not_there(s3_at: Callable[..., ObjectStore]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    in_bounded_time(
        s3_at(f"http://127.0.0.1:{port}"), "s3://bucket/prefix: it cannot be reached (Connection refused); check"
    )


def test_a_server_that_never_answers(s3_at: Callable[..., ObjectStore]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        objects = s3_at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        in_bounded_time(objects, "s3://bucket/prefix: it cannot be reached (no answer in time); check AWS_ENDPOINT_URL")


def test_a_server_that_refuses(s3_at: Callable[..., ObjectStore]) -> None:
    with scripted_server() as server:
        objects = s3_at(server.url, Deadlines(retries=1))
        server.answer("GET /bucket/prefix/a", Answer(b"<Error><Code>AccessDenied</Code></Error>", 403))
        with pytest.raises(StoreError, match=r"access is denied; check the AWS_\* credentials"):
            objects.read("a")
        server.answer("GET /bucket/prefix/a", Answer(b"<Error><Code>SlowDown</Code></Error>", 503))
        with pytest.raises(StoreError, match=r"the server answered 503 Service Unavailable; run the build again"):
            objects.read("a")


# Beside the small disk, because obstore resolves links, and the disk is reached from outside through one in /proc.
FULL_DISK = """
import json, sys
from pathlib import Path
from builders.artifacts import Artifact
from builders.store.artifacts import ArtifactStore
from builders.store.errors import StoreError
from builders.store.objects import open_objects

disk, work, told = Path(sys.argv[1]), Path(sys.argv[2]), []
store = ArtifactStore(open_objects(str(disk / "store")))
small = store.add(Artifact("ab" * 32, "", {}, store.add_files(work, ["small"])))
try:
    store.add_files(work, ["large"])
except StoreError as error:
    told.append(str(error))
assert store.find("ab" * 32) == (small,)
artifact = Artifact("cd" * 32, "", {}, store.add_files(work, ["model"]))
try:
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
except OSError:
    pass
try:
    store.add(artifact)
except StoreError as error:
    told.append(str(error))
assert store.find("cd" * 32) == ()
(disk / "filler").unlink()
store.fetch(store.add(artifact), work / "fetched")
print(json.dumps(told))
"""


def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name, size in (("small", 5000), ("large", 3_000_000), ("model", 100_000)):
        (work / name).write_bytes(name.encode() * size)
    with small_disk(tmp_path / "disk", "2m") as disk:
        ended = disk.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "disk"), str(work)], environment())
    assert ended.code == 0, ended.err
    objects, record = ended.data
    assert objects.startswith("cannot write objects/")
    assert record.startswith(f"cannot write artifacts/{'cd' * 32}/")
    for told in (objects, record):
        assert told.endswith(": the disk is full; free some space and run the build again")
    assert (work / "fetched" / "model").read_bytes() == (work / "model").read_bytes()


def test_a_full_disk_while_fetching_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"m" * 3_000_000)
    store = ArtifactStore(open_objects(str(tmp_path / "store")))
    artifact = store.add(Artifact(KEY, "", {}, store.add_files(tmp_path, ["model.onnx"])))
    with small_disk(tmp_path / "disk", "1m") as disk:
        with pytest.raises(StoreError, match=r"cannot write .*/model.onnx: the disk is full; free some space and run"):
            store.fetch(artifact, disk.here)
        assert list(disk.here.iterdir()) == []


def test_a_builder_killed_in_the_middle_of_an_object_leaves_nothing_that_counts(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    (tmp_path / "model.onnx").write_bytes(b"model" * 1_000_000)
    died = subprocess.run(
        [sys.executable, "-c", DYING + WRITER, address, str(tmp_path), "first"],
        env=environment(),
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert died.returncode == -signal.SIGXFSZ, died
    (leftover,) = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert leftover.stat().st_size == 1_000_000
    store = ArtifactStore(open_objects(address))
    assert store.objects.names("objects") == []
    assert store.find(KEY) == ()
    artifact = store.add(Artifact(KEY, "", {}, store.add_files(tmp_path, ["model.onnx"])))
    store.fetch(artifact, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "model.onnx").stat().st_size == 5_000_000
    assert store.objects.sweep(older_s=-1.0) == 1
    assert not leftover.exists()
    store.fetch(artifact, tmp_path / "fetched")


def test_builders_in_several_processes_agree(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model" * 100_000)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "store"), str(tmp_path), str(number)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    printed = [writer.communicate(timeout=DEADLINE_S)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(set(printed)) == 1
    (artifact,) = ArtifactStore(open_objects(str(tmp_path / "store"))).find(KEY)
    assert printed[0] == f"{artifact}\n"


def test_an_object_torn_after_it_was_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"model" * 1000)
    store = ArtifactStore(open_objects(str(tmp_path / "store")))
    artifact = store.add(Artifact(KEY, "", {}, store.add_files(tmp_path, ["model.onnx"])))
    (path,) = (tmp_path / "store" / "objects").rglob("*/*")
    with path.open("r+b") as stream:
        stream.truncate(4096)
    with pytest.raises(DamagedArtifactError, match=r"model.onnx of the artifact export .* was altered in the artifact"):
        store.fetch(artifact, tmp_path / "fetched")
    assert store.add_files(tmp_path, ["model.onnx"]) == artifact.files
    store.fetch(artifact, tmp_path / "fetched")
