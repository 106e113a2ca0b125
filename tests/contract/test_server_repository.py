"""A real tritonserver over a location that versions are placed in: it loads those, and sees nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.digests import tree_digests
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.server_repository import ServerRepository
from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.embedded import EmbeddedServer
from control_plane.errors import LoadFailedError
from control_plane.planning.retention import plan_retention
from control_plane.ports import TritonControl
from control_plane.state import ModelName, Pin
from tests.embedded_triton import load
from tests.serving import embedded_server
from tests.small_models import answer, ensemble, multiplier


@dataclass(frozen=True)
class Site:
    """A model repository, and a server that loads from a location of its own."""

    source: Path
    server: EmbeddedServer
    placer: ServerRepository

    @property
    def location(self) -> Path:
        return self.server.spec.model_repository

    def place(self, name: str, version: int = 1) -> int:
        return self.placer.place(self.source, self.location, ModelName(name), version).bytes

    def remove(self, name: str, version: int = 1) -> bool:
        return self.placer.remove(self.location, ModelName(name), version)

    async def load(self, control: TritonControl, name: str, version: int = 1) -> None:
        config = RepositoryFolder(self.source).load_config(ModelName(name), version)
        await control.load(self.server.server, ModelName(name), config)

    async def rows(self, control: TritonControl, name: str = "") -> list[tuple[str, int]]:
        seen = await control.observe(self.server.server)
        return [(it.name, it.version) for it in seen.models if it.name.startswith(name)]

    def run(self, scenario: Callable[[TritonControl], Awaitable[None]]) -> None:
        async def body() -> None:
            control = GrpcTritonControl(lambda _: self.server, Deadlines(load_s=30.0))
            try:
                await scenario(control)
            finally:
                await control.close()

        asyncio.run(body())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    location = tmp_path_factory.mktemp("server") / "models"
    location.mkdir()
    with embedded_server(location) as running:
        yield running


@pytest.fixture
def site(server: EmbeddedServer, tmp_path: Path) -> Site:
    return Site(tmp_path, server, ServerRepository(margin_bytes=0))


def test_a_placed_version_loads_the_next_follows_and_the_unused_one_can_go(site: Site) -> None:
    for version in (1, 2, 3):
        multiplier(site.source, "rolled", factor=version * 2.0, version=version)

    async def scenario(control: TritonControl) -> None:
        with pytest.raises(LoadFailedError):
            await site.load(control, "rolled")
        assert site.place("rolled", 1) > 0
        await site.load(control, "rolled", 1)
        assert answer(site.server.server, "rolled") == 2.0
        for version in (2, 3):
            assert site.place("rolled", version) > 0
            assert answer(site.server.server, "rolled") == (version - 1) * 2.0  # files alone change nothing
            await site.load(control, "rolled", version)
            assert answer(site.server.server, "rolled") == version * 2.0
        there = [it for it in site.placer.installed(site.location) if it.pin.model == "rolled"]
        now = max(it.last_needed for it in there if it.last_needed is not None)
        plan = plan_retention(there, {Pin(ModelName("rolled"), 3)}, now, keep=1, bytes_short=1)
        assert [it.pin.version for it in plan.removals] == [1]
        assert site.remove("rolled", 1)
        assert answer(site.server.server, "rolled") == 6.0
        await site.load(control, "rolled", 2)
        assert answer(site.server.server, "rolled") == 4.0
        with pytest.raises(LoadFailedError):
            await site.load(control, "rolled", 1)
        assert answer(site.server.server, "rolled") == 4.0

    site.run(scenario)


def test_what_a_server_does_to_its_copy_is_nothing_to_the_published_version(site: Site) -> None:
    multiplier(site.source, "altered", 3.0)
    site.place("altered")
    before = tree_digests(site.source)
    copy = site.location / "altered" / "1" / "model.py"

    async def scenario(control: TritonControl) -> None:
        await site.load(control, "altered")
        assert site.place("altered") == 0  # whatever bytecode its process has left there
        copy.unlink()
        copy.write_text("raise RuntimeError")
        assert answer(site.server.server, "altered") == 3.0
        assert tree_digests(site.source) == before
        assert site.place("altered") > 0
        await site.load(control, "altered")
        assert answer(site.server.server, "altered") == 3.0

    site.run(scenario)


def test_triton_sees_no_model_but_those_placed_and_none_of_those_removed(site: Site) -> None:
    for name in ("seen_a", "seen_b"):
        multiplier(site.source, name, 5.0)
    ensemble(site.source, "seen_c", "seen_a", "seen_b")

    async def scenario(control: TritonControl) -> None:
        for name in ("seen_a", "seen_b", "seen_c"):
            site.place(name)
        hidden = site.location.parent / ".models.placing" / "copy-of-one-who-was-killed" / "content"
        hidden.mkdir(parents=True)
        for name in ("seen_a", "seen_b", "seen_c"):
            await site.load(control, name)
        assert answer(site.server.server, "seen_c") == 25.0
        assert sorted(await site.rows(control, "seen")) == [("seen_a", 1), ("seen_b", 1), ("seen_c", 1)]
        assert not [name for name, _ in await site.rows(control) if "copy" in name or "placed" in name]
        for name in ("seen_c", "seen_b"):
            await control.unload(site.server.server, ModelName(name))
            assert site.remove(name)
        assert [row for row in await site.rows(control, "seen") if row[0] != "seen_a"] == []
        assert answer(site.server.server, "seen_a") == 5.0

    site.run(scenario)


def test_triton_by_itself_loads_the_newest_version_that_was_placed_with_its_config(site: Site) -> None:
    for version in (1, 2):
        multiplier(site.source, "by_itself", factor=float(version), version=version)
        site.place("by_itself", version)
    assert load(site.server.server, "by_itself")[0] == 200
    assert answer(site.server.server, "by_itself") == 2.0


def test_labels_that_lie_beside_the_versions_are_brought_along(site: Site) -> None:
    multiplier(site.source, "labelled", 1.0)
    config = site.source / "labelled" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "Y"', 'name: "Y" label_filename: "classes.txt"'))
    labels = site.source / "labelled" / "classes.txt"
    labels.write_text("one\n")
    site.place("labelled")

    async def scenario(control: TritonControl) -> None:
        await site.load(control, "labelled")
        assert answer(site.server.server, "labelled") == 1.0
        await control.unload(site.server.server, ModelName("labelled"))
        (site.location / "labelled" / "classes.txt").unlink()
        with pytest.raises(LoadFailedError, match=r"classes\.txt"):
            await site.load(control, "labelled")
        assert site.place("labelled") == labels.stat().st_size
        await site.load(control, "labelled")

    site.run(scenario)
