"""A server's repository location: what is copied to it, what is left alone, what is removed, what is refused."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from builders.digests import file_digest, tree_digests
from builders.manifest import FileEntry, Manifest
from builders.sources.triton_import import import_model
from builders.sources.triton_model import import_plan
from control_plane.adapters.server_repository import ServerRepository
from control_plane.adapters.version_content import FileDigests
from control_plane.errors import DamagedVersionError, LocationBusyError, LocationError, NoSpaceError
from control_plane.planning.retention import Installed
from control_plane.state import ModelName, Pin

M = ModelName("m")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG = 'name: "m"\nbackend: "python"\n'


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


def publish(repository: Path, version: int, name: str = M, **files: str) -> Path:
    """Write a version with a manifest, as a build does: its own config, and `files`."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    content = {"config.pbtxt": f"{CONFIG}# of version {version}\n", "model.py": f"version = {version}\n", **files}
    for path, text in content.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    entries = {path: FileEntry(digest, (folder / path).stat().st_size) for path, digest in tree_digests(folder).items()}
    (folder / "manifest.json").write_text(Manifest(name, version, "key", "MIT", "build", files=entries).to_json())
    (repository / name / "config.pbtxt").write_text(content["config.pbtxt"])
    return folder


@dataclass
class Site:
    """A model repository, a server's location, and who copies from one to the other."""

    root: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.source, self.location = self.root / "source", self.root / "server" / "models"
        self.placer = ServerRepository(self.clock, margin_bytes=0, wait_s=0.1)
        for folder in (self.source, self.location):
            folder.mkdir(parents=True)

    @property
    def folder(self) -> Path:
        return self.location / M

    @property
    def hidden(self) -> Path:
        return self.location.parent / ".models.placing"

    def place(self, version: int = 1) -> int:
        placed = self.placer.place(self.source, self.location, M, version)
        assert placed.folder == self.folder / str(version)
        assert left_over(self.hidden) == []
        return placed.bytes

    def remove(self, version: int = 1) -> bool:
        return self.placer.remove(self.location, M, version)

    def pins(self) -> list[tuple[int, bool]]:
        return [(it.pin.version, it.ours) for it in self.placer.installed(self.location)]


