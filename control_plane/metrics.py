"""The control plane's own Prometheus metrics, in a registry of their own. Written by `reconciler`, served by `api`."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.actions import Action, Load, Outcome, Restart, Unload
from control_plane.actions import Failed as FailedOutcome
from control_plane.error_kinds import kind_of
from control_plane.operations import Operation, OperationKind, OperationState
from control_plane.planning.status import DeploymentState
from control_plane.state import ObservedServer, Server, ServerCondition, Source

_LOAD_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Every metric, named `tritonfleet_*`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._deployments = Gauge(
            "tritonfleet_deployments", "Deployments, by state.", ["state"], registry=self.registry
        )
        self._servers = Gauge("tritonfleet_servers", "Servers, by condition.", ["condition"], registry=self.registry)
        self._actions = Counter(
            "tritonfleet_actions",
            "Loads, unloads and restarts, by outcome.",
            ["action", "outcome"],
            registry=self.registry,
        )
        self._load_seconds = Histogram(
            "tritonfleet_load_seconds",
            "Time of a load call, by outcome.",
            ["outcome"],
            buckets=_LOAD_BUCKETS_S,
            registry=self.registry,
        )
        self._pass_seconds = Histogram(
            "tritonfleet_pass_seconds", "Time of a reconciliation pass.", registry=self.registry
        )
        self._failures = Counter(
            "tritonfleet_action_failures",
            "Loads, unloads and restarts that failed, by the kind of trouble.",
            ["action", "kind"],
            registry=self.registry,
        )
        self._operations = Counter(
            "tritonfleet_operations",
            "Operations that ended, by kind and end.",
            ["kind", "state"],
            registry=self.registry,
        )
        self._healing_seconds = Histogram(
            "tritonfleet_healing_seconds",
            "Time from the beginning of a healing to its end.",
            buckets=_LOAD_BUCKETS_S,
            registry=self.registry,
        )
        self._errors = Counter(
            "tritonfleet_unexpected_errors", "Errors that no code expected.", ["place"], registry=self.registry
        )
        self._found = Gauge(
            "tritonfleet_found_servers",
            "Servers that the servers file names (file), and that DNS gave (discovered).",
            ["source"],
            registry=self.registry,
        )
        self._discovery_problems = Gauge(
            "tritonfleet_discovery_problems",
            "What is wrong now with the servers file and the DNS names in it; GET /v1/health says what.",
            registry=self.registry,
        )
        for place in ("pass", "execution", "api", "discovery"):
            self._errors.labels(place)

    def outcome(self, outcome: Outcome) -> None:
        """Count how an action ended."""
        word = type(outcome).__name__.lower()
        self._actions.labels(_word(outcome.action), word).inc()
        if isinstance(outcome, FailedOutcome):
            kind = outcome.kind or kind_of(outcome.reason)
            self._failures.labels(_word(outcome.action), kind.value).inc()
        if isinstance(outcome.action, Load) and hasattr(outcome, "seconds"):
            result = "failed" if isinstance(outcome, FailedOutcome) else "loaded"
            self._load_seconds.labels(result).observe(outcome.seconds)

    def operation(self, operation: Operation) -> None:
        """Count an operation that ended."""
        if operation.is_finished:
            self._operations.labels(operation.kind.value, operation.state.value).inc()
            if operation.kind is OperationKind.HEAL and operation.state is OperationState.DONE:
                self._healing_seconds.observe((operation.updated_at - operation.created_at).total_seconds())

    def passed(self, seconds: float, servers: Iterable[ObservedServer], states: Iterable[DeploymentState]) -> None:
        """Take note of a pass that ended, and of what it saw."""
        self._pass_seconds.observe(seconds)
        conditions, found = Tally(entry.condition for entry in servers), Tally(states)
        for condition in ServerCondition:
            self._servers.labels(condition.value).set(conditions[condition])
        for state in DeploymentState:
            self._deployments.labels(state.value).set(found[state])

    def found(self, servers: Iterable[Server], problems: int) -> None:
        """Take note of the servers that were found, and of how many problems there were in that."""
        sources = Tally(server.source for server in servers)
        for source in (Source.FILE, Source.DISCOVERED):
            self._found.labels(source.value).set(sources[source])
        self._discovery_problems.set(problems)

    def error(self, place: str) -> None:
        """Count an error that nobody expected."""
        self._errors.labels(place).inc()

    def text(self) -> bytes:
        """Everything, in the Prometheus text format."""
        return generate_latest(self.registry)


def _word(action: Action) -> str:
    match action:
        case Load():
            return "load"
        case Unload():
            return "unload"
        case Restart():
            return "restart"
