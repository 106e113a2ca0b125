"""Where each replica goes: from deployments and servers to assignments, with the reason of every choice and shortage.

Pure, and simple for now: what fits (`fitting`), spread, stable ties. What is placed stays where it is while it may;
`lifecycle` makes servers be as the answer says.

- Deployments are placed by priority, then age. Nobody is moved for a newcomer.
- Without `Needs.replicas` a deployment has one replica on every server.
- A version with a share of the traffic has its share of the replicas, at least one, on servers of its own: a server
  holds one version of a model.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from heapq import heapify, heappop, heappush, heapreplace

from control_plane.planning.fitting import Quarantined, Room, excluded, unfit
from control_plane.state import (
    Deployment,
    DeploymentName,
    ModelState,
    ObservedServer,
    Pin,
    Published,
    ServerId,
    Track,
)
from control_plane.wanted import ANY_POOL, Requirements

Place = tuple[ServerId, DeploymentName, int]
"""What makes a replica the same one from pass to pass: server, deployment, and which of its versions (from 0)."""

_TOLD_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class Assignment:
    """One replica: a version of a deployment (`track` counts them from 0) on a server; `reason` says why there."""

    server: ServerId
    deployment: DeploymentName
    track: int
    reason: str = ""

    @property
    def place(self) -> Place:
        """The same without the reason."""
        return self.server, self.deployment, self.track


@dataclass(frozen=True, slots=True)
class Shortage:
    """Replicas that have no place: `missing` of `wanted`, and what each server lacks, in words."""

    deployment: DeploymentName
    track: int
    missing: int
    wanted: int
    causes: Mapping[ServerId, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """All of it in one sentence, each cause once with the servers that it holds for."""
        by_cause: dict[str, list[str]] = {}
        for server, cause in sorted(self.causes.items()):
            by_cause.setdefault(cause, []).append(f"'{server}'")
        told = "; ".join(f"server {_some(servers)} {cause}" for cause, servers in by_cause.items())
        return f"{self.missing} of {self.wanted} replicas have no server: {told or 'there is none in its pool'}."


@dataclass(frozen=True, slots=True)
class Placement:
    """Every assignment, by server then deployment, and what has no place."""

    assignments: tuple[Assignment, ...] = ()
    shortages: tuple[Shortage, ...] = ()
    _by_deployment: Mapping[DeploymentName, tuple[Assignment, ...]] = field(init=False, repr=False, compare=False)
    _by_server: Mapping[ServerId, tuple[Assignment, ...]] = field(init=False, repr=False, compare=False)
    _short: frozenset[DeploymentName] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the assignments: every pass asks for each deployment's, every execution for its server's."""
        by_deployment: dict[DeploymentName, list[Assignment]] = {}
        by_server: dict[ServerId, list[Assignment]] = {}
        for assignment in self.assignments:
            by_deployment.setdefault(assignment.deployment, []).append(assignment)
            by_server.setdefault(assignment.server, []).append(assignment)
        object.__setattr__(self, "_by_deployment", {name: tuple(each) for name, each in by_deployment.items()})
        object.__setattr__(self, "_short", frozenset(it.deployment for it in self.shortages))
        object.__setattr__(self, "_by_server", {server: tuple(each) for server, each in by_server.items()})

    @property
    def short(self) -> frozenset[DeploymentName]:
        """The deployments that lack a replica."""
        return self._short

    def places(self) -> frozenset[Place]:
        """Return what the next placement should leave where it is."""
        return frozenset(it.place for it in self.assignments)

    def of(self, deployment: DeploymentName) -> tuple[Assignment, ...]:
        """Return the assignments of a deployment, by server."""
        return self._by_deployment.get(deployment, ())

    def on(self, server: ServerId) -> tuple[Assignment, ...]:
        """Return the assignments of a server, by deployment."""
        return self._by_server.get(server, ())


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What bears on placement beside what is desired and observed: the time, what was before, quarantines."""

    now: datetime | None = None
    before: frozenset[Place] = frozenset()
    quarantined: Quarantined = field(default_factory=dict)


def place_replicas(
    deployments: Iterable[Deployment],
    published: Published,
    observed: Iterable[ObservedServer],
    circumstances: Circumstances | None = None,
) -> Placement:
    """Return where every replica goes. The same input in any order gives the same answer."""
    given = circumstances or Circumstances()
    rooms = {it.server.id: Room(it) for it in sorted(observed, key=lambda it: it.server.id)}
    work = _Work(published, given, rooms, _Emptiest(rooms, given.now), _serving(rooms.values()))
    versions = [
        _Version(deployment, number, track)
        for deployment in sorted(deployments, key=lambda it: (-it.needs.priority, it.created_at, it.name))
        for number, track in enumerate(deployment.tracks)
    ]
    before: dict[tuple[DeploymentName, int], list[ServerId]] = {}
    for server, name, number in sorted(given.before):
        before.setdefault((name, number), []).append(server)
    for version in versions:
        work.keep(version, before.get(version.key, ()))
    for version in versions:
        work.fill(version)
    assignments = sorted(work.assignments, key=lambda it: it.place)
    return Placement(tuple(assignments), tuple(sorted(work.shortages, key=lambda it: (it.deployment, it.track))))


def wanted_replicas(deployment: Deployment) -> int | None:
    """Return how many replicas a deployment is to have; None for one on every server."""
    if not deployment.needs.replicas:
        return None
    return sum(sum(_Version(deployment, number, it).by_pool.values()) for number, it in enumerate(deployment.tracks))


@dataclass(frozen=True)
class _Version:
    """One version of a deployment."""

    deployment: Deployment
    number: int
    track: Track

    @cached_property
    def key(self) -> tuple[DeploymentName, int]:
        return self.deployment.name, self.number

    @cached_property
    def by_pool(self) -> Mapping[str, int]:
        """How many replicas each pool has to hold; empty for one on every server."""
        return {pool: self.part_of(bounds.min) for pool, bounds in sorted(self.deployment.needs.replicas.items())}

    def part_of(self, total: int) -> int:
        """Return this version's part of `total` replicas, by its share of the traffic."""
        return deal_out(total, [track.share for track in self.deployment.tracks])[self.number]