def left_over(hidden: Path) -> list[str]:
    found = [path.name for path in hidden.iterdir()] if hidden.exists() else []
    return [name for name in found if name not in ("lock", "placed")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def turn_a_bit(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def test_a_version_is_copied_whole_with_its_own_config_once(site: Site) -> None:
    first, second = (publish(site.source, version) for version in (1, 2))
    (site.source / M / "golden.jsonl").write_text("secret")
    (site.source / M / "model.toml").write_text("")
    (first / "notes.txt").write_text("what no manifest lists stays behind")
    size = sum(path.stat().st_size for path in first.iterdir()) - (first / "notes.txt").stat().st_size
    assert site.place(1) == size + (first / "config.pbtxt").stat().st_size
    copied = tree_digests(site.folder)
    expected = {f"1/{name}": digest for name, digest in tree_digests(first).items() if name != "notes.txt"}
    assert copied == {**expected, "config.pbtxt": file_digest(first / "config.pbtxt")}
    assert site.place(1) == 0
    assert site.place(2) > 0
    assert (site.folder / "config.pbtxt").read_bytes() == (second / "config.pbtxt").read_bytes()
    assert site.place(1) == (first / "config.pbtxt").stat().st_size  # back to the first: its config alone
    assert site.pins() == [(1, True), (2, True)]
    assert [path.name for path in site.location.iterdir()] == [M]


def test_a_copy_is_for_any_user_and_for_nobody_to_write(site: Site) -> None:
    source = publish(site.source, 1, **{"bin/run": "#!/bin/sh"})
    (source / "bin" / "run").chmod(0o700)
    before = os.umask(0o077)
    try:
        site.place()
    finally:
        os.umask(before)
    modes = {path.relative_to(site.folder).as_posix(): path.stat().st_mode & 0o777 for path in site.folder.rglob("*")}
    assert {site.folder.stat().st_mode & 0o777, modes["1"], modes["1/bin"]} == {0o755}
    assert (modes["1/bin/run"], modes["1/model.py"], modes["config.pbtxt"]) == (0o555, 0o444, 0o444)


def test_a_version_made_by_hand_is_copied_as_it_lies_with_the_config_beside_it(site: Site) -> None:
    folder = site.source / M / "1"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__" / "model.pyc").write_text("comes and goes")
    (folder / "model.py").write_text("")
    (folder / "weights").mkdir()
    (site.root / "elsewhere").write_text("w")
    (folder / "weights" / "w").symlink_to(site.root / "elsewhere")
    beside = {"config.pbtxt": CONFIG, "labels.txt": "a\nb\n", "warmup/x": "0", ".git/x": "no"}
    for name, text in beside.items():
        (site.source / M / name).parent.mkdir(exist_ok=True)
        (site.source / M / name).write_text(text)
    (site.source / M / "2").mkdir()
    site.place()
    copied = set(tree_digests(site.folder))
    assert copied == {"1/model.py", "1/weights/w", "config.pbtxt", "labels.txt", "warmup/x"}
    assert not (site.folder / "1" / "weights" / "w").is_symlink()
    assert site.place() == 0
    (folder / "model.py").write_text("edited")  # by hand: there is no manifest that forbids it
    assert site.place() > 0
    assert (site.folder / "1" / "model.py").read_text() == "edited"
    assert site.place(2) == 0  # an ensemble's version is an empty folder
    assert (site.folder / "2").is_dir()


def test_of_a_built_package_only_what_triton_reads_goes_along(site: Site) -> None:
    labels = 'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]\n'
    publish(site.source, 1, **{"config.pbtxt": CONFIG + labels})
    for name in ("labels.txt", "golden.jsonl", "train.py", "initial_state/s", "data/d"):
        (site.source / M / name).parent.mkdir(exist_ok=True)
        (site.source / M / name).write_text(name)
    (site.source / M / "model.toml").write_text("[source")  # being edited
    site.place()
    beside = {path.name for path in site.folder.iterdir()}
    assert beside == {"1", "config.pbtxt", "labels.txt", "initial_state"}


def test_an_imported_model_goes_with_what_it_was_imported_with(site: Site) -> None:
    given = site.root / "given"
    (given / "1").mkdir(parents=True)
    (given / "config.pbtxt").write_text(CONFIG + "max_batch_size: 0\n")
    (given / "1" / "model.py").write_text("")
    (given / "classes.txt").write_text("a")
    import_model(import_plan(given, M), site.source)
    site.place()
    assert {path.name for path in site.folder.iterdir()} == {"1", "config.pbtxt", "classes.txt"}
    assert tree_digests(site.folder / "1") == tree_digests(site.source / M / "1")
    turn_a_bit(site.source / M / "classes.txt")
    with pytest.raises(DamagedVersionError, match=r"classes\.txt was altered after it was imported"):
        site.place()


def test_a_copy_that_was_altered_on_its_server_is_put_right_and_the_published_one_is_untouched(site: Site) -> None:
    source = publish(site.source, 1)
    site.place()
    before = tree_digests(source)
    turn_a_bit(site.folder / "1" / "model.py")
    (site.folder / "1" / "__pycache__").mkdir()  # that is no alteration, and is gone with the altered folder
    assert tree_digests(source) == before
    assert site.place() > 0
    assert tree_digests(site.folder / "1") == before
    (site.folder / "config.pbtxt").unlink()
    assert site.place() == (source / "config.pbtxt").stat().st_size


@pytest.mark.parametrize("other", [False, True])
def test_what_somebody_put_there_is_used_where_it_is_the_same_and_never_replaced_or_removed(
    site: Site, *, other: bool
) -> None:
    publish(site.source, 1)
    publish(site.location, 1, **({"more": "x"} if other else {}))
    before = tree_digests(site.folder)
    if other:
        with pytest.raises(LocationError, match="was put there by somebody else and is not what is published"):
            site.place()
    else:
        assert site.place() == 0
    assert not site.remove()
    assert tree_digests(site.folder) == before
    assert site.pins() == [(1, False)]


def test_a_folder_put_by_hand_in_the_place_of_ours_is_not_ours(site: Site) -> None:
    publish(site.source, 1)
    site.place()
    (site.folder / "1").rename(site.root / "ours")
    (site.folder / "1").mkdir()
    assert site.pins() == [(1, False)]
    assert not site.remove()
    (site.root / "ours").rename(site.root / "again")
    with pytest.raises(LocationError, match="somebody else"):
        site.place()


def test_the_last_version_takes_its_model_along_but_nothing_that_others_put_there(site: Site) -> None:
    for version in (1, 2, 3):
        publish(site.source, version)
        site.place(version)
    assert site.remove(3)
    assert not site.remove(3)
    assert site.remove(1)
    assert site.pins() == [(2, True)]
    (site.folder / "mine").write_text("x")
    assert site.remove(2)
    assert {path.name for path in site.folder.iterdir()} == {"config.pbtxt", "mine"}
    site.place(1)
    (site.folder / "mine").unlink()
    assert site.remove(1)
    assert list(site.location.iterdir()) == []
    assert left_over(site.hidden) == []
    assert site.place(1) > 0


def test_what_is_installed_with_its_size_and_when_it_was_needed(site: Site) -> None:
    for version in (1, 2):
        publish(site.source, version)
    publish(site.location, 7, "by_hand")
    (site.location / ".hidden" / "1").mkdir(parents=True)
    site.place(1)
    site.clock.now += timedelta(hours=1)
    site.place(2)
    size = {v: sum(p.stat().st_size for p in (site.source / M / str(v)).iterdir()) for v in (1, 2)}

    def seen() -> list[Installed]:
        return [it for it in site.placer.installed(site.location) if it.ours]

    assert seen() == [
        Installed(Pin(M, 1), size[1], ours=True, last_needed=NOW),
        Installed(Pin(M, 2), size[2], ours=True, last_needed=NOW + timedelta(hours=1)),
    ]
    site.clock.now += timedelta(hours=1)
    site.placer.note_needed(site.location, [Pin(M, 1), Pin(ModelName("by_hand"), 7), Pin(M, 9)])
    assert [it.last_needed for it in seen()] == [NOW + timedelta(hours=2), NOW + timedelta(hours=1)]
    assert site.place(2) == 0
    assert {it.last_needed for it in seen()} == {NOW + timedelta(hours=2)}
    assert [it.pin.model for it in site.placer.installed(site.location)] == ["by_hand", M, M]


def test_a_server_that_reads_the_repository_itself_needs_no_copy(site: Site) -> None:
    publish(site.source, 1)
    (site.root / "link").symlink_to(site.source)
    before = set(site.root.rglob("*"))
    for location in (site.source, site.root / "link"):
        assert site.placer.place(site.source, location, M, 1).bytes == 0
    assert set(site.root.rglob("*")) == before


ALTERATIONS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: turn_a_bit(folder / "model.py"), r"1/model\.py was altered: its SHA-256 is \w{16}, and should be"),
    (
        lambda folder: os.truncate(folder / "model.py", 3),
        r"1/model\.py was altered: it has 3 bytes, and should",
    ),
    (lambda folder: (folder / "model.py").unlink(), r"1/model\.py is missing, though manifest\.json lists it"),
    (lambda folder: (folder / "manifest.json").write_text("{"), r"manifest\.json cannot be read"),
    (lambda folder: folder.rename(folder.parent / "2"), r"m/1 is not there"),
    (lambda folder: lists(folder, "../../x"), r"manifest\.json names \.\./\.\./x, which is no file of the version"),
    (lambda folder: lists(folder, "/etc/passwd"), "which is no file of the version"),
]


