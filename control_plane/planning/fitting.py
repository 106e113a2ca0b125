"""Whether a server can hold a version of a deployment, and if not, why: one sentence each. Pure.

Two kinds of reasons: what a server can never do for a deployment, whatever else it holds (`unfit`), and what it has no
room for beside what it holds already (`Room.why_no_room`). `placement` asks for every replica.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.planning.targets import Wishes, choose_target
from control_plane.state import (
    Deployment,
    DeploymentName,
    ModelName,
    ObservedServer,
    Pin,
    Published,
    ServerCondition,
    ServerId,
    Track,
)
from control_plane.wanted import Isolation, Requirements

GRACE = timedelta(seconds=30)
"""How long a server may be away before its replicas are placed elsewhere: a restart takes seconds."""
HEADROOM = 0.1
"""Part of a server's memory that no model may count on: what was measured varies from load to load."""

Quarantined = Mapping[tuple[ServerId, ModelName], str]
"""Models that are not loaded on a server any more, and why."""


def unfit(
    deployment: Deployment,
    track: Track,
    seen: ObservedServer,
    published: Published,
    quarantined: Quarantined,
    now: datetime | None,
) -> str:
    """Why a server can never hold the version as things are; empty where it can.

    A deployment that is to be on every server is there wherever it is not asked to stay away: that nothing of it can be
    loaded somewhere is told of that server, and what serves there goes on.
    """
    if seen.server.reserved_for not in ("", deployment.name):
        return f"is on a slice that is kept for deployment '{seen.server.reserved_for}'"
    everywhere = not deployment.needs.replicas
    reason = excluded(deployment.needs.requirements, seen, now, patient=everywhere)
    if reason or everywhere:
        return reason
    wishes = Wishes(deployment.precisions, deployment.allow_unproven)
    for pin in track.pins:
        if why := quarantined.get((seen.server.id, pin.model)):
            return f"model '{pin.model}' is quarantined there: {why}"
        unproven = "" if deployment.allow_unproven else published.unproven_of(pin)
        if unproven:
            return f"model '{pin.model}' is unproven ({unproven}), and the deployment does not allow that"
        choice = choose_target(seen, pin, wishes, published)
        if choice is not None and choice.problem:
            return f"model '{pin.model}': {choice.problem.removesuffix('.')}"
    return ""


def excluded(needs: Requirements, seen: ObservedServer, now: datetime | None, *, patient: bool = False) -> str:
    """Why a server is out of the question for whatever requires this; empty where it is not.

    A deployment that is to be on every server is `patient`: it waits for one that is away.
    """
    return _away(seen, now, patient=patient) or _lacks(needs, seen)


def _away(seen: ObservedServer, now: datetime | None, *, patient: bool) -> str:
    match seen.condition:
        case ServerCondition.DRAINING:
            return f"is draining ({seen.detail})" if seen.detail else "is draining"
        case ServerCondition.UNREACHABLE if not patient and now is not None and seen.since is not None:
            return f"is unreachable since {seen.since:%H:%M:%S} UTC" if now - seen.since >= GRACE else ""
        case _:
            return ""


def _lacks(needs: Requirements, seen: ObservedServer) -> str:
    server = seen.server
    if needs.compute_capabilities and not set(server.compute_capabilities) & set(needs.compute_capabilities):
        has = ", ".join(server.compute_capabilities)
        has = f"has compute capability {has}" if has else "has no GPU"
        return f"{has}; {' or '.join(needs.compute_capabilities)} is required"
    if needs.memory_bytes and server.memory_bytes < needs.memory_bytes:
        return f"has {mib(server.memory_bytes)} of memory; {mib(needs.memory_bytes)} are required"
    if needs.mig_profile and all(device.mig_profile != needs.mig_profile for device in server.devices):
        return f"is no MIG slice {needs.mig_profile}, which is required"
    for name, value in sorted(needs.labels.items()):
        if server.labels.get(name) != value:
            return f"has not the label {name}={value}"
    return ""


@dataclass(slots=True)
class Room:
    """One server while replicas are put on it: the models it will hold, and for whom."""

    seen: ObservedServer
    versions: dict[ModelName, int] = field(default_factory=dict)
    first: dict[ModelName, Deployment] = field(default_factory=dict)
    deployments: set[DeploymentName] = field(default_factory=set)
    instances: dict[ModelName, int] = field(default_factory=dict)
    dedicated_to: DeploymentName | None = None
    memory_bytes: int = 0

    def why_no_room(self, deployment: Deployment, track: Track, published: Published) -> str:
        """Why the version cannot stand beside what the server holds already; empty where it can."""
        if self.dedicated_to not in (None, deployment.name):
            return f"is dedicated to deployment '{self.dedicated_to}'"
        if deployment.needs.isolation is Isolation.DEDICATED and (others := self.deployments - {deployment.name}):
            return f"holds deployment '{min(others)}', and this one is to have a server of its own"
        for pin in track.pins:
            held = self.versions.get(pin.model, pin.version)
            other = self.first.get(pin.model, deployment)
            if held != pin.version:
                return f"holds model '{pin.model}' at version {held} for '{other.name}', not at version {pin.version}"
            if other.precisions != deployment.precisions and published.targets_of(pin):
                return f"holds model '{pin.model}' in another precision for '{other.name}'"
        limit, needed = self._limit, self.more_memory(deployment, track, published)
        if limit and self.memory_bytes + needed > limit:
            left = mib(max(0, limit - self.memory_bytes))
            return f"has {left} of memory left of {mib(limit)}; {mib(needed)} were measured for it"
        return ""

    def put(self, deployment: Deployment, track: Track, published: Published) -> None:
        """Have the server hold the version."""
        self.memory_bytes += self.more_memory(deployment, track, published)
        for pin in track.pins:
            self.versions.setdefault(pin.model, pin.version)
            self.first.setdefault(pin.model, deployment)
            self.instances[pin.model] = max(self.instances.get(pin.model, 0), _instances(deployment, pin))
        self.deployments.add(deployment.name)
        if deployment.needs.isolation is Isolation.DEDICATED:
            self.dedicated_to = deployment.name

    def more_memory(self, deployment: Deployment, track: Track, published: Published) -> int:
        """Return the bytes that the version's models take beyond those that the server holds anyway.

        Of a model that several deployments share, the most instances that any of them asks for are loaded.
        """
        more = ((pin, _instances(deployment, pin) - self.instances.get(pin.model, 0)) for pin in track.pins)
        return sum(published.memory_of(pin, count) for pin, count in more if count > 0)

    @property
    def _limit(self) -> int:
        return int(self.seen.server.memory_bytes * (1 - HEADROOM))


def _instances(deployment: Deployment, pin: Pin) -> int:
    return (deployment.needs.instances or 1) if pin.model == deployment.model else 1


def mib(size: int) -> str:
    """Return bytes for people."""
    return f"{size / 2**20:,.0f} MiB"
