"""What to load and unload where: from deployments, the repository and what servers hold to one Plan.

Pure. In this slice every deployment serves on every registered server, and every model on a registered server is
managed: one that no deployment pins is unloaded. Only healthy servers get actions; an unreachable one is asked again.

- Members are loaded before the ensembles that call them, and unloaded after them.
- A wrong version is replaced by a load, never by an unload and a load: Triton keeps the old one up meanwhile.
- An ensemble whose member is loaded anew is loaded anew after it. A model on its way is left alone.
- Of a version with several targets a server gets the one that fits it (`targets`). Which one it serves is observed, so
  a wish that changed is a load like any other. One that nothing fits is not loaded; what serves is left alone.
- A member goes only when no deployment pins it, and not while a live ensemble is being reloaded, whose running form
  may still call it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.actions import Load, Unload
from control_plane.planning.pins import conflicts_with, dependency_levels
from control_plane.planning.plan import InfeasibleDeployment, Plan, PlannedAction, Waiting
from control_plane.planning.targets import TargetOnServer, Wishes, choose_targets, wish_conflicts, wishes_of
from control_plane.state import (
    NO_VERSION,
    ActionRecord,
    Deployment,
    DeploymentName,
    ModelName,
    ModelState,
    ObservedServer,
    Pin,
    Published,
    PublishedConfig,
    ServerCondition,
    ServerId,
)


def plan_lifecycle(
    deployments: Iterable[Deployment],
    published: Published,
    observed: Iterable[ObservedServer],
    held: Mapping[tuple[ServerId, ModelName], ActionRecord] | None = None,
) -> Plan:
    """Return what should be done now. `held` are the loads that failed and are not due again (`retry.held_back`)."""
    desired = _desire(deployments, published)
    steps: list[PlannedAction] = []
    waiting: list[Waiting] = []
    targets: list[TargetOnServer] = []
    for server in sorted(observed, key=lambda entry: entry.server.id):
        if server.condition is ServerCondition.HEALTHY:
            chosen = choose_targets(server, desired.pins.values(), desired.wishes, published)
            work = _ServerWork(server, desired, published, held or {}, chosen)
            work.plan_loads()
            work.plan_unloads()
            steps.extend(sorted(work.steps, key=lambda step: (step.stage, step.action.model)))
            waiting.extend(work.waiting)
            targets.extend(chosen[model] for model in sorted(chosen))
    return Plan(tuple(steps), tuple(waiting), desired.infeasible, tuple(targets))


@dataclass(frozen=True, slots=True)
class _Desired:
    """All deployments together: one pin per model with who needs it, who calls whom, and why some cannot be loaded."""

    pins: Mapping[ModelName, Pin]
    wishes: Mapping[ModelName, Wishes]
    needed_by: Mapping[ModelName, tuple[DeploymentName, ...]]
    members: Mapping[ModelName, tuple[ModelName, ...]]
    unloadable: Mapping[ModelName, str]
    infeasible: tuple[InfeasibleDeployment, ...]

    def levels(self) -> tuple[tuple[ModelName, ...], ...]:
        """Levels of the pinned models, members first."""
        return dependency_levels(self.members)

    def below(self, model: ModelName) -> tuple[Pin, ...]:
        """Pins of everything below `model`, in dependency order."""
        found: set[ModelName] = set()
        stack = list(self.members[model])
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(self.members[name])
        return tuple(self.pins[name] for level in self.levels() for name in level if name in found)


def _desire(deployments: Iterable[Deployment], published: Published) -> _Desired:
    """Merge the deployments, the oldest first: of two that want one model differently, the later is infeasible."""
    accepted: list[Deployment] = []
    infeasible: dict[DeploymentName, tuple[str, ...]] = {}
    for deployment in sorted(deployments, key=lambda entry: (entry.created_at, entry.name)):
        conflicts = conflicts_with(deployment.pins, accepted) or wish_conflicts(deployment, accepted, published)
        if conflicts:
            infeasible[deployment.name] = conflicts
        else:
            accepted.append(deployment)
    pins = {pin.model: pin for deployment in accepted for pin in deployment.pins}
    unloadable = {name: reason for name, pin in pins.items() if (reason := _why_not(pin, published))}
    for deployment in accepted:
        reasons = tuple(unloadable[pin.model] for pin in deployment.pins if pin.model in unloadable)
        if reasons:
            infeasible[deployment.name] = reasons
    return _Desired(
        pins=pins,
        wishes=wishes_of(accepted),
        needed_by={
            name: tuple(sorted(entry.name for entry in accepted if any(pin.model == name for pin in entry.pins)))
            for name in pins
        },
        members=_members_by_pins(accepted, published),
        unloadable=unloadable,
        infeasible=tuple(InfeasibleDeployment(name, infeasible[name]) for name in sorted(infeasible)),
    )


def _members_by_pins(accepted: Iterable[Deployment], published: Published) -> dict[ModelName, tuple[ModelName, ...]]:
    """Who calls whom among pinned models. Only earlier pins of a deployment count, so there is never a circle."""
    members: dict[ModelName, set[ModelName]] = {}
    order: dict[ModelName, set[ModelName]] = {}
    for deployment in accepted:
        before: list[ModelName] = []
        for pin in deployment.pins:
            package = published.get(pin.model)
            called = set(package.at(pin.version).members) if package is not None else set()
            usable = {name for name in before if name in called and not _reaches(order, name, pin.model)}
            members.setdefault(pin.model, set()).update(usable)
            order.setdefault(pin.model, set()).update(usable)
            before.append(pin.model)
    return {name: tuple(sorted(called)) for name, called in members.items()}


def _reaches(members: Mapping[ModelName, set[ModelName]], start: ModelName, goal: ModelName) -> bool:
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


def _why_not(pin: Pin, published: Published) -> str:
    """Why a server could not load `pin` from the repository as it is; empty when it could."""
    package = published.get(pin.model)
    if package is None:
        return f"Model '{pin.model}' is no longer in the model repository."
    if pin.version not in package.versions:
        return f"Version {pin.version} of model '{pin.model}' is no longer in the model repository."
    problems = package.at(pin.version).problems
    return f"Model '{pin.model}': {problems[0]}" if problems else ""


@dataclass(slots=True)
class _ServerWork:
    """The planning of one server: what is settled, on its way, or to be done."""

    seen: ObservedServer
    desired: _Desired
    published: Published
    held: Mapping[tuple[ServerId, ModelName], ActionRecord]
    chosen: Mapping[ModelName, TargetOnServer]
    steps: list[PlannedAction] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    unsettled: set[ModelName] = field(default_factory=set)
    loading: set[ModelName] = field(default_factory=set)

    def plan_loads(self) -> None:
        """Go through the pinned models, members first."""
        for stage, level in enumerate(self.desired.levels()):
            for model in level:
                pin = self.desired.pins[model]
                reason = self._why_load(pin)
                if reason is None:
                    continue
                self.unsettled.add(model)
                block = self._why_wait(pin)
                if block:
                    self.waiting.append(Waiting(self.seen.server.id, model, block))
                    continue
                self.loading.add(model)
                below = self.desired.below(model)
                load = Load(self.seen.server.id, model, pin.version, below, self._targets(pin, *below))
                self.steps.append(PlannedAction(load, reason, stage))

    def plan_unloads(self) -> None:
        """Give up what no deployment pins, ensembles before their members, after every load."""
        models = {row.name for row in self.seen.models if row.state is ModelState.READY} - set(self.desired.pins)
        first_stage = len(self.desired.levels())
        reloading = sorted(name for name in self.unsettled if self._is_live_ensemble(name))
        for stage, level in enumerate(self._unload_levels(models)):
            for model in level:
                held = self.held.get((self.seen.server.id, model))
                if held is not None and held.version == NO_VERSION:
                    self.waiting.append(Waiting(self.seen.server.id, model, _held_back(held)))
                elif reloading and not self._is_live_ensemble(model):
                    reason = f"Unloaded once ensemble '{reloading[0]}', which may still call it, is as it should be."
                    self.waiting.append(Waiting(self.seen.server.id, model, reason))
                else:
                    step = PlannedAction(
                        Unload(self.seen.server.id, model), "No deployment needs it.", first_stage + stage
                    )
                    self.steps.append(step)

    def _why_load(self, pin: Pin) -> str | None:
        """Why `pin` has to be loaded; None when all is as it should be."""
        needed = f"needed by {_names(self.desired.needed_by[pin.model])}"
        if self._serves(pin):
            anew = [name for name in self.desired.members[pin.model] if name in self.loading]
            return f"Its member {_names(anew)} is loaded anew." if anew else None
        ready = self.seen.ready_versions(pin.model)
        if ready == {pin.version}:
            choice = self.chosen[pin.model]
            serving = f"Target {choice.serving}" if choice.serving else "Another file"
            return f"{serving} is ready, target {choice.target or 'that fits'} is {needed}."
        if ready:
            return f"Version {_names(sorted(ready))} is ready, version {pin.version} is {needed}."
        failed = next((row for row in self.seen.rows_of(pin.model) if row.version == pin.version and row.reason), None)
        if failed is not None and failed.state is ModelState.UNAVAILABLE and failed.reason != "unloaded":
            return f"It is unavailable ({failed.reason.strip().splitlines()[0]}) and {needed}."
        return f"Not loaded, {needed}."

    def _why_wait(self, pin: Pin) -> str:
        """Why `pin`, which is not as it should be, is left alone now; empty when it should be loaded."""
        if pin.model in self.desired.unloadable:
            return self.desired.unloadable[pin.model]
        if refusal := self._refused(pin):
            return f"Model '{pin.model}': {refusal}"
        if any(row.state is ModelState.LOADING for row in self.seen.rows_of(pin.model)):
            return "Triton is loading it."
        record = self.held.get((self.seen.server.id, pin.model))
        if record is not None and record.version == pin.version and not self._serves(pin):
            return _held_back(record)
        refused = [it.model for it in self.desired.below(pin.model) if self._refused(it)]
        if refused:
            return f"Its member {_names(refused)} has no target that fits this server."
        missing = [name for name in self.desired.members[pin.model] if name in self.unsettled - self.loading]
        return f"Its member {_names(missing)} is not ready." if missing else ""

    def _serves(self, pin: Pin) -> bool:
        choice = self.chosen.get(pin.model)
        return self.seen.ready_versions(pin.model) == {pin.version} and (choice is None or choice.serves)

    def _refused(self, pin: Pin) -> str:
        """Why none of the targets of `pin` fits the server; empty where one does, or it has none."""
        choice = self.chosen.get(pin.model)
        return choice.problem if choice is not None else ""

    def _targets(self, *pins: Pin) -> dict[ModelName, str]:
        return {pin.model: self.chosen[pin.model].target for pin in pins if pin.model in self.chosen}

    def _unload_levels(self, models: set[ModelName]) -> tuple[tuple[ModelName, ...], ...]:
        """Levels of `models`, callers first. A model that is not published any more may call any, so it goes first."""
        unknown = tuple(sorted(name for name in models if self.published.get(name) is None))
        rest = models.difference(unknown)
        members: dict[ModelName, set[ModelName]] = {}
        for name in sorted(rest):
            called = rest.intersection(member for config in self._running(name) for member in config.members)
            members[name] = {member for member in called if not _reaches(members, member, name)}
        levels = tuple(reversed(dependency_levels(members)))
        return (unknown, *levels) if unknown else levels

    def _is_live_ensemble(self, model: ModelName) -> bool:
        return any(config.is_ensemble for config in self._running(model))

    def _running(self, model: ModelName) -> tuple[PublishedConfig, ...]:
        """Return the configs of the versions that the server has ready."""
        package = self.published.get(model)
        if package is None:
            return ()
        return tuple(package.at(version) for version in sorted(self.seen.ready_versions(model)))


def _held_back(record: ActionRecord) -> str:
    return f"It is tried again at {record.retry_at:%H:%M:%S} UTC. The last time: {record.reason}"


def _names(items: Iterable[object]) -> str:
    return ", ".join(f"'{item}'" if isinstance(item, str) else str(item) for item in items)
