"""Which target of a version each server gets, from what the deployments wish, what the server is and what it holds.

Pure. `builders.selection` chooses; here the wishes of the deployments that share a model are merged, or told as a
conflict, and the choice is compared with the file that the server says it serves from. `lifecycle` loads by the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from builders.releases import release_of
from builders.selection import Refusal, ServerFacts, select
from builders.targets import Precision
from control_plane.state import Deployment, ModelName, ObservedServer, Pin, Published, ServerId, Track


@dataclass(frozen=True, slots=True)
class Wishes:
    """What may be loaded of a model: precisions, best first (none: the most precise), and what was never run."""

    precisions: tuple[Precision, ...] = ()
    allow_unproven: bool = False


@dataclass(frozen=True, slots=True)
class TargetOnServer:
    """The target of a version that a server should serve, and the one that it serves, by name.

    `target` is empty where none fits, or the version has none and is unproven; `problem` then says why. `serving` is
    empty where the version is not ready, or serves from a file of no target. `wishes` are those it was chosen by.
    """

    server: ServerId
    model: ModelName
    version: int
    wishes: Wishes
    target: str
    serving: str
    problem: str = ""

    @property
    def serves(self) -> bool:
        """Whether what should serve is what serves."""
        return bool(self.target) and self.target == self.serving


def wishes_of(assigned: Iterable[tuple[Deployment, Track]]) -> dict[ModelName, Wishes]:
    """Merge the wishes for each model that versions on one server, which do not contradict each other, pin.

    What is unproven is allowed where every one of them allows it.
    """
    merged: dict[ModelName, Wishes] = {}
    for deployment, track in assigned:
        for pin in track.pins:
            before = merged.get(pin.model, Wishes(deployment.precisions, allow_unproven=True))
            allowed = before.allow_unproven and deployment.allow_unproven
            merged[pin.model] = Wishes(before.precisions, allowed)
    return merged


def wish_conflicts(deployment: Deployment, others: Iterable[Deployment], published: Published) -> tuple[str, ...]:
    """Why `deployment` cannot be served beside `others`: they wish other precisions of a model with several targets."""
    with_targets = {pin.model for pin in deployment.all_pins if published.targets_of(pin)}
    return tuple(
        f"Deployment '{other.name}' wishes model '{pin.model}' in {_told(other)}, this one in {_told(deployment)}; "
        "a server holds one target of a model."
        for other in sorted(others, key=lambda other: other.name)
        for pin in other.all_pins
        if pin.model in with_targets and other.precisions != deployment.precisions
    )


def choose_targets(
    seen: ObservedServer, pins: Iterable[Pin], wishes: Mapping[ModelName, Wishes], published: Published
) -> dict[ModelName, TargetOnServer]:
    """Choose for every pinned version that has targets, or that may not or cannot be loaded."""
    chosen = ((pin.model, choose_target(seen, pin, wishes[pin.model], published)) for pin in pins)
    return {model: choice for model, choice in chosen if choice is not None}


def choose_target(seen: ObservedServer, pin: Pin, wishes: Wishes, published: Published) -> TargetOnServer | None:
    """Choose for one pinned version; None where it has no targets, unless it may not or cannot be loaded.

    Such a version that is ready all the same stays: what serves is not taken from its clients.
    """
    if published.targets_of(pin):
        return _choose(seen, pin, wishes, published)
    problem = unproven_problem(pin, wishes, published) or _backend_problem(seen, pin, published)
    if not problem or seen.ready_file(pin) is not None:
        return None
    return TargetOnServer(seen.server.id, pin.model, pin.version, wishes, "", "", problem)


def unproven_problem(pin: Pin, wishes: Wishes, published: Published) -> str:
    """Why a version without targets may not be loaded, in a sentence: it is unproven, and not wished so; else empty."""
    why = "" if wishes.allow_unproven else published.unproven_of(pin)
    return f"version {pin.version} is unproven ({why}), and its deployments do not allow that." if why else ""


def _backend_problem(seen: ObservedServer, pin: Pin, published: Published) -> str:
    """Why a version without targets cannot be loaded: the server said that it lacks its backend; else empty."""
    package = published.get(pin.model)
    config = package.at(pin.version).config if package is not None else None
    if config is None or config.backend not in seen.lacks:
        return ""
    return f"version {pin.version} needs the backend {config.backend}, which the server said it does not have."


def _choose(seen: ObservedServer, pin: Pin, wishes: Wishes, published: Published) -> TargetOnServer:
    targets, server = published.targets_of(pin), seen.server
    facts = ServerFacts(
        server.compute_capabilities, release_of(seen.triton_version), seen.backends, dict(server.versions)
    )
    answer = select(targets, facts, precisions=wishes.precisions, allow_unproven=wishes.allow_unproven)
    if isinstance(answer, Refusal):
        problem = f"version {pin.version} is not loaded here: {answer.sentence}."
        return TargetOnServer(
            server.id, pin.model, pin.version, wishes, "", _serving(seen, pin, published, ""), problem
        )
    serving = _serving(seen, pin, published, answer.name)
    return TargetOnServer(server.id, pin.model, pin.version, wishes, answer.name, serving)


def _serving(seen: ObservedServer, pin: Pin, published: Published, believed: str) -> str:
    """Return the target whose file the pinned version is served from; `believed` where the server does not say."""
    filename = seen.ready_file(pin)
    if filename is None:
        return ""
    if not filename:
        return believed
    return next((name for name, made in sorted(published.targets_of(pin).items()) if made.filename == filename), "")


def _told(deployment: Deployment) -> str:
    return " or ".join(deployment.precisions) or "its most precise target"
