"""Which versions a deployment means: the model and everything below it, chosen once, from what is published.

Pure. `deployments` asks when one is written; `lifecycle` then holds the fleet to the answer. That something cannot be
served is an answer with every reason at once, never an exception.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from control_plane.planning.targets import wish_conflicts
from control_plane.state import NO_VERSION, Deployment, DeploymentName, ModelName, Pin, Published, PublishedConfig


@dataclass(frozen=True, slots=True)
class Pinned:
    """The versions to serve, members before the ensembles that call them."""

    pins: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why it cannot be served: every reason found, one sentence each."""

    reasons: tuple[str, ...]


@dataclass(slots=True)
class _Search:
    """One walk down from a model, with the versions that `chosen` says: what is asked for, called, and wrong.

    Who is called depends on the version that calls, and which version that is on who calls it: see `resolve_pins`.
    """

    published: Published
    chosen: Mapping[ModelName, int]
    wanted: dict[ModelName, dict[int, str]] = field(default_factory=dict)
    members: dict[ModelName, tuple[ModelName, ...]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def visit(self, name: ModelName, asked_by: str) -> None:
        """Walk down from `name`, each model once."""
        if name in self.members:
            return
        self.members[name] = ()
        package = self.published.get(name)
        if package is None:
            self.reasons.append(f"Model '{name}'{asked_by} is not in the model repository.")
            return
        config = package.at(self.chosen.get(name, package.newest))
        self.members[name] = config.members
        self.reasons.extend(f"Model '{name}'{asked_by}: {problem}" for problem in config.problems)
        if not package.versions:
            self.reasons.append(f"Model '{name}'{asked_by} has no built version: run `tritonfleet build {name}`.")
        for member, version in _explicit_versions(config):
            self.wanted.setdefault(member, {}).setdefault(version, f"ensemble '{name}'")
        for member in config.members:
            self.visit(member, f", a member of ensemble '{name}',")

    def choices(self) -> dict[ModelName, int]:
        """Return the versions that were asked for; every other model is served at its newest."""
        return {name: min(wanted) for name, wanted in self.wanted.items()}

    def choose(self, name: ModelName) -> Pin:
        """Return the version of `name` to serve, with the reasons noted where that is not possible."""
        package = self.published.get(name)
        versions = package.versions if package is not None else ()
        wanted = self.wanted.get(name, {})
        if len(wanted) > 1:
            asked = ", ".join(f"{version} by {who}" for version, who in sorted(wanted.items()))
            self.reasons.append(
                f"Model '{name}' is asked for in several versions ({asked}); a server holds one of them."
            )
        for version, who in sorted(wanted.items()):
            if versions and version not in versions:
                there = ", ".join(map(str, versions))
                self.reasons.append(f"Model '{name}' has no version {version}, asked for by {who}; there are: {there}.")
        return Pin(name, self.choices().get(name, max(versions, default=NO_VERSION)))


def resolve_pins(model: ModelName, version: int | None, published: Published) -> Pinned | Infeasible:
    """Choose the versions that `model` (at `version`, or its newest) and its members should serve at.

    An ensemble step with an explicit `model_version` asks for that one; -1 asks for the newest there is now.
    """
    search = _search(model, version, published)
    if search is None:
        return Infeasible((f"The ensembles below model '{model}' ask for versions of each other in a circle.",))
    try:
        order = dependency_order(search.members)
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        return Infeasible((*search.reasons, f"Ensembles call each other in a circle: {loop}."))
    pins = tuple(search.choose(name) for name in order)
    return Infeasible(tuple(search.reasons)) if search.reasons else Pinned(pins)


def _search(model: ModelName, version: int | None, published: Published) -> _Search | None:
    """Walk until a walk asks for just the versions it was made with; None where that never comes.

    Each walk settles at least one more level, top down, unless versions call each other in a circle.
    """
    asked = {model: {version: "the deployment"}} if version is not None else {}
    chosen = {model: version} if version is not None else {}
    for _ in range(len(published.models) + 2):
        search = _Search(published, chosen, {name: dict(wanted) for name, wanted in asked.items()})
        search.visit(model, "")
        if search.choices() == chosen:
            return search
        chosen = search.choices()
    return None


def conflicts_with(pins: Iterable[Pin], others: Iterable[Deployment]) -> tuple[str, ...]:
    """Why `pins` cannot be served beside `others`, one sentence per model pinned differently."""
    held: dict[ModelName, list[int]] = {}
    for pin in pins:
        held.setdefault(pin.model, []).append(pin.version)
    return tuple(
        f"Deployment '{other.name}' pins model '{pin.model}' at version {pin.version}, this one at version "
        f"{differing}; a server holds one version of a model."
        for other in sorted(others, key=lambda other: other.name)
        for pin in other.all_pins
        for differing in held.get(pin.model, ())
        if differing != pin.version
    )


def resolve_together(
    deployment: Deployment, others: Sequence[Deployment], published: Published
) -> dict[DeploymentName, Pinned] | Infeasible:
    """Pin `deployment` anew, and with it each of `others` that would be in the way, and those in the way of these.

    What a shared model moves for one deployment it moves for all, so none of them could ever be moved alone. Wishes for
    other precisions do not move: they contradict each other.
    """
    staying = {other.name: other for other in others}
    joining, moved = [deployment], dict[DeploymentName, Pinned]()
    reasons: list[str] = []
    while joining:
        for entry in joining:
            answer = resolve_pins(entry.model, entry.version, published)
            if isinstance(answer, Infeasible):
                whose = "" if entry is deployment else f"Deployment '{entry.name}' would move with it: "
                reasons.extend(f"{whose}{reason}" for reason in answer.reasons)
            else:
                reasons.extend(_contradictions(entry, answer.pins, moved))
                moved[entry.name] = answer
        pins = [pin for pinned in moved.values() for pin in pinned.pins]
        joining = [other for _, other in sorted(staying.items()) if conflicts_with(pins, [other])]
        for other in joining:
            del staying[other.name]
    reasons.extend(_wishes_against(deployment, others, moved, published))
    return Infeasible(tuple(reasons)) if reasons else moved


def _wishes_against(
    deployment: Deployment,
    others: Iterable[Deployment],
    moved: Mapping[DeploymentName, Pinned],
    published: Published,
) -> tuple[str, ...]:
    """Why `deployment` and those that move with it cannot be served beside each other and the rest as they wish."""
    everyone = [
        replace(entry, pins=moved[entry.name].pins) if entry.name in moved else entry for entry in (deployment, *others)
    ]
    told = list(wish_conflicts(everyone[0], everyone[1:], published))
    for index, entry in enumerate(everyone[1:], 1):
        if entry.name in moved:
            rest = [*everyone[1:index], *everyone[index + 1 :]]
            reasons = wish_conflicts(entry, rest, published)
            told.extend(f"Deployment '{entry.name}' would move with it: {reason}" for reason in reasons)
    return tuple(told)


def _contradictions(entry: Deployment, pins: Iterable[Pin], moved: Mapping[DeploymentName, Pinned]) -> tuple[str, ...]:
    """Why `entry` cannot be moved with those in `moved`: one of them asks for a version of its own."""
    others = [replace(entry, name=name, pins=pinned.pins) for name, pinned in moved.items()]
    return tuple(f"Deployment '{entry.name}' cannot move with it: {reason}" for reason in conflicts_with(pins, others))


def dependency_order(members: Mapping[ModelName, Iterable[ModelName]]) -> tuple[ModelName, ...]:
    """Sort models, members before ensembles, ties by name. graphlib.CycleError where they go in a circle."""
    return tuple(name for level in dependency_levels(members) for name in level)


def dependency_levels(members: Mapping[ModelName, Iterable[ModelName]]) -> tuple[tuple[ModelName, ...], ...]:
    """Split models into levels: every member is in a lower level than the ensembles that call it."""
    sorter = TopologicalSorter(members)
    sorter.prepare()
    levels = []
    while ready := sorter.get_ready():
        levels.append(tuple(sorted(ready)))
        sorter.done(*ready)
    return tuple(levels)


def _explicit_versions(config: PublishedConfig) -> list[tuple[ModelName, int]]:
    steps = config.config.ensemble_steps if config.config is not None else ()
    return [(ModelName(step.model_name), step.model_version) for step in steps if step.model_version > 0]
