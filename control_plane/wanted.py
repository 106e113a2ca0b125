"""What an owner may ask of a deployment beside the model itself: how many replicas, where, how fast, how alone.

Pure data with its defaults, part of `state.Deployment`. `planning.placement` decides by it, `api` and `cli` read and
show it. Sizes are in bytes, times in milliseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ANY_POOL = ""
"""Key of `Needs.replicas` for replicas that may be in any pool."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """Bounds of how many servers hold a deployment. As long as nothing scales by itself, `min` is how many do."""

    min: int = 1
    max: int | None = None


class Isolation(StrEnum):
    """Whether a replica may share its server with other deployments."""

    SHARED = "shared"
    DEDICATED = "dedicated"


class Drift(StrEnum):
    """What becomes of a change that somebody else made on a server: undone, or only reported."""

    REPAIR = "repair"
    REPORT = "report"


class Domain(StrEnum):
    """What fails together. Replicas that are spread over them are never two in the same one."""

    NONE = "none"
    GPU = "gpu"
    NODE = "node"
    ZONE = "zone"


@dataclass(frozen=True, slots=True)
class Objectives:
    """What its owner wants of its latency; None is no objective. TTFT and TBT are of streams."""

    p99_ms: float | None = None
    ttft_ms: float | None = None
    tbt_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a server must have: one of these compute capabilities ("8.9"), device memory, a MIG profile, labels."""

    compute_capabilities: tuple[str, ...] = ()
    memory_bytes: int = 0
    mig_profile: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """All of it. Without `replicas` there is one on every server; else so many for each pool.

    `instances` are those of the deployed model on each replica (None: as its config says). Of two deployments that want
    the same place the higher `priority` gets it, then the older one. `spread` keeps its replicas on slices apart.
    """

    replicas: Mapping[str, Replicas] = field(default_factory=dict)
    instances: int | None = None
    objectives: Objectives = Objectives()
    requirements: Requirements = Requirements()
    isolation: Isolation = Isolation.SHARED
    priority: int = 0
    owner: str = ""
    drift: Drift = Drift.REPAIR
    spread: Domain = Domain.NONE


EVERYWHERE = Needs()
"""What a deployment needs that asks for nothing: one replica on every server."""
