"""What one server should hold: the versions assigned to it, merged. Pure; `lifecycle` compares it with what is there.

Deployments that contradict each other are told here: of two that want one model differently, the later is infeasible.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.planning.pins import conflicts_with, dependency_levels
from control_plane.planning.targets import Wishes, wish_conflicts, wishes_of
from control_plane.state import Deployment, DeploymentName, ModelName, Pin, Published, Track
from control_plane.wanted import Drift

Assigned = tuple[Deployment, Track]


@dataclass(frozen=True, slots=True)
class Desired:
    """One pin per model with who needs it, who calls whom, how it is to be served, and why some cannot be loaded."""

    pins: Mapping[ModelName, Pin] = field(default_factory=dict)
    wishes: Mapping[ModelName, Wishes] = field(default_factory=dict)
    needed_by: Mapping[ModelName, tuple[DeploymentName, ...]] = field(default_factory=dict)
    members: Mapping[ModelName, tuple[ModelName, ...]] = field(default_factory=dict)
    unloadable: Mapping[ModelName, str] = field(default_factory=dict)
    instances: Mapping[ModelName, int] = field(default_factory=dict)
    reported_only: frozenset[ModelName] = frozenset()
    levels: tuple[tuple[ModelName, ...], ...] = ()

    def below(self, model: ModelName) -> tuple[Pin, ...]:
        """Pins of everything below `model`, in dependency order."""
        if not self.members[model]:
            return ()
        found: set[ModelName] = set()
        stack = list(self.members[model])
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(self.members[name])
        return tuple(self.pins[name] for level in self.levels for name in level if name in found)


class Merger:
    """Merges what is assigned to servers; servers that hold the same are worked out once."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._known: dict[tuple[tuple[DeploymentName, tuple[Pin, ...]], ...], Desired] = {}
        self._problems: dict[Pin, str] = {}

    def merge(self, assigned: Sequence[Assigned]) -> Desired:
        """Return what a server should hold that these versions, which do not contradict each other, are assigned to."""
        key = tuple((deployment.name, track.pins) for deployment, track in assigned)
        if key not in self._known:
            self._known[key] = self._merge(assigned)
        return self._known[key]

    def problem(self, pin: Pin) -> str:
        """Why a server could not load `pin` from the repository as it is; empty where it could."""
        if pin not in self._problems:
            self._problems[pin] = _problem(pin, self._published)
        return self._problems[pin]

    def _merge(self, assigned: Sequence[Assigned]) -> Desired:
        pins = {pin.model: pin for _, track in assigned for pin in track.pins}
        needed: dict[ModelName, list[Deployment]] = {name: [] for name in pins}
        for deployment, track in assigned:
            for pin in track.pins:
                needed[pin.model].append(deployment)
        members = _members_by_pins(assigned, self._published)
        return Desired(
            pins=pins,
            wishes=wishes_of(assigned),
            needed_by={name: tuple(sorted(it.name for it in each)) for name, each in needed.items()},
            members=members,
            unloadable={name: why for name, pin in pins.items() if (why := self.problem(pin))},
            instances=_instances(assigned),
            reported_only=frozenset(
                name for name, each in needed.items() if all(it.needs.drift is Drift.REPORT for it in each)
            ),
            levels=dependency_levels(members),
        )


def contradictions(
    deployments: Iterable[Deployment], published: Published
) -> tuple[tuple[Deployment, ...], dict[DeploymentName, tuple[str, ...]]]:
    """Return the deployments that can stand beside each other, the oldest first, and why each of the others cannot."""
    accepted: list[Deployment] = []
    holding: dict[ModelName, dict[DeploymentName, Deployment]] = {}
    refused: dict[DeploymentName, tuple[str, ...]] = {}
    for deployment in sorted(deployments, key=lambda it: (it.created_at, it.name)):
        pins = deployment.all_pins
        near = {name: it for pin in pins for name, it in holding.get(pin.model, {}).items()}  # only they can contradict
        conflicts = conflicts_with(pins, near.values()) or wish_conflicts(deployment, near.values(), published)
        if conflicts:
            refused[deployment.name] = conflicts
        else:
            accepted.append(deployment)
            for pin in pins:
                holding.setdefault(pin.model, {})[deployment.name] = deployment
    return tuple(accepted), refused


def _instances(assigned: Iterable[Assigned]) -> dict[ModelName, int]:
    """Return the instances that deployments ask for, of their own model: the most of what is asked for."""
    asked: dict[ModelName, int] = {}
    for deployment, _ in assigned:
        if deployment.needs.instances is not None:
            asked[deployment.model] = max(deployment.needs.instances, asked.get(deployment.model, 0))
    return asked


def _members_by_pins(assigned: Iterable[Assigned], published: Published) -> dict[ModelName, tuple[ModelName, ...]]:
    """Who calls whom among pinned models. Only earlier pins of a version count, so there is never a circle."""
    members: dict[ModelName, set[ModelName]] = {}
    for _, track in assigned:
        before: list[ModelName] = []
        for pin in track.pins:
            package = published.get(pin.model)
            called = set(package.at(pin.version).members) if package is not None else set()
            usable = {name for name in before if name in called and not reaches(members, name, pin.model)}
            members.setdefault(pin.model, set()).update(usable)
            before.append(pin.model)
    return {name: tuple(sorted(called)) for name, called in members.items()}


def reaches(members: Mapping[ModelName, set[ModelName]], start: ModelName, goal: ModelName) -> bool:
    """Tell whether `goal` is `start` or below it."""
    seen: set[ModelName] = set()
    stack = [start]
    while stack:
        name = stack.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            stack.extend(members.get(name, ()))
    return False


def _problem(pin: Pin, published: Published) -> str:
    package = published.get(pin.model)
    if package is None:
        return f"Model '{pin.model}' is no longer in the model repository."
    if pin.version not in package.versions:
        return f"Version {pin.version} of model '{pin.model}' is no longer in the model repository."
    problems = package.at(pin.version).problems
    return f"Model '{pin.model}': {problems[0]}" if problems else ""
