"""The part of a deployment's body that says how much, where and how well: its fields, and from and to `wanted`."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from control_plane.wanted import (
    ANY_POOL,
    EVERYWHERE,
    Domain,
    Drift,
    Isolation,
    Needs,
    Objectives,
    Replicas,
    Requirements,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
MOST_REPLICAS = 10_000
MOST_INSTANCES = 256

_Milliseconds = Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ReplicasBody(_Body):
    """How many servers hold it: `min` of them, as long as nothing scales by itself."""

    min: Annotated[int, Field(ge=0, le=MOST_REPLICAS)] = 1
    max: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError("max is below min")
        return self


class ObjectivesBody(_Body):
    """Latency in milliseconds that its owner wants; null is no objective. TTFT and TBT are of streams."""

    p99_ms: _Milliseconds | None = None
    ttft_ms: _Milliseconds | None = None
    tbt_ms: _Milliseconds | None = None


class RequirementsBody(_Body):
    """What a server must have."""

    compute_capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]], Field(max_length=32, examples=[["8.9", "9.0"]])
    ] = []
    memory_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    mig_profile: Annotated[str, Field(pattern=r"^[a-z0-9.+]{0,32}$", examples=["1g.10gb"])] = ""
    labels: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], Annotated[str, Field(max_length=63)]], Field(max_length=64)
    ] = {}


class WantedBody(_Body):
    """How much, where and how well. In a change, what is left out or null stays as it is."""

    replicas: ReplicasBody | Literal["everywhere"] | None = Field(
        default=None, description="In any pool; `everywhere` (where it is never given) is one on each server."
    )
    pools: (
        Annotated[
            dict[Annotated[str, Field(pattern=NAME)], ReplicasBody],
            Field(max_length=64, description="Replicas in pools of their own, beside those of `replicas`."),
        ]
        | None
    ) = None
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] | Literal["config"] | None = Field(
        default=None, description="Instances of the model on each replica; `config` is what its config says."
    )
    objectives: ObjectivesBody | None = None
    requirements: RequirementsBody | None = None
    isolation: Isolation | None = Field(default=None, strict=False)
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    owner: Annotated[str, Field(max_length=200)] | None = None
    spread: Domain | None = Field(
        default=None,
        strict=False,
        description="What no two of its replicas on slices of GPUs may share: a GPU, a node or a zone.",
    )
    drift: Drift | None = Field(
        default=None, strict=False, description="What becomes of changes by hand on a server: undone or reported."
    )

    def changed(self, before: Needs = EVERYWHERE) -> Needs:
        """Return what is needed once this is changed."""
        return Needs(
            replicas=self._replicas(before),
            instances=before.instances if self.instances is None else _number(self.instances),
            objectives=before.objectives if self.objectives is None else Objectives(**self.objectives.model_dump()),
            requirements=before.requirements if self.requirements is None else _requirements(self.requirements),
            isolation=self.isolation or before.isolation,
            priority=before.priority if self.priority is None else self.priority,
            owner=before.owner if self.owner is None else self.owner,
            drift=self.drift or before.drift,
            spread=self.spread or before.spread,
        )

    def _replicas(self, before: Needs) -> Mapping[str, Replicas]:
        if self.replicas is None and self.pools is None:
            return before.replicas
        if self.replicas == "everywhere":
            return {}
        anywhere = before.replicas.get(ANY_POOL) if self.replicas is None else _bounds(self.replicas)
        kept = {pool: it for pool, it in before.replicas.items() if pool != ANY_POOL}
        pools = kept if self.pools is None else {pool: _bounds(it) for pool, it in self.pools.items()}
        return {**({ANY_POOL: anywhere} if anywhere is not None else {}), **pools}


def wanted_body(needs: Needs) -> WantedBody:
    """Show what is needed, every field filled in."""
    anywhere = needs.replicas.get(ANY_POOL)
    return WantedBody(
        replicas=ReplicasBody(min=anywhere.min, max=anywhere.max) if anywhere is not None else _nowhere(needs),
        pools={
            pool: ReplicasBody(min=it.min, max=it.max)
            for pool, it in sorted(needs.replicas.items())
            if pool != ANY_POOL
        },
        instances=needs.instances if needs.instances is not None else "config",
        objectives=ObjectivesBody(
            p99_ms=needs.objectives.p99_ms, ttft_ms=needs.objectives.ttft_ms, tbt_ms=needs.objectives.tbt_ms
        ),
        requirements=RequirementsBody(
            compute_capabilities=list(needs.requirements.compute_capabilities),
            memory_bytes=needs.requirements.memory_bytes,
            mig_profile=needs.requirements.mig_profile,
            labels=dict(needs.requirements.labels),
        ),
        isolation=needs.isolation,
        priority=needs.priority,
        owner=needs.owner,
        drift=needs.drift,
        spread=needs.spread,
    )


def _nowhere(needs: Needs) -> Literal["everywhere"] | None:
    return None if needs.replicas else "everywhere"


def _bounds(body: ReplicasBody | str) -> Replicas:
    assert isinstance(body, ReplicasBody)  # noqa: S101 - "everywhere" was told apart by the caller
    return Replicas(body.min, body.max)


def _number(given: int | str) -> int | None:
    return given if isinstance(given, int) else None


def _requirements(body: RequirementsBody) -> Requirements:
    return Requirements(
        tuple(body.compute_capabilities), body.memory_bytes, body.mig_profile, dict(sorted(body.labels.items()))
    )
