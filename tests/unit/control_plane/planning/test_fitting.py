"""Memory of models that deployments share: the most instances that any of them asks for are counted, once."""

from dataclasses import replace

from control_plane.planning.fitting import HEADROOM, Room
from control_plane.state import ModelName, Pin, Published
from control_plane.wanted import Needs
from tests.fakes.world import a_deployment, a_package, a_repository, seen

SIZE = 100


def test_a_later_deployment_that_asks_for_more_instances_is_charged_for_them() -> None:
    pin = Pin(ModelName("m"), 1)
    published = Published(a_repository(a_package("m")).models, {pin: SIZE})
    first = replace(a_deployment("first", ("m", 1)), needs=Needs(instances=2))
    more = replace(a_deployment("more", ("m", 1), at=1), needs=Needs(instances=5))
    there = seen()
    room = Room(replace(there, server=replace(there.server, memory_bytes=int(4 * SIZE / (1 - HEADROOM)) + 1)))
    room.put(first, first.tracks[0], published)
    assert room.memory_bytes == 2 * SIZE
    assert room.more_memory(more, more.tracks[0], published) == 3 * SIZE
    assert "has 0 MiB of memory left" in room.why_no_room(more, more.tracks[0], published)
    less = replace(more, needs=Needs(instances=1))
    assert room.more_memory(less, less.tracks[0], published) == 0
    assert room.why_no_room(less, less.tracks[0], published) == ""
