"""What to load and unload where: from deployments, the repository and what servers hold to one Plan.

Pure. `placement` says which server holds what; here each server is brought there. Every model on a registered server is
managed: one that nothing assigned there needs is unloaded. Only servers that answer get actions.

- Members are loaded before the ensembles that call them, and unloaded after them.
- A wrong version, target or number of instances is replaced by a load, never by an unload and a load: Triton keeps the
  old one up meanwhile, and changes instances in place.
- What is ready and broken is replaced the same way, with another generation in its config.
- An ensemble whose member is loaded anew is loaded anew after it. A model on its way is left alone.
- Of a version with several targets a server gets the one that fits it (`targets`). Which one it serves is observed, so
  a wish that changed is a load like any other.
- A member goes only when nothing pins it, and not while a live ensemble is being reloaded, whose running form may still
  call it. What moves to another server goes once it serves there, and clients had LINGER to notice. What has no server
  to go to stays where it serves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from control_plane.actions import Load, Restart, Setting, Unload
from control_plane.planning.desired import Assigned, Desired, Merger, contradictions, reaches
from control_plane.planning.fitting import Quarantined
from control_plane.planning.pins import dependency_levels
from control_plane.planning.placement import Circumstances, Place, Placement, place_replicas
from control_plane.planning.plan import InfeasibleDeployment, LoadKind, Plan, PlannedAction, Waiting
from control_plane.planning.targets import TargetOnServer, choose_targets, unproven_problem
from control_plane.state import (
    NO_VERSION,
    ActionRecord,
    Deployment,
    DeploymentName,
    ModelName,
    ModelState,
    ObservedModel,
    ObservedServer,
    Pin,
    Published,
    PublishedConfig,
    Result,
    ServerCondition,
    ServerId,
)

LINGER = timedelta(seconds=3)
"""How long a replica that moved away stays loaded after it left the list of endpoints."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A model that answers READY and serves nobody: why, which generation of it, and when that was found."""

    reason: str
    version: int
    generation: int
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What bears on a plan beside what is desired, published and observed.

    `records` are what was last done with a model on a server, `held` those that are not due again. `leaving` says since
    when clients are no longer sent to a replica. `restarts` are the servers to start again at once, and why;
    `leaking` those to start again once they are drained. `unsliced` says why replicas of a deployment got no slice of a
    GPU, where slices are cut for deployments.
    """

    now: datetime | None = None
    before: frozenset[Place] = frozenset()
    records: Mapping[tuple[ServerId, ModelName], ActionRecord] = field(default_factory=dict)
    held: Mapping[tuple[ServerId, ModelName], ActionRecord] = field(default_factory=dict)
    quarantined: Quarantined = field(default_factory=dict)
    broken: Mapping[tuple[ServerId, ModelName], Broken] = field(default_factory=dict)
    leaving: Mapping[tuple[ServerId, ModelName], datetime] = field(default_factory=dict)
    restarts: Mapping[ServerId, str] = field(default_factory=dict)
    leaking: Mapping[ServerId, str] = field(default_factory=dict)
    unsliced: Mapping[DeploymentName, tuple[str, ...]] = field(default_factory=dict)


def plan_lifecycle(
    deployments: Iterable[Deployment],
    published: Published,
    observed: Iterable[ObservedServer],
    situation: Situation | None = None,
) -> Plan:
    """Return what should be done now."""
    given = situation or Situation()
    servers = {it.server.id: it for it in sorted(observed, key=lambda it: it.server.id)}
    accepted, refused = contradictions(deployments, published)
    circumstances = Circumstances(given.now, given.before, given.quarantined)
    placement = place_replicas(accepted, published, servers.values(), circumstances)
    merger = Merger(published)
    fleet = _Fleet(accepted, servers, placement, given)
    steps: list[PlannedAction] = []
    waiting: list[Waiting] = []
    targets: list[TargetOnServer] = []
    for server in servers.values():
        if why := _why_restart(server, given):
            steps.append(PlannedAction(Restart(server.server.id), why, 0))
        elif server.answers:
            desired = merger.merge(fleet.assigned_to(server.server.id))
            chosen = choose_targets(server, desired.pins.values(), desired.wishes, published)
            work = _ServerWork(server, desired, published, fleet, chosen)
            work.plan_loads()
            work.plan_unloads()
            steps.extend(sorted(work.steps, key=lambda step: (step.stage, step.action.model)))
            waiting.extend(work.waiting)
            targets.extend(chosen[model] for model in sorted(chosen))
    infeasible = refused | _infeasible(accepted, merger, placement, given.unsliced)
    told = tuple(InfeasibleDeployment(name, infeasible[name]) for name in sorted(infeasible))
    return Plan(tuple(steps), tuple(waiting), told, tuple(targets), placement)


def _why_restart(seen: ObservedServer, given: Situation) -> str:
    """Why a server's process is to be started again now; empty where it is not. One that leaks is drained before."""
    empty = seen.condition is ServerCondition.DRAINING and all(row.state in _GONE for row in seen.models)
    return given.restarts.get(seen.server.id) or (given.leaking.get(seen.server.id, "") if empty else "")


