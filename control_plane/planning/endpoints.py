"""Where clients are sent: the servers that serve a model now, with the share of the traffic of each. Pure.

`api` publishes the answer; `lifecycle` leaves a replica loaded for a while after it left the list. A version's share of
the traffic is split evenly between its replicas; the share of a version that nobody serves goes to the others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from control_plane.planning.placement import Placement
from control_plane.planning.targets import TargetOnServer
from control_plane.state import (
    Deployment,
    DeploymentName,
    Endpoints,
    ModelName,
    ModelState,
    ObservedServer,
    ServerCondition,
    ServerId,
    Track,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that serves a version of a deployment. The weights of a deployment's endpoints add up to 1."""

    server: ServerId
    addresses: Endpoints
    deployment: DeploymentName
    model: ModelName
    version: int
    weight: float


@dataclass(frozen=True)
class Serving:
    """What was observed, by what was placed where: which servers can answer for a version."""

    observed: Mapping[ServerId, ObservedServer]
    placement: Placement
    targets: Mapping[tuple[ServerId, ModelName], TargetOnServer]
    broken: Mapping[tuple[ServerId, ModelName], str]

    def endpoints(self, deployment: Deployment) -> tuple[Endpoint, ...]:
        """Return the endpoints of a deployment, by server."""
        serving = [(track, self._servers(deployment, number, track)) for number, track in enumerate(deployment.tracks)]
        total = sum(track.share for track, servers in serving if servers)
        found = [
            Endpoint(
                seen.server.id,
                seen.server.endpoints,
                deployment.name,
                deployment.model,
                track.pinned,
                track.share / total / len(servers) if total else 0.0,
            )
            for track, servers in serving
            for seen in servers
        ]
        return tuple(sorted(found, key=lambda it: (it.server, it.version)))

    def listed(self, deployments: Iterable[Deployment]) -> frozenset[tuple[ServerId, ModelName]]:
        """Return every model on every server that clients are sent to, members included."""
        return frozenset(
            (seen.server.id, pin.model)
            for deployment in deployments
            for number, track in enumerate(deployment.tracks)
            for seen in self._servers(deployment, number, track)
            for pin in track.pins
        )

    def _servers(self, deployment: Deployment, number: int, track: Track) -> list[ObservedServer]:
        """Return the servers that serve a version where it is to be; while none does, those that still do elsewhere."""
        places = {it.server for it in self.placement.of(deployment.name) if it.track == number}
        own = [self.observed[server] for server in sorted(places) if server in self.observed]
        found = [it for it in own if it.condition is ServerCondition.HEALTHY and self._serves(it, track)]
        if found or not track.pins:
            return found
        elsewhere = self._ready.get(track.pins[-1].model, ())
        return [it for it in elsewhere if it.answers and self._serves(it, track)]

    @cached_property
    def _ready(self) -> Mapping[ModelName, tuple[ObservedServer, ...]]:
        """The servers that have a model ready, by id: only those are asked whether they serve it."""
        found: dict[ModelName, list[ObservedServer]] = {}
        for _, seen in sorted(self.observed.items()):
            for model in {row.name for row in seen.models if row.state is ModelState.READY}:
                found.setdefault(model, []).append(seen)
        return {model: tuple(servers) for model, servers in found.items()}

    def _serves(self, seen: ObservedServer, track: Track) -> bool:
        for pin in track.pins:
            place = seen.server.id, pin.model
            choice = self.targets.get(place)
            another = choice is not None and choice.version == pin.version and not choice.serving
            if seen.ready_versions(pin.model) != {pin.version} or place in self.broken or another:
                return False
        return True
