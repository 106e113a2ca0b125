"""What can be done to a server, and how it can end: two closed unions, matched with `assert_never`.

`planning` makes actions, `executor` carries them out and answers with outcomes. Actions are imperative, outcomes past.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.error_kinds import ErrorKind
from control_plane.state import NO_MODEL, ModelName, Pin, ServerId


@dataclass(frozen=True, slots=True)
class Setting:
    """How a version is loaded: its target (empty where it has none), instances (None: its config's), generation.

    The instances are how many there are in all, spread over `gpus` GPUs; 0 where the server has not several.
    """

    target: str = ""
    instances: int | None = None
    generation: int = 0
    gpus: int = 0


AS_PUBLISHED = Setting()
"""As the version's own config says."""


@dataclass(frozen=True, slots=True)
class Load:
    """Have exactly `version` of `model` ready on `server`, also where another version is: Triton swaps without a gap.

    `members` are the pins of everything below an ensemble, in dependency order. Triton polls the members of an ensemble
    again when it loads it, and a member whose folder changed since moves to its newest version (measured on 2.51); so
    these are loaded again, each at its pin, right before. That does nothing where nothing changed.

    `settings` say how, of this model and of its members.
    """

    server: ServerId
    model: ModelName
    version: int
    members: tuple[Pin, ...] = ()
    settings: Mapping[ModelName, Setting] = field(default_factory=dict)

    def setting(self, model: ModelName) -> Setting:
        """Return how this model or a member is loaded."""
        return self.settings.get(model, AS_PUBLISHED)


@dataclass(frozen=True, slots=True)
class Unload:
    """Have no version of `model` on `server`."""

    server: ServerId
    model: ModelName


@dataclass(frozen=True, slots=True)
class Restart:
    """Have the server's process killed and started again, empty. Only for one whose process is ours."""

    server: ServerId

    @property
    def model(self) -> ModelName:
        """No model: it is about the whole server."""
        return NO_MODEL


Action = Load | Unload | Restart


@dataclass(frozen=True, slots=True)
class Loaded:
    """Triton answered that the model is loaded. Only an observation proves it."""

    action: Load
    seconds: float


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Triton took the unload; the model goes once its requests in flight are answered."""

    action: Unload


@dataclass(frozen=True, slots=True)
class Restarted:
    """The server's process was started again, and answers."""

    action: Restart
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """The action failed. `reason` is Triton's own, or the cause from the server's log.

    `hung`: it did not end within its deadline, and may go on for ever on the server. `kind` is what kind of trouble.
    """

    action: Action
    reason: str
    retryable: bool
    seconds: float
    hung: bool = False
    kind: ErrorKind | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The action was not tried, because one it depends on failed in the same plan."""

    action: Action
    reason: str


Outcome = Loaded | Unloaded | Restarted | Failed | Skipped
