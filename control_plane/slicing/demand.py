"""What deployments want of slices: for each replica the kinds of slices that can hold it, or why none can. Pure.

A slice can hold a replica where its memory does with headroom as measured, its GPU has what is required, its p99 there
was not measured to be above the objective, and there is a file of each of its models that runs there. Which server it
will be is not known yet, so all of this is asked of one that does not exist: what the node would start on such a slice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from control_plane.mig import MigProfile, Product, SliceKind
from control_plane.planning.fitting import HEADROOM, mib
from control_plane.planning.placement import wanted_replicas
from control_plane.planning.targets import Wishes, choose_target
from control_plane.slicing.model import Choice, ReplicaId, Wanted
from control_plane.state import (
    Deployment,
    DeploymentName,
    Device,
    ObservedServer,
    Published,
    Server,
    ServerCondition,
    ServerId,
)
from control_plane.wanted import ANY_POOL

_WARM = 2.0**-10
POOL = "slices"
"""The pool of the servers of slices; replicas that may be in any pool are here where there is no other server."""


@dataclass(frozen=True, slots=True)
class SliceOffer:
    """A product of the fleet, and the server that would be started on a slice of it (its id and ports mean nothing)."""

    product: Product
    server: Server
    triton_version: str = ""

    def server_on(self, profile: MigProfile) -> Server:
        """Return the server on a slice of this profile."""
        product = self.product
        device = Device("", product.name, product.compute_capability, profile.memory_bytes, profile.name)
        return replace(self.server, id=ServerId(""), devices=(device,), memory_bytes=profile.memory_bytes)


@dataclass(frozen=True)
class Demand:
    """The replicas that want a slice, whose they are, and what no slice of the fleet can hold, with the reasons."""

    wanted: tuple[Wanted, ...]
    owners: Mapping[ReplicaId, DeploymentName]
    impossible: Mapping[DeploymentName, tuple[str, ...]]


def demand_of(
    deployments: Iterable[Deployment], published: Published, offers: Iterable[SliceOffer], *, alone: bool
) -> Demand:
    """Return what deployments want of slices; `alone` says that the fleet has no other server."""
    wanted: list[Wanted] = []
    owners: dict[ReplicaId, DeploymentName] = {}
    impossible: dict[DeploymentName, tuple[str, ...]] = {}
    by_name = {it.product.name: it for it in offers}
    for deployment in sorted(deployments, key=lambda it: it.name):
        count = replicas_on_slices(deployment, alone=alone)
        if not count:
            continue
        choices, reasons = _choices(deployment, published, by_name.values())
        if not choices:
            impossible[deployment.name] = reasons
        for number in range(count):
            replica = ReplicaId(f"{deployment.name}/{number}")
            value = float(2 ** max(-8, min(8, deployment.needs.priority)))
            wanted.append(Wanted(replica, choices, deployment.name, deployment.needs.spread, value))
            owners[replica] = deployment.name
    return Demand(tuple(wanted), owners, impossible)


def warm_slices(counts: Mapping[str, int], offers: Iterable[SliceOffer]) -> tuple[Wanted, ...]:
    """Return the slices to keep ready, so many of each profile by its published name ("1g.10gb").

    They are worth less than any replica and cost nothing to move: whoever finds no other place takes one.
    """
    kinds: dict[str, list[SliceKind]] = {}
    for offer in sorted(offers, key=lambda it: it.product.name):
        for profile in _usable(offer.product):
            kinds.setdefault(profile.name, []).append(SliceKind(offer.product.name, profile.key))
    return tuple(
        Wanted(ReplicaId(f"warm/{name}/{number}"), tuple(map(Choice, kinds.get(name, ()))), value=_WARM, move_cost=0.0)
        for name, count in sorted(counts.items())
        for number in range(count)
    )


def replicas_on_slices(deployment: Deployment, *, alone: bool) -> int:
    """Return how many of its replicas are to be on slices: those of their pool, and of any where there is no other.

    One that asks for no number has one: a server on every slice would leave none for others.
    """
    asked = deployment.needs.replicas
    if not asked:
        return len(deployment.tracks) if alone else 0
    if set(asked) == {ANY_POOL}:
        return (wanted_replicas(deployment) or 0) if alone else 0
    return asked[POOL].min if POOL in asked else 0


def _choices(
    deployment: Deployment, published: Published, offers: Iterable[SliceOffer]
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    found: list[Choice] = []
    reasons: list[str] = []
    for offer in sorted(offers, key=lambda it: it.product.name):
        for profile in _usable(offer.product):
            why = _unfit(deployment, published, offer, profile)
            if why:
                reasons.append(f"{profile.name} of {offer.product.name}: {why}")
            else:
                risk = _risk(deployment, published, offer, profile)
                found.append(Choice(SliceKind(offer.product.name, profile.key), risk))
    return tuple(found), tuple(reasons or ["the fleet has no GPU that can be cut"])


def _usable(product: Product) -> list[MigProfile]:
    """Return the profiles that are given out: those without media engines or graphics of their own."""
    kept = (it for it in product.profiles.values() if "+" not in it.key and "-" not in it.key)
    return sorted(kept, key=lambda it: (it.memory_slices, it.g, it.key)) if product.has_mig else []


def _unfit(deployment: Deployment, published: Published, offer: SliceOffer, profile: MigProfile) -> str:
    needs = deployment.needs.requirements
    product = offer.product
    if needs.compute_capabilities and product.compute_capability not in needs.compute_capabilities:
        required = " or ".join(needs.compute_capabilities)
        return f"has compute capability {product.compute_capability}, {required} is required"
    if needs.mig_profile and needs.mig_profile != profile.name:
        return f"{needs.mig_profile} is required"
    if needs.memory_bytes > profile.memory_bytes:
        return f"has {mib(profile.memory_bytes)}, {mib(needs.memory_bytes)} are required"
    return _too_large_or_slow(deployment, published, offer, profile) or _without_file(
        deployment, published, offer, profile
    )


def _too_large_or_slow(deployment: Deployment, published: Published, offer: SliceOffer, profile: MigProfile) -> str:
    limit, measured = int(profile.memory_bytes * (1 - HEADROOM)), _measured(deployment, published)
    if measured > limit:
        return f"models may take {mib(limit)}, {mib(measured)} were measured"
    objective, p99 = deployment.needs.objectives.p99_ms, _p99_ms(deployment, published, offer, profile)
    if objective is not None and p99 is not None and p99 > objective:
        return f"its least p99 there was measured as {p99:g} ms, {objective:g} ms are asked for"
    return ""


def _without_file(deployment: Deployment, published: Published, offer: SliceOffer, profile: MigProfile) -> str:
    """Why a server there has no file of one of the models that runs on it; empty where it has them."""
    seen = ObservedServer(offer.server_on(profile), ServerCondition.HEALTHY, triton_version=offer.triton_version)
    wishes = Wishes(deployment.precisions, deployment.allow_unproven)
    for pin in deployment.all_pins:
        choice = choose_target(seen, pin, wishes, published)
        if choice is not None and choice.problem:
            return f"model '{pin.model}': {choice.problem.removesuffix('.')}"
    return ""


def _p99_ms(deployment: Deployment, published: Published, offer: SliceOffer, profile: MigProfile) -> float | None:
    """Return the least p99 of the slowest of its versions on such a slice, measured there; None where one was not."""
    own = (pin for pin in deployment.all_pins if pin.model == deployment.model)
    found = [published.p99_ms_on(pin, offer.product.compute_capability, profile.name) for pin in own]
    known = [it for it in found if it is not None]
    return max(known) if known and len(known) == len(found) else None


def _risk(deployment: Deployment, published: Published, offer: SliceOffer, profile: MigProfile) -> float:
    """Return the part of the latency objective that the measured p99 takes; all of it where nobody measured it."""
    objective = deployment.needs.objectives.p99_ms
    if objective is None:
        return 0.0
    p99 = _p99_ms(deployment, published, offer, profile)
    return 1.0 if p99 is None else min(1.0, p99 / objective)


def _measured(deployment: Deployment, published: Published) -> int:
    """Return the bytes that the largest of a deployment's versions was measured to take, all its models together."""
    instances = deployment.needs.instances or 1
    return max(
        sum(published.memory_of(pin, instances if pin.model == deployment.model else 1) for pin in track.pins)
        for track in deployment.tracks
    )
