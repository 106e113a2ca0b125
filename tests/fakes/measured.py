"""A `MeasuredServer` without a server: latencies, load times and memory by a rule, failures where asked for."""

from dataclasses import dataclass, field

from builders.measure.sweep import Ran
from control_plane.errors import LoadFailedError
from control_plane.measuring import LoadResult, Memory


@dataclass(slots=True)
class FakeMeasuredServer:
    """Answers in 10 ms, as many requests at once as it has instances. Keeps every call in `calls`.

    `fails_to_load` gives reasons by number of instances; from `dies_at` calls of `run` on, every request fails.
    """

    fails_to_load: dict[int, str] = field(default_factory=dict)
    dies_at: int | None = None
    on_gpu: bool = False
    calls: list[str] = field(default_factory=list)
    instances: int | None = None
    runs: int = 0

    async def load(self, instances: int) -> LoadResult:
        self.calls.append(f"load {instances}")
        if instances in self.fails_to_load:
            raise LoadFailedError(self.fails_to_load[instances])
        self.instances = instances
        return LoadResult(seconds=0.5 * max(instances, 1), on_gpu=self.on_gpu)

    async def run(self, batch_size: int, concurrency: int, seconds: float) -> Ran:
        self.calls.append(f"run {batch_size} {concurrency}")
        if self.instances is None:
            raise LoadFailedError("Model 'm' is not loaded: load it before it is measured.")
        self.runs += 1
        if self.dies_at is not None and self.runs >= self.dies_at:
            return Ran((), seconds, failed=concurrency, reason="UNAVAILABLE: gone")
        at_once = min(concurrency, max(self.instances, 1))
        latency_ms = 10.0 * concurrency / at_once
        return Ran((latency_ms,) * round(seconds * 100 * at_once), seconds, client_cpu_s=seconds / 10)

    async def memory(self) -> Memory:
        count = max(self.instances or 0, 1)
        return Memory(100_000_000 * count + 7, 1_000_000 if self.on_gpu else None)

    async def unload(self) -> None:
        if self.instances is not None:
            self.calls.append("unload")
        self.instances = None
