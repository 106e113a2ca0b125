"""Versions on their way to a server's repository: killed, out of disk, damaged, several at once. Whole or not there."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from builders.digests import file_digest, tree_digests
from builders.manifest import FileEntry, Manifest
from control_plane.adapters.server_repository import ServerRepository
from control_plane.errors import DamagedVersionError
from control_plane.state import ModelName
from tests.command_line import DEADLINE_S, Ended, environment
from tests.small_disk import SmallDisk, small_disk

M = ModelName("m")
LARGE = 3 * 1024 * 1024

# `place` or `remove` SITE VERSION: prints what came of it as a JSON object.
CALL = """
import json, sys
from pathlib import Path
from control_plane.adapters.server_repository import ServerRepository
from control_plane.errors import ControlPlaneError

call, site, version = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
placer = ServerRepository(margin_bytes=0)
print("begun", file=sys.stderr, flush=True)
try:
    if call == "place":
        print(json.dumps({"bytes": placer.place(site / "source", site / "server" / "models", "m", version).bytes}))
    else:
        print(json.dumps({"removed": placer.remove(site / "server" / "models", "m", version)}))
except ControlPlaneError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error), "short": getattr(error, "bytes_short", 0)}))
"""
# What CALL is told to do first: die at the first byte beyond 1 MB of a file, as if by kill -9 in its middle.
DYING = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
"""
# TEMPLATE ROOT CALL VERSION ALTERED [VERSION...]: makes a site of TEMPLATE, places the versions, alters the one that is
# called for where it is told to, and does the call in a child that is killed -9 instead of doing its n-th thing to a
# file of the site; for every n, until a child comes to its end.
KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from control_plane.adapters.server_repository import ServerRepository

PLACES = {"open": 0, "os.rename": 1, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0, "os.chmod": 0, "os.utime": 0}

def kill_at(number, folder):
    count = itertools.count()
    def hook(event, arguments):
        place = PLACES.get(event)
        if place is not None and isinstance(arguments[place], (str, int, os.PathLike)):
            known = isinstance(arguments[place], int) or os.fspath(arguments[place]).startswith(folder)
            if known and next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

template, root, call, version, altered = *map(Path, sys.argv[1:3]), sys.argv[3], int(sys.argv[4]), sys.argv[5] == "yes"
for number in itertools.count():
    site = root / f"{number:03}"
    shutil.copytree(template, site)
    source, location, placer = site / "source", site / "server" / "models", ServerRepository(margin_bytes=0)
    for before in sys.argv[6:]:
        placer.place(source, location, "m", int(before))
    if altered:
        (location / "m" / str(version) / "model.bin").unlink()
    child = os.fork()
    if child == 0:
        kill_at(number, str(site))
        if call == "place":
            placer.place(source, location, "m", version)
        else:
            placer.remove(location, "m", version)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
