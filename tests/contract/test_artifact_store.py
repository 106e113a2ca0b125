"""One suite for the artifact store: a folder, memory, and the S3 protocol as moto's server speaks it."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from moto.server import ThreadedMotoServer

from builders.artifacts import Artifact
from builders.manifest import FileEntry, OutputParity, Parity
from builders.store.artifacts import ArtifactStore
from builders.store.errors import DamagedArtifactError, StoreError
from builders.store.objects import PART_BYTES, ObjectStore, open_objects

KEY = "ab" * 32
_NUMBERS = count()
FILES = {"model.onnx": b"\0graph" * 1000, "data/weights.bin": b"w" * 5000, "empty": b""}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Return a bucket's address, with AWS_* set for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as variables:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            variables.delenv(name)
        variables.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        variables.setenv("AWS_REGION", "us-east-1")
        variables.setenv("AWS_ACCESS_KEY_ID", "somebody")
        variables.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        urlopen(Request(f"http://{host}:{port}/artifacts", method="PUT"), timeout=30).close()
        yield "s3://artifacts"
    server.stop()


@dataclass(frozen=True, slots=True)
class Kind:
    """A new store of one kind; `open` gives another handle on it, as another builder has."""

    open: Callable[[], ObjectStore]

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.open())


@pytest.fixture(params=["folder", "memory", "s3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    match request.param:
        case "folder":
            return Kind(lambda: open_objects(str(tmp_path / "a b#1%20 ü" / "store")))
        case "memory":
            objects = open_objects("memory://")
            return Kind(lambda: objects)
        case _:
            address = f"{request.getfixturevalue('s3')}/team one/{next(_NUMBERS)}"
            return Kind(lambda: open_objects(address))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def an_artifact(store: ArtifactStore, work: Path, **toolchain: str) -> Artifact:
    """Return an artifact whose files are in the store."""
    parity = Parity(2, 3, {"y": OutputParity(1e-6, 1e-7, 0.999999, None)})
    return Artifact(KEY, "onnxruntime-cpu-fp32", toolchain, store.add_files(work, FILES), parity)


def object_of(entry: FileEntry) -> str:
    return f"objects/{entry.sha256[:2]}/{entry.sha256}"


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_object_is_created_once_and_replaced_at_will(kind: Kind) -> None:
    objects = kind.open()
    assert objects.read("a/b.json") is None
    assert objects.size("a/b.json") is None
    assert objects.create("a/b.json", b"one")
    assert not kind.open().create("a/b.json", b"two")
    assert objects.read("a/b.json") == b"one"
    kind.open().replace("a/b.json", b"three")
    assert (objects.read("a/b.json"), objects.size("a/b.json"), objects.exists("a/b.json")) == (b"three", 5, True)
    objects.delete("a/b.json")
    objects.delete("a/b.json")
    assert not kind.open().exists("a/b.json")
    assert objects.create("empty", b"")
    assert objects.read("empty") == b""


def test_a_store_that_nobody_wrote_to_is_empty(kind: Kind) -> None:
    assert kind.open().names("a") == []
    assert kind.artifacts.find(KEY) == ()
    assert kind.artifacts.attestations(KEY) == {}
    kind.open().delete("a/b")


def test_names_are_those_below_a_name_sorted(kind: Kind) -> None:
    objects = kind.open()
    for name in ("a/z", "a/b/c", "ab/d", "a/b.json"):
        objects.replace(name, b"")
    assert objects.names("a") == ["a/b.json", "a/b/c", "a/z"]
    assert objects.names("a/b") == ["a/b/c"]


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.hidden", "a b", "a#1", "a\nb"])
def test_what_could_leave_the_store_is_no_name(name: str) -> None:
    objects = open_objects("memory://")
    with pytest.raises(ValueError, match="is not the name of an object"):
        objects.read(name)
    with pytest.raises(ValueError, match="is not the name of an object"):
        objects.create(name, b"")


def test_a_file_in_several_parts_comes_back_whole(kind: Kind, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(PART_BYTES + 5))
    entry = ArtifactStore(kind.open()).add_files(tmp_path, ["source"])["source"]
    assert kind.open().fetch(object_of(entry), target, entry) == entry
    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


def test_an_artifact_comes_back_as_it_was_added(kind: Kind, work: Path, tmp_path: Path) -> None:
    artifact = an_artifact(kind.artifacts, work, onnxruntime="1.23.2")
    assert kind.artifacts.add(artifact) == artifact
    assert kind.artifacts.find(KEY) == (artifact,)
    kind.artifacts.fetch(artifact, tmp_path / "all")
    assert content_of(tmp_path / "all") == FILES
    kind.artifacts.fetch(artifact, tmp_path / "one", ["data/weights.bin"])
    assert content_of(tmp_path / "one") == {"data/weights.bin": FILES["data/weights.bin"]}


def test_the_first_record_stands(kind: Kind, work: Path) -> None:
    first = an_artifact(kind.artifacts, work, onnxruntime="1.23.2")
    assert kind.artifacts.add(first) == first
    assert kind.artifacts.add(replace(first, seconds=9.0)) == first
    other = replace(first, toolchain={"onnxruntime": "1.24.0"})
    assert kind.artifacts.add(other) == other
    assert kind.artifacts.find(KEY) == tuple(sorted((first, other), key=lambda it: it.id))
    assert kind.artifacts.find_many([KEY, "cd" * 32]) == {KEY: kind.artifacts.find(KEY), "cd" * 32: ()}


def test_a_failure_gives_way_to_an_artifact_and_never_the_other_way(kind: Kind, work: Path) -> None:
    artifact = an_artifact(kind.artifacts, work)
    failure = replace(artifact, files={}, parity=None, failed="the compiler has no such operator")
    assert kind.artifacts.add(failure) == failure
    assert kind.artifacts.find(KEY) == (failure,)
    assert kind.artifacts.add(replace(failure, failed="again")) == failure
    assert kind.artifacts.add(artifact) == artifact
    assert kind.artifacts.add(failure) == artifact
    assert kind.artifacts.find(KEY) == (artifact,)


def test_what_is_unproven_gives_way_to_what_is_proven_and_never_the_other_way(kind: Kind, work: Path) -> None:
    proven = an_artifact(kind.artifacts, work)
    unproven = replace(proven, parity=None, unproven="needs an NVIDIA GPU")
    assert kind.artifacts.add(unproven) == unproven
    assert kind.artifacts.add(replace(unproven, seconds=9.0)) == unproven
    assert kind.artifacts.add(proven) == proven
    assert kind.artifacts.add(unproven) == proven
    assert kind.artifacts.find(KEY) == (proven,)


def test_eight_builders_at_once_agree_on_one_artifact(kind: Kind, work: Path, tmp_path: Path) -> None:
    def build(number: int) -> Artifact:
        store = kind.artifacts
        return store.add(replace(an_artifact(store, work), made={"host": str(number)}))

    with ThreadPoolExecutor(8) as pool:
        stand = list(pool.map(build, range(8)))
    assert len({artifact.made["host"] for artifact in stand}) == 1
    assert kind.artifacts.find(KEY) == (stand[0],)
    kind.artifacts.fetch(stand[0], tmp_path / "fetched")
    assert content_of(tmp_path / "fetched") == FILES


def test_files_that_are_not_in_the_store_are_not_recorded(kind: Kind, work: Path) -> None:
    artifact = an_artifact(kind.artifacts, work)
    kind.open().delete(object_of(artifact.files["model.onnx"]))
    with pytest.raises(
        StoreError, match=r"onnxruntime-cpu-fp32 abababababab cannot be recorded: the store has no model"
    ):
        kind.artifacts.add(artifact)
    assert kind.artifacts.find(KEY) == ()


def test_a_first_record_whose_files_are_gone_gives_way(kind: Kind, work: Path) -> None:
    first = an_artifact(kind.artifacts, work)
    kind.artifacts.add(first)
    kind.open().delete(object_of(first.files["data/weights.bin"]))
    smaller = replace(first, files={"model.onnx": first.files["model.onnx"]})
    assert kind.artifacts.add(smaller) == smaller
    assert kind.artifacts.find(KEY) == (smaller,)


@pytest.mark.parametrize("content", [b"", b"\0" * 6000, b"\0graph" * 999, b"\0graph" * 999 + b"\0gRaph"])
def test_a_damaged_object_is_found_and_made_again(kind: Kind, work: Path, tmp_path: Path, content: bytes) -> None:
    artifact = kind.artifacts.add(an_artifact(kind.artifacts, work))
    kind.open().replace(object_of(artifact.files["model.onnx"]), content)
    with pytest.raises(DamagedArtifactError) as caught:
        kind.artifacts.fetch(artifact, tmp_path / "fetched", ["model.onnx"])
    assert str(caught.value).startswith(
        "model.onnx of the artifact onnxruntime-cpu-fp32 abababababab was altered in the artifact store "
    )
    assert str(caught.value).endswith("; build it again, which replaces what is damaged")
    assert content_of(tmp_path / "fetched") == {}
    assert kind.artifacts.discard(artifact) == ("model.onnx",)
    assert kind.artifacts.find(KEY) == ()
    assert not kind.open().exists(object_of(artifact.files["model.onnx"]))
    assert kind.open().exists(object_of(artifact.files["data/weights.bin"]))
    assert kind.artifacts.add(an_artifact(kind.artifacts, work)) == artifact
    kind.artifacts.fetch(artifact, tmp_path / "fetched")
    assert content_of(tmp_path / "fetched") == FILES


def test_adding_files_again_repairs_them(kind: Kind, work: Path, tmp_path: Path) -> None:
    artifact = kind.artifacts.add(an_artifact(kind.artifacts, work))
    kind.open().replace(object_of(artifact.files["model.onnx"]), b"\0graph" * 999 + b"\0gRaph")
    kind.open().replace(object_of(artifact.files["data/weights.bin"]), b"w")
    assert kind.artifacts.add_files(work, FILES) == artifact.files
    kind.artifacts.fetch(artifact, tmp_path / "fetched")
    assert content_of(tmp_path / "fetched") == FILES


def test_a_missing_object_is_told(kind: Kind, work: Path, tmp_path: Path) -> None:
    artifact = kind.artifacts.add(an_artifact(kind.artifacts, work))
    kind.open().delete(object_of(artifact.files["empty"]))
    with pytest.raises(DamagedArtifactError, match=r"empty of the artifact .* is missing from the artifact store"):
        kind.artifacts.fetch(artifact, tmp_path / "fetched")


def hostile_records(sound: Artifact) -> dict[str, bytes]:
    """Return records by their file name: what another hand, version or accident may leave under the key."""
    one = {"sha256": "0" * 64, "bytes": 1}

    def text(**changed: object) -> bytes:
        return replace(sound, **changed).to_json().encode()  # type: ignore[arg-type]

    return {
        "garbage.json": b"\0\xff not JSON",
        "torn.json": sound.to_json().encode()[:-40],
        "list.json": b"[]",
        "other-name.json": sound.to_json().encode(),
        f"{replace(sound, toolchain={'a': '1'}).id}.json": text(toolchain={"a": "1"}, files={"../../escape": one}),
        f"{replace(sound, toolchain={'a': '2'}).id}.json": text(toolchain={"a": "2"}, files={"/etc/cron.d/x": one}),
        f"{replace(sound, toolchain={'a': '3'}).id}.json": text(
            toolchain={"a": "3"}, files={"x": {"sha256": "../" * 20 + "abcd", "bytes": 1}}
        ),
        f"{replace(sound, toolchain={'a': '4'}).id}.json": text(
            toolchain={"a": "4"}, files={"x": {"sha256": 7, "bytes": "1"}}
        ),
        f"{replace(sound, toolchain={'a': '5'}).id}.json": text(toolchain={"a": "5"}, key="cd" * 32),
        "no-toolchain.json": text(toolchain=None),
        "later.json": text(schema=99),
    }


def test_records_that_are_none_are_passed_over(kind: Kind, work: Path) -> None:
    sound = kind.artifacts.add(an_artifact(kind.artifacts, work))
    for name, content in hostile_records(sound).items():
        kind.open().replace(f"artifacts/{KEY}/{name}", content)
    assert len(kind.open().names(f"artifacts/{KEY}")) == 12
    assert kind.artifacts.find(KEY) == (sound,)


def test_a_record_of_garbage_gives_way_to_the_next_build(kind: Kind, work: Path) -> None:
    artifact = an_artifact(kind.artifacts, work)
    kind.open().replace(f"artifacts/{KEY}/{artifact.id}.json", b"{")
    assert kind.artifacts.add(artifact) == artifact
    assert kind.artifacts.find(KEY) == (artifact,)


def test_attestations_are_kept_beside_and_change_only_where_they_do_not_stand(kind: Kind) -> None:
    def stands(content: bytes) -> bool:
        return content == b"proven"

    kind.open().replace(f"attestations/{KEY}/sm_90.json", b"garbage")
    assert kind.artifacts.add_attestation(KEY, "sm_90.json", b"proven", stands)
    assert not kind.artifacts.add_attestation(KEY, "sm_90.json", b"altered", stands)
    assert kind.artifacts.add_attestation(KEY, "sm_89.json", b"too", stands)
    assert kind.artifacts.attestations(KEY) == {"sm_89.json": b"too", "sm_90.json": b"proven"}
    assert kind.artifacts.attestations("cd" * 32) == {}


def test_a_bucket_that_is_not_there_is_told(s3: str) -> None:
    objects = open_objects(s3.replace("artifacts", "nowhere"))
    for call in (
        lambda: objects.read("a"),
        lambda: objects.create("a", b""),
        lambda: objects.replace("a", b""),
        lambda: objects.names("a"),
        lambda: objects.exists("a"),
        lambda: objects.delete("a"),
    ):
        with pytest.raises(StoreError, match=r"s3://nowhere: there is no such bucket; create it, or correct the store"):
            call()
