"""The bodies of models and of the control plane itself. `views` fills the answers in."""

from typing import Literal

from control_plane.api.bodies import Body
from control_plane.state import ServerCondition


class TensorBody(Body):
    """An input or output, as the model's config has it."""

    name: str
    data_type: str
    dims: list[int]


class ReadyOn(Body):
    """A version that a server has ready, and from which of its targets, where it has any and is deployed."""

    server: str
    version: int
    target: str


class ModelBody(Body):
    """A package of the model repository, as the version that is deployed has it, else the newest.

    `problems` is why no server could load that version, or one built from the package as it is now; empty when nothing
    is wrong. `warnings` are what does not keep it from being loaded.
    """

    name: str
    backend: str
    versions: list[int]
    members: list[str]
    inputs: list[TensorBody]
    outputs: list[TensorBody]
    problems: list[str]
    warnings: list[str]
    ready_on: list[ReadyOn]
    deployments: list[str]


class ModelList(Body):
    """Every package, by name."""

    models: list[ModelBody]


class Live(Body):
    """The process answers."""

    live: Literal[True] = True


class Health(Body):
    """Whether the loop runs, and what it sees. `problems` is what is wrong with how servers are found."""

    ready: bool
    reason: str
    passes: int
    last_pass_age_s: float | None
    last_error: str
    servers: dict[ServerCondition, int]
    problems: list[str]
