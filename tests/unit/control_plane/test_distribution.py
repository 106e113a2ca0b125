"""Versions are where a server loads them from before it is asked to, and leave once they are long unused."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from control_plane.actions import Load, Loaded, Outcome
from control_plane.adapters.server_repository import ServerRepository
from control_plane.distribution import Distribution
from control_plane.executor import Executor
from control_plane.planning import PlannedAction
from control_plane.planning.retention import KEEP, RECENT
from control_plane.state import ModelName, Pin, Server, ServerId
from tests.fakes.triton import FakeModel, FakeTriton
from tests.fakes.world import FakeCatalogue, FakeClock, FakeFleet, a_package, a_server
from tests.small_models import multiplier

M = ModelName("m")


def distribution_of(tmp_path: Path, *versions: int) -> tuple[Distribution, Server, FakeClock]:
    source, location = tmp_path / "source", tmp_path / "location"
    location.mkdir()
    for version in versions:
        multiplier(source, "m", float(version), version)
    clock = FakeClock()
    placed = ServerRepository(clock, margin_bytes=0)
    return Distribution(source, placed, clock), replace(a_server(), repository=str(location)), clock


def there(server: Server) -> list[str]:
    return sorted(path.name for path in (Path(server.repository) / "m").iterdir() if path.is_dir())


def test_a_version_is_copied_before_its_load(tmp_path: Path) -> None:
    distribution, server, _ = distribution_of(tmp_path, 1)
    triton = FakeTriton({"m": FakeModel()})
    triton.start(server)
    kept: list[Outcome] = []

    async def keep(_: PlannedAction, outcome: Outcome) -> None:
        assert there(server) == ["1"]
        kept.append(outcome)

    executor = Executor(triton, FakeCatalogue(a_package("m")), FakeFleet(), distribution)
    step = PlannedAction(Load(ServerId("s0"), M, 1), "why", 0)
    asyncio.run(executor.execute(server, [step], keep))
    assert [type(outcome) for outcome in kept] == [Loaded]


def test_what_nobody_needs_goes_after_a_while_but_for_the_newest(tmp_path: Path) -> None:
    distribution, server, clock = distribution_of(tmp_path, *range(1, KEEP + 4))
    for version in range(1, KEEP + 4):
        distribution.bring(server, Pin(M, version), ())
    needed = frozenset({Pin(M, 1)})
    distribution.retire(server, needed)
    assert len(there(server)) == KEEP + 3, "all were needed a moment ago"
    clock.move((RECENT + timedelta(seconds=1)).total_seconds())
    distribution.retire(server, needed)
    assert there(server) == ["1", *(str(version) for version in range(4, 4 + KEEP))]


def test_a_server_that_reads_the_model_repository_itself_is_left_alone(tmp_path: Path) -> None:
    distribution, server, _ = distribution_of(tmp_path, 1)
    shares = replace(server, repository="")
    distribution.bring(shares, Pin(M, 1), ())
    distribution.retire(shares, frozenset())
    assert list((tmp_path / "location").iterdir()) == []