def deal_out(total: int, shares: list[int]) -> list[int]:
    """Deal `total` out by `shares` in percent: at least 1 each, then the largest remainders, the first of equals.

    The sum is `total`, or one for each share where that is more; nothing at all of 0.
    """
    if not total:
        return [0] * len(shares)
    counts = [1] * len(shares)
    while sum(counts) < total:
        lacking = [total * share / 100 - count for share, count in zip(shares, counts, strict=True)]
        counts[lacking.index(max(lacking))] += 1
    return counts


_Kind = tuple[tuple[str, ...], int, str, tuple[tuple[str, str], ...]]


class _Emptiest:
    """Servers by how few models they are to hold, for each pool and each kind of requirements.

    Heaps that are put right while they are read: a server only ever gets more models, so an entry that says too few is
    pushed back with what it has by now.
    """

    def __init__(self, rooms: Mapping[ServerId, Room], now: datetime | None) -> None:
        self._rooms, self._now = rooms, now
        self._heaps: dict[tuple[str, _Kind], list[tuple[int, ServerId]]] = {}

    def take(self, pool: str, needs: Requirements, count: int, fits: Callable[[Room], bool]) -> list[Room]:
        """Return the emptiest servers of a pool that have what is required and fit, at most `count`, ties by id."""
        key = pool, _kind(needs)
        if key not in self._heaps:
            self._heaps[key] = self._made(pool, needs)
        heap, found, passed = self._heaps[key], list[Room](), list[tuple[int, ServerId]]()
        while heap and len(found) < count:
            models, server = heap[0]
            room = self._rooms[server]
            if len(room.versions) > models:
                heapreplace(heap, (len(room.versions), server))
                continue
            passed.append(heappop(heap))
            if fits(room):
                found.append(room)
        for entry in passed:
            heappush(heap, entry)
        return found

    def _made(self, pool: str, needs: Requirements) -> list[tuple[int, ServerId]]:
        heap = [
            (len(room.versions), server)
            for server, room in self._rooms.items()
            if pool in (ANY_POOL, room.seen.server.pool) and not excluded(needs, room.seen, self._now)
        ]
        heapify(heap)
        return heap


def _kind(needs: Requirements) -> _Kind:
    """Return what makes two requirements the same; a mapping cannot be a key."""
    return needs.compute_capabilities, needs.memory_bytes, needs.mig_profile, tuple(sorted(needs.labels.items()))


def _serving(rooms: Iterable[Room]) -> dict[Pin, set[ServerId]]:
    """Index which servers have each version ready."""
    found: dict[Pin, set[ServerId]] = {}
    for room in rooms:
        for row in room.seen.models:
            if row.state is ModelState.READY:
                found.setdefault(Pin(row.name, row.version), set()).add(room.seen.server.id)
    return found