def _infeasible(
    accepted: Iterable[Deployment],
    merger: Merger,
    placement: Placement,
    unsliced: Mapping[DeploymentName, tuple[str, ...]],
) -> dict[DeploymentName, tuple[str, ...]]:
    found = {it.name: [why for pin in it.all_pins if (why := merger.problem(pin))] for it in accepted}
    for shortage in placement.shortages:
        found[shortage.deployment].extend(unsliced.get(shortage.deployment) or (shortage.sentence,))
    return {name: tuple(reasons) for name, reasons in found.items() if reasons}


class _Fleet:
    """All servers together: what is assigned to each, and whether a deployment serves where it is to serve."""

    def __init__(
        self,
        accepted: Iterable[Deployment],
        servers: Mapping[ServerId, ObservedServer],
        placement: Placement,
        situation: Situation,
    ) -> None:
        self.situation = situation
        self._servers = servers
        self._deployments = {it.name: it for it in accepted}
        self._assigned: dict[ServerId, list[Assigned]] = {}
        self._elsewhere: dict[ModelName, dict[DeploymentName, list[tuple[ServerId, Pin]]]] = {}
        by_age = {it.name: (it.created_at, it.name) for it in self._deployments.values()}
        for assignment in sorted(placement.assignments, key=lambda it: (it.server, by_age[it.deployment])):
            deployment = self._deployments[assignment.deployment]
            track = deployment.tracks[assignment.track]
            self._assigned.setdefault(assignment.server, []).append((deployment, track))
            for pin in track.pins:
                places = self._elsewhere.setdefault(pin.model, {}).setdefault(deployment.name, [])
                places.append((assignment.server, pin))
        self._homeless = self._without_server(placement)

    def assigned_to(self, server: ServerId) -> tuple[Assigned, ...]:
        """Return the versions assigned to a server, the oldest deployment first."""
        return tuple(self._assigned.get(server, ()))

    def _without_server(self, placement: Placement) -> dict[Pin, DeploymentName]:
        """Return the pins of versions that have no place on any server, and whose they are."""
        placed = {(it.deployment, it.track) for it in placement.assignments}
        short = {(it.deployment, it.track) for it in placement.shortages} - placed
        return {pin: name for name, track in sorted(short) for pin in self._deployments[name].tracks[track].pins}

    def why_not_yet(self, server: ServerId, model: ModelName) -> str:
        """Why a model that is to be elsewhere must stay on `server` for now; empty where it may go."""
        for version in sorted(self._servers[server].ready_versions(model)):
            if (name := self._homeless.get(Pin(model, version))) is not None:
                return f"Stays until deployment '{name}' has another server: it would serve nowhere."
        elsewhere = self._elsewhere.get(model, {})
        for name, places in sorted(elsewhere.items()):
            late = next((where for where, pin in places if not self._serves(where, pin)), None)
            if late is not None:
                return f"Unloaded once deployment '{name}' serves on server '{late}'."
        now, since = self.situation.now, self.situation.leaving.get((server, model))
        if elsewhere and now is not None and (since is None or now - since < LINGER):
            return "Unloaded once clients had time to leave it."
        return ""

    def _serves(self, server: ServerId, pin: Pin) -> bool:
        seen = self._servers[server]
        return seen.answers and pin.version in seen.ready_versions(pin.model)


