"""Laws of placement, for any deployments and fleet that Hypothesis can think of; one law says it plainly, slowly."""

import random
from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.planning import Circumstances, place_replicas
from control_plane.planning.fitting import HEADROOM, Room, unfit
from control_plane.planning.placement import Placement
from control_plane.state import (
    Deployment,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Pin,
    Published,
    ServerCondition,
    Track,
)
from control_plane.wanted import ANY_POOL, Isolation, Needs, Replicas, Requirements
from tests.fakes.world import a_deployment, a_package, a_repository, a_server

MODELS = "abcd"
POOLS = ("default", "other")
CAPABILITIES = ("8.9", "9.0")
SIZES = (0, 20, 40)
CONDITIONS = (ServerCondition.HEALTHY, ServerCondition.HEALTHY, ServerCondition.UNREACHABLE, ServerCondition.DRAINING)


@dataclass(frozen=True)
class Case:
    deployments: tuple[Deployment, ...]
    published: Published
    observed: tuple[ObservedServer, ...]

    def place(self, before: Placement | None = None) -> Placement:
        places = before.places() if before is not None else frozenset()
        return place_replicas(self.deployments, self.published, self.observed, Circumstances(before=places))

    def deployment(self, name: str) -> Deployment:
        return next(it for it in self.deployments if it.name == name)

    def rooms(self, placement: Placement) -> dict[str, Room]:
        """Return the servers with all that was placed on them."""
        rooms = {str(it.server.id): Room(it) for it in self.observed}
        for it in placement.assignments:
            deployment = self.deployment(it.deployment)
            rooms[it.server].put(deployment, deployment.tracks[it.track], self.published)
        return rooms


@st.composite
def deployments(draw: st.DrawFn, number: int) -> Deployment:
    model = ModelName(draw(st.sampled_from(MODELS)))
    pools = st.dictionaries(st.sampled_from((ANY_POOL, *POOLS)), st.integers(0, 4).map(Replicas), max_size=2)
    needs = Needs(
        draw(pools),
        2 if model == MODELS[0] else None,  # of a model the same for all: see `Room.more_memory`
        requirements=Requirements(draw(st.sampled_from(((), CAPABILITIES[:1], CAPABILITIES)))),
        isolation=draw(st.sampled_from((Isolation.SHARED, Isolation.SHARED, Isolation.DEDICATED))),
        priority=draw(st.integers(0, 1)),
    )
    made = replace(
        a_deployment(f"d{number}", (model, draw(st.integers(1, 2))), at=draw(st.integers(0, 2))), needs=needs
    )
    if not draw(st.booleans()):
        return made
    other = 3 - made.pins[0].version
    return replace(made, others=(Track(other, (Pin(model, other),), draw(st.sampled_from((10, 50)))),))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    published = replace(
        a_repository(*(a_package(name, (1, 2)) for name in MODELS)),
        memory={Pin(ModelName(name), version): draw(st.sampled_from(SIZES)) for name in MODELS for version in (1, 2)},
    )
    observed = []
    for index in range(draw(st.integers(0, 6))):
        rows = draw(st.dictionaries(st.sampled_from(MODELS), st.integers(1, 2), max_size=3))
        server = a_server(f"s{index}", None, *draw(st.sampled_from(((), *((it,) for it in CAPABILITIES)))))
        server = replace(server, pool=draw(st.sampled_from(POOLS)), memory_bytes=draw(st.sampled_from((0, 50, 100))))
        models = tuple(ObservedModel(ModelName(name), version, ModelState.READY) for name, version in rows.items())
        observed.append(ObservedServer(server, draw(st.sampled_from(CONDITIONS)), models))
    made = tuple(draw(deployments(number)) for number in range(draw(st.integers(0, 5))))
    return Case(made, published, tuple(observed))


@given(cases())
def test_no_server_holds_more_than_its_memory(case: Case) -> None:
    for room in case.rooms(case.place()).values():
        limit = room.seen.server.memory_bytes * (1 - HEADROOM)
        assert not limit or room.memory_bytes <= limit


@given(cases())
def test_requirements_and_pools_hold(case: Case) -> None:
    servers = {it.server.id: it for it in case.observed}
    for it in case.place().assignments:
        deployment, seen = case.deployment(it.deployment), servers[it.server]
        track = deployment.tracks[it.track]
        assert not unfit(deployment, track, seen, case.published, {}, None)
        assert not deployment.needs.replicas or {ANY_POOL, seen.server.pool} & deployment.needs.replicas.keys()