"""


def write_version(site: Path, version: int, size: int = 10_000, small_files: int = 0) -> Path:
    """Write a version with a manifest: a file of `size` bytes, and so many small ones."""
    folder = site / "source" / M / str(version)
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f'name: "{M}"\nbackend: "python"\n# of version {version}\n')
    (folder / "model.bin").write_bytes(bytes([version]) * size)
    (folder / "small").mkdir()
    for number in range(small_files + 1):
        (folder / "small" / f"{number}").write_text("x")
    files = {name: FileEntry(digest, (folder / name).stat().st_size) for name, digest in tree_digests(folder).items()}
    (folder / "manifest.json").write_text(Manifest(M, version, "key", "MIT", "build", files=files).to_json())
    return folder


def a_site(root: Path, *versions: int, size: int = 10_000) -> Path:
    (root / "server" / "models").mkdir(parents=True)
    for version in versions:
        write_version(root, version, size)
    return root


def location_of(site: Path) -> Path:
    return site / "server" / "models"


def whole_versions(site: Path) -> list[int]:
    """Return the versions that are there, and see that each is whole, and that the config is one of a whole version."""
    package = location_of(site) / M
    if not package.exists():
        return []
    for entry in package.iterdir():
        source = site / "source" / M / entry.name
        if entry.is_dir():
            assert tree_digests(entry) == tree_digests(source), entry
        else:
            assert entry.name == "config.pbtxt"
            configs = (site / "source" / M).glob("*/config.pbtxt")
            assert file_digest(entry) in {file_digest(config) for config in configs}
    return sorted(int(entry.name) for entry in package.iterdir() if entry.is_dir())


def left_over(site: Path) -> list[str]:
    hidden = site / "server" / ".models.placing"
    return [path.name for path in hidden.iterdir() if path.name not in ("lock", "placed")] if hidden.exists() else []


def called(call: str, site: Path, version: int, prelude: str = "") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-W", "error", "-c", prelude + CALL, call, str(site), str(version)]
    return subprocess.Popen(
        arguments,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


CASES = [
    pytest.param("place", 1, "no", (), id="the first version is placed"),
    pytest.param("place", 2, "no", (1,), id="another version is placed"),
    pytest.param("place", 1, "yes", (1, 2), id="an altered version is put right"),
    pytest.param("remove", 1, "no", (1, 2), id="one of two versions is removed"),
    pytest.param("remove", 1, "no", (1,), id="the last version is removed"),
]


@pytest.mark.parametrize(("call", "version", "altered", "before"), CASES)
def test_killed_anywhere_no_half_version_is_there_and_the_next_call_finishes(
    tmp_path: Path, call: str, version: int, altered: str, before: tuple[int, ...]
) -> None:
    template, sites = a_site(tmp_path / "template", 1, 2), tmp_path / "sites"
    arguments = [str(template), str(sites), call, str(version), altered, *map(str, before)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed = sorted(sites.iterdir())
    assert len(killed) > 10
    placer = ServerRepository(margin_bytes=0)
    missed = 0
    for site in killed:
        location = location_of(site)
        others = [it for it in before if it != version]
        if altered == "yes" and not (location / M / f"{version}" / "model.bin").exists():
            missed += 1  # the altered one is still there, or none
        else:
            assert set(others) <= set(whole_versions(site)) <= {*others, version}
        if call == "place":
            placer.place(site / "source", location, M, version)
            assert whole_versions(site) == sorted({*others, version})
            own = site / "source" / M / f"{version}" / "config.pbtxt"
            assert file_digest(location / M / "config.pbtxt") == file_digest(own)
        else:
            placer.remove(location, M, version)
            assert whole_versions(site) == others
            assert location.joinpath(M).exists() == bool(others)
        assert left_over(site) == []
        assert all(it.ours for it in placer.installed(location))
        for it in placer.installed(location):
            assert placer.remove(location, M, it.pin.version)
        assert list(location.iterdir()) == []
    assert missed < len(killed)


def test_killed_in_the_middle_of_a_file_what_was_copied_is_swept(tmp_path: Path) -> None:
    site = a_site(tmp_path, 1, size=LARGE)
    with called("place", site, 1, DYING) as process:
        assert process.wait(DEADLINE_S) == -signal.SIGXFSZ
    staged = list((site / "server" / ".models.placing").rglob("model.bin"))
    assert [path.stat().st_size for path in staged] == [1_000_000]
    assert whole_versions(site) == []
    placer = ServerRepository(margin_bytes=0)
    assert placer.place(site / "source", location_of(site), M, 1).bytes > LARGE
    assert (whole_versions(site), left_over(site)) == ([1], [])


def test_several_processes_at_once_copy_each_version_once(tmp_path: Path) -> None:
    site = a_site(tmp_path, 1, 2, size=LARGE)
    hidden = site / "server" / ".models.placing"
    hidden.mkdir()
    with FileLock(hidden / "lock"):  # until all of them have begun
        begun = [called("place", site, version) for version in (1, 1, 1, 2)]
        for process in begun:
            assert process.stderr is not None
            assert process.stderr.readline() == "begun\n"
    printed = [process.communicate(timeout=DEADLINE_S) for process in begun]
    assert [(process.returncode, err) for process, (_, err) in zip(begun, printed, strict=True)] == [(0, "")] * 4
    copied = [json.loads(out)["bytes"] > LARGE for out, _ in printed]
    assert (sum(copied[:3]), copied[3]) == (1, True)
    assert (whole_versions(site), left_over(site)) == ([1, 2], [])


def test_threads_that_place_list_and_remove_never_see_or_leave_a_half_version(tmp_path: Path) -> None:
    site = a_site(tmp_path, 1, 2, size=200_000)
    location, placer = location_of(site), ServerRepository(margin_bytes=0)

    def work(number: int) -> None:
        for _ in range(6):
            if number == 0:
                placer.remove(location, M, 1)
            elif number == 1:
                assert all(it.bytes for it in placer.installed(location))
            else:
                placer.place(site / "source", location, M, 1 + number % 2)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for number in range(6)]:
            done.result(DEADLINE_S)
    for version in (1, 2):
        placer.place(site / "source", location, M, version)
    assert (whole_versions(site), left_over(site)) == ([1, 2], [])


def test_a_damaged_version_leaves_the_one_that_serves_alone(tmp_path: Path) -> None:
    site = a_site(tmp_path, 1, 2, size=LARGE)
    location, placer = location_of(site), ServerRepository(margin_bytes=0)
    placer.place(site / "source", location, M, 1)
    damaged = site / "source" / M / "2" / "model.bin"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    before = tree_digests(location)
    with pytest.raises(DamagedVersionError, match=r"/2/model\.bin was altered"):
        placer.place(site / "source", location, M, 2)
    assert tree_digests(location) == before
    assert left_over(site) == []


@contextmanager
def on_a_small_disk(tmp_path: Path, size: str) -> Iterator[tuple[SmallDisk, Path]]:
    """Give a site on a disk of its own, and the model repository in it a link to one outside."""
    with small_disk(tmp_path / "disk", size) as disk:
        a_site(disk.here)
        (tmp_path / "source").mkdir()
        (disk.here / "source").symlink_to(tmp_path / "source")
        yield disk, tmp_path / "disk"


def call_beside(disk: SmallDisk, call: str, site: Path, version: int) -> Ended:
    arguments = [sys.executable, "-W", "error", "-c", CALL, call, str(site), str(version)]
    ended = disk.run(arguments, environment())
    assert ended.code == 0, ended
    return ended


def test_a_full_disk_is_told_before_and_in_the_middle_and_what_is_unused_can_still_be_removed(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path, "6m") as (disk, site):
        write_version(tmp_path, 1, LARGE)
        write_version(tmp_path, 2, LARGE)
        write_version(tmp_path, 3, size=1, small_files=300)  # a page for each of them
        assert call_beside(disk, "place", site, 1).data["bytes"] > LARGE

        def refused(version: int) -> int:
            said = call_beside(disk, "place", site, version).data
            assert said["error"] == "NoSpaceError"
            assert f" MB is free at {site}/server/models: remove" in said["text"]
            assert [path.name for path in (disk.here / "server" / "models" / M).iterdir() if path.is_dir()] == ["1"]
            assert left_over(disk.here) == []
            return int(said["short"])

        assert 0 < refused(2) < LARGE
        disk.leave(pages=200)
        assert refused(3) > 0
        disk.leave(pages=0)
        assert refused(3) > 0
        assert call_beside(disk, "remove", site, 1).data == {"removed": True}
        disk.free()
        assert call_beside(disk, "place", site, 2).data["bytes"] > LARGE
        assert call_beside(disk, "place", site, 3).data["bytes"] > 300
        assert whole_versions(disk.here) == [2, 3]


def test_a_location_that_cannot_be_written_serves_what_it_has(tmp_path: Path) -> None:
    with on_a_small_disk(tmp_path, "1m") as (disk, site):
        for version in (1, 2):
            write_version(tmp_path, version)
        disk.remount("ro")  # before anything is there
        said = call_beside(disk, "place", site, 1).data
        assert said["error"] == "LocationError"
        assert f"cannot copy version 1 of 'm' at {site}/server/models: Read-only file system" in said["text"]
        disk.remount("rw")
        assert call_beside(disk, "place", site, 1).data["bytes"] > 0
        disk.remount("ro")
        assert call_beside(disk, "place", site, 1).data == {"bytes": 0}
        for call, version in (("place", 2), ("remove", 1)):
            assert "Read-only file system" in call_beside(disk, call, site, version).data["text"]
        assert whole_versions(disk.here) == [1]