def lists(folder: Path, name: str) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    data["files"][name] = data["files"].pop("model.py")
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(("alter", "expected"), ALTERATIONS)
def test_a_damaged_version_is_refused_with_the_file_and_nothing_is_there(
    site: Site, alter: Callable[[Path], object], expected: str
) -> None:
    folder = publish(site.source, 1)
    alter(folder)
    with pytest.raises(DamagedVersionError, match=expected):
        site.place()
    assert list(site.location.rglob("*")) == []
    assert left_over(site.hidden) == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: (folder / "f").symlink_to(folder.parent), "1/f is a link to a folder, which is not copied"),
        (lambda folder: (folder / "f").symlink_to("nothing"), "1/f is no file and cannot be copied"),
        (lambda folder: os.mkfifo(folder / "f"), "1/f is no file and cannot be copied"),
        (lambda folder: (folder.parent / "config.pbtxt").unlink(), r"m/config\.pbtxt is not there; a model needs one"),
    ],
)
def test_a_version_made_by_hand_that_cannot_be_copied_is_refused(
    site: Site, make: Callable[[Path], object], expected: str
) -> None:
    folder = site.source / M / "1"
    folder.mkdir(parents=True)
    (folder.parent / "config.pbtxt").write_text(CONFIG)
    make(folder)
    with pytest.raises(DamagedVersionError, match=expected):
        site.place()