@dataclass(slots=True)
class _Work:
    published: Published
    given: Circumstances
    rooms: dict[ServerId, Room]
    emptiest: _Emptiest
    serving: Mapping[Pin, set[ServerId]]
    assignments: list[Assignment] = field(default_factory=list)
    shortages: list[Shortage] = field(default_factory=list)
    holds: dict[tuple[DeploymentName, int], set[ServerId]] = field(default_factory=dict)
    counted: Counter[tuple[DeploymentName, int, str]] = field(default_factory=Counter)
    unfit: dict[tuple[DeploymentName, int], dict[ServerId, str]] = field(default_factory=dict)

    def keep(self, version: _Version, before: Iterable[ServerId]) -> None:
        """Leave replicas where they were, as far as they may stay and are still asked for."""
        for server in before:
            room = self.rooms.get(server)
            pool = self._wanting_pool(version, room.seen.server.pool) if room is not None else None
            if room is not None and pool is not None and not self._why_not(version, room):
                self._put(version, server, pool, "It was there before.")

    def fill(self, version: _Version) -> None:
        """Place the replicas that are still missing, and tell those that cannot be."""
        if not version.deployment.needs.replicas:
            self._fill_everywhere(version)
            return
        for pool, wanted in version.by_pool.items():
            missing = wanted - self.counted[*version.key, pool]
            if missing <= 0:
                continue
            found = self._best(version, pool, missing)
            for room, why in found:
                self._put(version, room.seen.server.id, pool, f"Of the servers that fit it, {why}.")
            if missing > len(found):
                causes = self._causes(version, pool)
                self.shortages.append(Shortage(*version.key, missing - len(found), wanted, causes))

    def _fill_everywhere(self, version: _Version) -> None:
        held = self._held(version)
        free = [room for server, room in self.rooms.items() if server not in held]
        causes = {room.seen.server.id: self._why_not(version, room) for room in free}
        fitting = [server for server, why in causes.items() if not why]
        if version.deployment.others:
            fitting = fitting[: max(0, version.part_of(len(self.rooms)) - len(held))]
        for server in fitting:
            self._put(version, server, ANY_POOL, "It is to be on every server.")
        if not self._held(version) and causes:
            self.shortages.append(Shortage(*version.key, 1, 1, {it: why for it, why in causes.items() if why}))

    def _best(self, version: _Version, pool: str, count: int) -> list[tuple[Room, str]]:
        """Return the best servers of a pool that can take a replica, at most `count`, with the reason for each.

        Those that serve the version already come first, then those with the fewest models, then the first by name. No
        more than are taken are looked at: to look at every server for every replica is what made big fleets slow.
        """
        serving = self._serving(version.track)
        fitting = [self.rooms[server] for server in serving if self._takes(version, pool, self.rooms[server])]
        fitting.sort(key=lambda room: (len(room.versions), room.seen.server.id))
        best = [(room, "it serves the version already") for room in fitting[:count]]
        if len(best) < count and len(serving) < len(self.rooms):
            emptiest = self.emptiest.take(
                pool,
                version.deployment.needs.requirements,
                count - len(best),
                lambda room: room.seen.server.id not in serving and self._takes(version, pool, room),
            )
            best.extend((room, f"it has the fewest models to hold ({len(room.versions)})") for room in emptiest)
        return best

    def _takes(self, version: _Version, pool: str, room: Room) -> bool:
        server = room.seen.server
        fits = pool in (ANY_POOL, server.pool) and server.id not in self._held(version)
        return fits and not self._why_not(version, room)

    def _serving(self, track: Track) -> AbstractSet[ServerId]:
        """Return the servers that have all of a version ready: every one where it has nothing."""
        if not track.pins:
            return self.rooms.keys()
        first, *others = (self.serving.get(pin, set()) for pin in track.pins)
        return first.intersection(*others)

    def _causes(self, version: _Version, pool: str) -> dict[ServerId, str]:
        """Return why no server of a pool takes one more replica, each."""
        held = self._held(version)
        return {
            server: "holds a replica of it already" if server in held else self._why_not(version, room)
            for server, room in self.rooms.items()
            if pool in (ANY_POOL, room.seen.server.pool)
            and room.seen.server.reserved_for in ("", version.deployment.name)
        }

    def _put(self, version: _Version, server: ServerId, pool: str, reason: str) -> None:
        self.rooms[server].put(version.deployment, version.track, self.published)
        self._held(version).add(server)
        self.counted[*version.key, pool] += 1
        self.assignments.append(Assignment(server, *version.key, reason))

    def _held(self, version: _Version) -> set[ServerId]:
        return self.holds.setdefault(version.key, set())

    def _wanting_pool(self, version: _Version, own: str) -> str | None:
        """Return the pool for which a replica on a server of pool `own` counts; None where no more are wanted."""
        if not version.deployment.needs.replicas:
            more = not version.deployment.others or len(self._held(version)) < version.part_of(len(self.rooms))
            return ANY_POOL if more else None
        wanted = version.by_pool
        return next((it for it in (own, ANY_POOL) if self.counted[*version.key, it] < wanted.get(it, 0)), None)

    def _why_not(self, version: _Version, room: Room) -> str:
        """Why a replica cannot be on a server; empty where it can."""
        known = self.unfit.setdefault(version.key, {})
        server = room.seen.server.id
        if server not in known:
            given = self.given
            known[server] = unfit(
                version.deployment, version.track, room.seen, self.published, given.quarantined, given.now
            )
        return known[server] or room.why_no_room(version.deployment, version.track, self.published)


def _some(names: list[str]) -> str:
    more = len(names) - _TOLD_AT_MOST
    return ", ".join(names[:_TOLD_AT_MOST]) + (f" and {more} more" if more > 0 else "")
