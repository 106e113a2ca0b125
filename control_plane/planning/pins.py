"""Which versions a deployment means: the model and everything below it, chosen once, from what is published.

Pure. `deployments` asks when one is written; `lifecycle` then holds the fleet to the answer. That something cannot be
served is an answer with every reason at once, never an exception.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from control_plane.state import Deployment, ModelName, Pin, Published, PublishedModel


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
    """What was found below a model so far: versions asked for (with who asks), members, reasons against it."""

    published: Published
    wanted: dict[ModelName, dict[int, str]] = field(default_factory=dict)
    members: dict[ModelName, tuple[ModelName, ...]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def visit(self, name: ModelName, asked_by: str) -> None:
        """Walk down from `name`, each model once."""
        if name in self.members:
            return
        package = self.published.get(name)
        self.members[name] = package.members if package is not None else ()
        if package is None:
            self.reasons.append(f"Model '{name}'{asked_by} is not in the model repository.")
            return
        self.reasons.extend(f"Model '{name}'{asked_by}: {problem}" for problem in package.problems)
        if not package.versions:
            self.reasons.append(f"Model '{name}'{asked_by} has no built version: run `tritonfleet build {name}`.")
        for member, version in _explicit_versions(package):
            self.wanted.setdefault(member, {}).setdefault(version, f"ensemble '{name}'")
        for member in package.members:
            self.visit(member, f", a member of ensemble '{name}',")

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
        return Pin(name, min(wanted) if wanted else max(versions, default=0))


def resolve_pins(model: ModelName, version: int | None, published: Published) -> Pinned | Infeasible:
    """Choose the versions that `model` (at `version`, or its newest) and its members should serve at.

    An ensemble step with an explicit `model_version` asks for that one; -1 asks for the newest there is now.
    """
    search = _Search(published)
    if version is not None:
        search.wanted[model] = {version: "the deployment"}
    search.visit(model, "")
    try:
        order = dependency_order(search.members)
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        return Infeasible((*search.reasons, f"Ensembles call each other in a circle: {loop}."))
    pins = tuple(search.choose(name) for name in order)
    return Infeasible(tuple(search.reasons)) if search.reasons else Pinned(pins)


def conflicts_with(pins: Iterable[Pin], others: Iterable[Deployment]) -> tuple[str, ...]:
    """Why `pins` cannot be served beside `others`, one sentence per model pinned differently."""
    held = {pin.model: pin.version for pin in pins}
    return tuple(
        f"Deployment '{other.name}' pins model '{pin.model}' at version {pin.version}, this one at version "
        f"{held[pin.model]}; the versions of a model share one config.pbtxt, so a server holds one of them."
        for other in sorted(others, key=lambda other: other.name)
        for pin in other.pins
        if held.get(pin.model, pin.version) != pin.version
    )


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


def _explicit_versions(package: PublishedModel) -> list[tuple[ModelName, int]]:
    steps = package.config.ensemble_steps if package.config is not None else ()
    return [(ModelName(step.model_name), step.model_version) for step in steps if step.model_version > 0]