def test_without_room_for_the_margin_nothing_is_begun(site: Site) -> None:
    publish(site.source, 1)
    placer = ServerRepository(site.clock, margin_bytes=1 << 60)
    with pytest.raises(NoSpaceError, match=r"needs [\d,.]+ MB, [\d,.]+ MB is free at .*/models: remove") as caught:
        placer.place(site.source, site.location, M, 1)
    assert (1 << 59) < caught.value.bytes_short <= (1 << 60) + (1 << 20)
    assert list(site.location.iterdir()) == []
    site.place()
    assert placer.place(site.source, site.location, M, 1).bytes == 0  # what is there needs no room


def test_locations_that_cannot_be_used(site: Site) -> None:
    publish(site.source, 1)
    placer, nowhere = site.placer, site.root / "nowhere"
    with pytest.raises(LocationError, match="there is no such folder"):
        placer.place(site.source, nowhere, M, 1)
    with pytest.raises(LocationError, match="there is no such folder"):
        placer.remove(nowhere, M, 1)
    with pytest.raises(LocationError, match=r"cannot list the versions at .*: No such file or directory \(.*nowhere\)"):
        placer.installed(nowhere)
    with pytest.raises(LocationError, match="is on another filesystem than the folder above it"):
        placer.place(site.source, Path("/dev/shm"), M, 1)  # noqa: S108 - a mount point
    for name in ("../m", "", ".", ".m", "a/b"):
        with pytest.raises(LocationError, match="names no model's folder"):
            placer.place(site.source, site.location, ModelName(name), 1)


def test_a_location_that_another_keeps_busy_is_told(site: Site) -> None:
    publish(site.source, 1)
    site.place()
    with FileLock(site.hidden / "lock"):
        assert site.place() == 0  # what is there already waits for nobody
        with pytest.raises(LocationBusyError, match=r"lock has been held by another for 0 s"):
            site.remove()


def test_what_a_killed_one_left_is_swept_and_what_cannot_be_is_no_obstacle(site: Site) -> None:
    publish(site.source, 1)
    site.place()
    for name in ("copy-abc", "gone-1"):
        (site.hidden / name / "content").mkdir(parents=True)
    (site.hidden / "placed" / M / "9").write_text('{"inode": 1}')
    (site.hidden / "placed" / M / "8").write_text("torn")
    (site.hidden / "placed" / "other").mkdir()
    assert site.remove()
    assert left_over(site.hidden) == []
    assert [path.name for path in (site.hidden / "placed").rglob("*")] in ([M, "beside"], [])


def test_digests_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    digests, path = FileDigests(), tmp_path / "f"
    path.write_text("a")
    assert digests.of(path) == digests.of(path) == file_digest(path)
    path.write_text("b")
    assert digests.of(path) == file_digest(path)