@dataclass(slots=True)
class _ServerWork:
    """The planning of one server: what is settled, on its way, or to be done."""

    seen: ObservedServer
    desired: Desired
    published: Published
    fleet: _Fleet
    chosen: Mapping[ModelName, TargetOnServer]
    steps: list[PlannedAction] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    unsettled: set[ModelName] = field(default_factory=set)
    loading: set[ModelName] = field(default_factory=set)

    def plan_loads(self) -> None:
        """Go through the pinned models, members first."""
        for stage, level in enumerate(self.desired.levels):
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
                load = Load(self.seen.server.id, model, pin.version, below, self._settings(pin, *below))
                needed_by = self.desired.needed_by[model]
                self.steps.append(PlannedAction(load, reason, stage, needed_by, self._kind(pin)))

    def plan_unloads(self) -> None:
        """Give up what no deployment pins, ensembles before their members, after every load."""
        models = {row.name for row in self.seen.models if row.state is ModelState.READY} - set(self.desired.pins)
        first_stage = len(self.desired.levels)
        reloading = sorted(name for name in self.unsettled if self._is_live_ensemble(name))
        for stage, level in enumerate(self._unload_levels(models)):
            for model in level:
                held = self.fleet.situation.held.get((self.seen.server.id, model))
                wait = self.fleet.why_not_yet(self.seen.server.id, model)
                if held is not None and held.version == NO_VERSION:
                    self.waiting.append(Waiting(self.seen.server.id, model, _held_back(held)))
                elif wait:
                    self.waiting.append(Waiting(self.seen.server.id, model, wait))
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
        ready = self.seen.ready_versions(pin.model)
        if coming := self.seen.coming_versions(pin):  # nothing calls that load back: what is ready now will not last
            return f"Version {_names(sorted(coming))} is on its way, version {pin.version} is {needed}."
        if ready == {pin.version} and self._is_chosen(pin):
            anew = [name for name in self.desired.members[pin.model] if name in self.loading]
            return self._why_reload(pin) or (f"Its member {_names(anew)} is loaded anew." if anew else None)
        if ready == {pin.version}:
            choice = self.chosen[pin.model]
            serving = f"Target {choice.serving}" if choice.serving else "Another file"
            return f"{serving} is ready, target {choice.target or 'that fits'} is {needed}."
        if ready:
            return f"Version {_names(sorted(ready))} is ready, version {pin.version} is {needed}."
        failed = next((row for row in self.seen.rows_of(pin.model) if row.version == pin.version and row.reason), None)
        if failed is not None and failed.state is ModelState.UNAVAILABLE and failed.reason != _UNLOADED:
            return f"It is unavailable ({failed.reason.strip().splitlines()[0]}) and {needed}."
        return f"Not loaded, {needed}."

    def _why_wait(self, pin: Pin) -> str:  # noqa: PLR0911 - a reason each
        """Why `pin`, which is not as it should be, is left alone now; empty when it should be loaded."""
        if pin.model in self.desired.unloadable:
            return self.desired.unloadable[pin.model]
        if refusal := self._refused(pin):
            return f"Model '{pin.model}': {refusal}"
        if any(row.state is ModelState.LOADING for row in self.seen.rows_of(pin.model)):
            return "Triton is loading it."
        place = self.seen.server.id, pin.model
        if why := self.fleet.situation.quarantined.get(place):
            return f"Quarantined: {why}"
        record = self.fleet.situation.held.get(place)
        if record is not None and record.version == pin.version and not self._serves(pin):
            return _held_back(record)
        if pin.model in self.desired.reported_only and self._changed_by_hand(pin):
            return "Somebody changed it on the server; its deployments ask that this is only reported."
        for member in self.desired.below(pin.model):
            if refusal := self._refused(member):
                return f"Its member '{member.model}': {refusal}"
        missing = [name for name in self.desired.members[pin.model] if name in self.unsettled - self.loading]
        return f"Its member {_names(missing)} is not ready." if missing else ""

    def _serves(self, pin: Pin) -> bool:
        ready = self.seen.ready_versions(pin.model) == {pin.version}
        return ready and self._is_chosen(pin) and self._why_reload(pin) is None

    def _is_chosen(self, pin: Pin) -> bool:
        choice = self.chosen.get(pin.model)
        return choice is None or choice.serves

    def _why_reload(self, pin: Pin) -> str | None:
        """Why a version that is ready has to be loaded again as it is; None where it is as it should be."""
        row = self._ready_row(pin)
        if row is None:
            return None
        broken = self._broken(pin, row)
        if broken is not None:
            return f"It answers READY and serves nobody: {broken.reason}"
        asked, running = self.desired.instances.get(pin.model), row.instances
        if asked is not None and running not in (0, asked):
            return f"{_instances(running)} running, {asked} asked for."
        own = self._own_instances(pin) if asked is None else 0
        if own and running not in (0, own):
            return f"{_instances(running)} running, its config says {own}."
        return None

    def _broken(self, pin: Pin, row: ObservedModel) -> Broken | None:
        """Return what was found of the pinned version, as long as that is what runs and it is its own fault.

        An ensemble fails with its member, and is loaded anew with it; what was loaded since is yet to be probed.
        """
        place = self.seen.server.id, pin.model
        found, record = self.fleet.situation.broken.get(place), self.fleet.situation.records.get(place)
        if found is None or (found.version, found.generation) != (pin.version, row.generation):
            return None
        if record is not None and record.result is Result.LOADED and found.at is not None and record.at > found.at:
            return None
        ailing = self.fleet.situation.broken
        below = (it.model for it in self.desired.below(pin.model))
        return None if any((self.seen.server.id, model) in ailing for model in below) else found

    def _kind(self, pin: Pin) -> LoadKind:
        """Return what loading the pinned version now changes on the server."""
        row = self._ready_row(pin)
        if row is None:
            return "reload" if self.seen.ready_versions(pin.model) else "load"
        setting = self._setting(pin)
        same = self._is_chosen(pin) and setting.generation == row.generation
        return "scale" if same and row.instances not in (0, setting.instances) else "reload"

    def _ready_row(self, pin: Pin) -> ObservedModel | None:
        rows = (row for row in self.seen.rows_of(pin.model) if row.version == pin.version)
        return next((row for row in rows if row.state is ModelState.READY), None)

    def _own_instances(self, pin: Pin) -> int:
        """Return the instances that the version's config asks for; 0 where it leaves that to Triton, or has targets."""
        package = self.published.get(pin.model)
        config = package.at(pin.version).config if package is not None and pin.model not in self.chosen else None
        gpus = len(self.seen.server.devices)
        return sum(group.instances_on(gpus) for group in config.instance_groups) if config is not None else 0

    def _changed_by_hand(self, pin: Pin) -> bool:
        """Whether what we loaded was changed on the server since; one that came back empty has no row of it."""
        record = self.fleet.situation.records.get((self.seen.server.id, pin.model))
        if record is None or record.result is not Result.LOADED or record.version != pin.version:
            return False
        rows = self.seen.rows_of(pin.model)
        unloaded = any(row.state is ModelState.UNAVAILABLE and row.reason == _UNLOADED for row in rows)
        return unloaded or any(row.state is ModelState.READY for row in rows)

    def _refused(self, pin: Pin) -> str:
        """Why nothing of the pinned version may be loaded on the server; empty where something may."""
        choice = self.chosen.get(pin.model)
        if choice is not None:
            return choice.problem
        return unproven_problem(pin, self.desired.wishes[pin.model], self.published)

    def _settings(self, *pins: Pin) -> dict[ModelName, Setting]:
        return {pin.model: self._setting(pin) for pin in pins}

    def _setting(self, pin: Pin) -> Setting:
        """How to load a version here; one that is ready keeps its generation, unless that is broken."""
        choice, row = self.chosen.get(pin.model), self._ready_row(pin)
        generation = row.generation if row is not None else 0
        if row is not None and self._broken(pin, row) is not None:
            generation += 1
        target = choice.target if choice is not None else ""
        instances, gpus = self.desired.instances.get(pin.model), len(self.seen.server.devices)
        return Setting(target, instances, generation, gpus if instances is not None and gpus > 1 else 0)

    def _unload_levels(self, models: set[ModelName]) -> tuple[tuple[ModelName, ...], ...]:
        """Levels of `models`, callers first. A model that is not published any more may call any, so it goes first."""
        unknown = tuple(sorted(name for name in models if self.published.get(name) is None))
        rest = models.difference(unknown)
        members: dict[ModelName, set[ModelName]] = {}
        for name in sorted(rest):
            called = rest.intersection(member for config in self._running(name) for member in config.members)
            members[name] = {member for member in called if not reaches(members, member, name)}
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


_GONE = frozenset({ModelState.UNAVAILABLE})

_UNLOADED = "unloaded"
"""Triton's reason in the index for a model that somebody unloaded."""


def _instances(count: int) -> str:
    return "1 instance is" if count == 1 else f"{count} instances are"


def _held_back(record: ActionRecord) -> str:
    return f"It is tried again at {record.retry_at:%H:%M:%S} UTC. The last time: {record.reason}"


def _names(items: Iterable[object]) -> str:
    return ", ".join(f"'{item}'" if isinstance(item, str) else str(item) for item in items)