@given(cases())
def test_a_server_holds_one_version_of_a_model_and_a_version_of_a_deployment_once(case: Case) -> None:
    placement = case.place()
    assert len(placement.places()) == len(placement.assignments)
    held: dict[tuple[str, str], int] = {}
    for it in placement.assignments:
        for pin in case.deployment(it.deployment).tracks[it.track].pins:
            assert held.setdefault((it.server, pin.model), pin.version) == pin.version


@given(cases())
def test_what_is_to_be_alone_is_alone(case: Case) -> None:
    placement = case.place()
    on: dict[str, set[str]] = {}
    for it in placement.assignments:
        on.setdefault(it.server, set()).add(it.deployment)
    for names in on.values():
        assert len(names) == 1 or all(case.deployment(it).needs.isolation is Isolation.SHARED for it in names)


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(case: Case, dice: random.Random) -> None:
    shuffled = replace(
        case,
        deployments=tuple(dice.sample(case.deployments, len(case.deployments))),
        observed=tuple(dice.sample(case.observed, len(case.observed))),
    )
    assert shuffled.place() == case.place()


@given(cases())
def test_what_is_placed_stays(case: Case) -> None:
    """Where nothing is missing nothing changes. Else what stays may count for another of its pools, and more fits."""
    first = case.place()
    again = case.place(first)
    assert again.places() >= first.places()
    assert again.places() == first.places() or first.shortages


@given(cases())
def test_nothing_is_missing_that_a_server_could_take(case: Case) -> None:
    placement = case.place()
    rooms, held = case.rooms(placement), placement.places()
    for shortage in placement.shortages:
        deployment = case.deployment(shortage.deployment)
        track, pools = deployment.tracks[shortage.track], tuple(deployment.needs.replicas)
        for name, room in rooms.items():
            within = pools in ((), (ANY_POOL,), (room.seen.server.pool,)) or name in shortage.causes
            there = (name, deployment.name, shortage.track) in held
            if within and not there:
                unable = unfit(deployment, track, room.seen, case.published, {}, None)
                assert unable or room.why_no_room(deployment, track, case.published)


@given(cases())
def test_wanted_replicas_are_placed_or_told_missing(case: Case) -> None:
    placement = case.place()
    there = Counter((it.deployment, it.track) for it in placement.assignments)
    missing: Counter[tuple[str, int]] = Counter()
    for it in placement.shortages:
        missing[it.deployment, it.track] += it.missing
    for deployment in case.deployments:
        if deployment.needs.replicas and not deployment.others:
            wanted = sum(it.min for it in deployment.needs.replicas.values())
            assert there[deployment.name, 0] + missing[deployment.name, 0] == wanted


@given(cases())
def test_each_replica_is_where_looking_at_every_server_would_put_it(case: Case) -> None:
    """Of the servers that fit, first those that serve the version, then those with the fewest models, then by id."""
    rooms = {str(it.server.id): Room(it) for it in sorted(case.observed, key=lambda it: it.server.id)}
    expected = set()
    for deployment in sorted(case.deployments, key=lambda it: (-it.needs.priority, it.created_at, it.name)):
        if deployment.others or not deployment.needs.replicas:
            return  # of those the law is not as plain
        (track,) = deployment.tracks
        for pool, bounds in sorted(deployment.needs.replicas.items()):
            for _ in range(bounds.min):
                fitting = [
                    room
                    for name, room in rooms.items()
                    if pool in (ANY_POOL, room.seen.server.pool)
                    and (name, deployment.name, 0) not in expected
                    and not unfit(deployment, track, room.seen, case.published, {}, None)
                    and not room.why_no_room(deployment, track, case.published)
                ]
                if fitting:
                    best = min(fitting, key=lambda it: (not _serves(it, track), len(it.versions), it.seen.server.id))
                    best.put(deployment, track, case.published)
                    expected.add((str(best.seen.server.id), deployment.name, 0))
    assert case.place().places() == expected


def _serves(room: Room, track: Track) -> bool:
    return all(pin.version in room.seen.ready_versions(pin.model) for pin in track.pins)
