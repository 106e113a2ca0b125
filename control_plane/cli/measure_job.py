"""What `tritonfleet measure` measures, found in the repository, and the server it is measured on: started, or given.

Apart from `measure` because it needs the adapters, which take a while to import.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from builders.errors import SourceError
from builders.host import observe_host
from builders.measure.profile import MeasuredDevice
from builders.measure.sweep import Grid, Point
from builders.probes import PROBES_FILENAME
from builders.targets import RUNTIMES
from control_plane.actions import Setting
from control_plane.adapters.measured_device import visible_mig_profile
from control_plane.adapters.measured_requests import Item, read_items
from control_plane.adapters.measured_server import MeasuredModel, TritonMeasuredServer, triton_version
from control_plane.adapters.repository import RepositoryFolder
from control_plane.adapters.triton import Deadlines, GrpcTritonControl
from control_plane.embedded import EmbeddedFleet, EmbeddedServer, ServerSpec
from control_plane.embedded.command import RUN_VARIABLE
from control_plane.embedded.reaper import processes_of
from control_plane.embedded.record import read_record
from control_plane.errors import LoadFailedError
from control_plane.measuring import Measurement, measure, measured_device
from control_plane.planning import Infeasible, resolve_pins
from control_plane.ports import ServerLog
from control_plane.state import Endpoints, ModelName, Server, ServerId

_LOAD_DEADLINE_S = 600.0
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt_rtx", "nvidia-pytriton", "numpy")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_NO_METRICS = "127.0.0.1:0"


@dataclass(frozen=True, slots=True)
class Job:
    """A version to measure. `max_batch_size` is its config's; `sent` says where its requests come from."""

    repository: Path
    model: MeasuredModel
    version: int
    target: str
    max_batch_size: int
    sent: str

    @property
    def is_ensemble(self) -> bool:
        """Whether it is made of other models."""
        return bool(self.model.members)


@dataclass(frozen=True, slots=True)
class RunningTriton:
    """A Triton that runs already: addresses as `host:port`, `metrics` "" where it is not to be asked."""

    grpc: str
    metrics: str = ""
    admin_key: str | None = None


@dataclass(slots=True)
class Findings:
    """What a job has found so far; it stays when the job is stopped."""

    seen: Measurement = field(default_factory=Measurement)
    software: dict[str, str] = field(default_factory=dict)
    requests: str = ""


def find_job(
    repository: Path, name: str, target: str, requests: Path | None, shapes: Mapping[str, Sequence[int]]
) -> Job:
    """Return what to measure of `name` (MODEL or MODEL:VERSION). Raises LoadFailedError, BuildError."""
    model, _, version = name.partition(":")
    if version and not version.isdecimal():
        raise LoadFailedError(f"'{name}': expected MODEL or MODEL:VERSION, with a number for the version.")
    folder = RepositoryFolder(repository)
    published = folder.read()
    pinned = resolve_pins(ModelName(model), int(version) if version else None, published)
    if isinstance(pinned, Infeasible):
        raise LoadFailedError(" ".join(pinned.reasons))
    *members, pin = pinned.pins
    load_config = folder.load_config(pin.model, pin.version, Setting(target))
    config = published.models[pin.model].at(pin.version).config
    max_batch_size = json.loads(load_config).get("max_batch_size", 0)  # a target may have another than the default one
    items, sent = _items(repository / model / str(pin.version), requests, max_batch_size)
    return Job(
        repository=repository,
        model=MeasuredModel(
            name=pin.model,
            config=load_config,
            members=tuple((it.model, folder.load_config(it.model, it.version)) for it in members),
            items=items,
            shapes=shapes,
        ),
        version=pin.version,
        target=target or _target_of(config.default_model_filename if config is not None else ""),
        max_batch_size=max_batch_size,
        sent=sent,
    )


async def run_job(
    job: Job, sweep: tuple[Grid, float], running: RunningTriton | None, found: Findings, report: Callable[[Point], None]
) -> None:
    """Measure `job` into `found`, over a grid for so many seconds a point, on a server started for it or on `running`.

    Raises like `measuring.measure`, and ServerStartError, MissingExtraError.
    """
    async with _measured_server(job, running, found) as server:
        try:
            await measure(server, *sweep, found.seen, report)
        finally:
            found.requests = f"{job.sent}: {server.requests}"


def observe_device(running: RunningTriton | None, *, on_gpu: bool) -> MeasuredDevice:
    """Return the device that was measured. Of a server on another machine only the address is known."""
    if running is not None and running.grpc.rpartition(":")[0] not in _LOOPBACK:
        return MeasuredDevice("gpu" if on_gpu else "cpu", f"device of {running.grpc}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    cores = len(os.sched_getaffinity(0))
    return measured_device(observe_host(), cores, visible, visible_mig_profile(visible), on_gpu=on_gpu)


@asynccontextmanager
async def _measured_server(
    job: Job, running: RunningTriton | None, found: Findings
) -> AsyncIterator[TritonMeasuredServer]:
    if running is not None:
        endpoints = Endpoints(http="", grpc=running.grpc, metrics=running.metrics or _NO_METRICS)
        server = Server(ServerId(running.grpc), endpoints, running.admin_key)
        found.software["triton"] = await triton_version(server)
        async with _measuring(job, server, None, None, metrics=bool(running.metrics)) as measured:
            yield measured
        return
    spec = ServerSpec(ServerId("measured"), job.repository.resolve(), extra_args=("--metrics-interval-ms=500",))
    async with EmbeddedFleet([spec]) as fleet:
        embedded = fleet[spec.id]
        found.software |= {"triton": await triton_version(embedded.server), **_installed()}
        async with _measuring(job, embedded.server, embedded, lambda: _pids(embedded), metrics=True) as measured:
            yield measured


@asynccontextmanager
async def _measuring(
    job: Job, server: Server, log: ServerLog | None, pids: Callable[[], Iterable[int]] | None, *, metrics: bool
) -> AsyncIterator[TritonMeasuredServer]:
    control = GrpcTritonControl(lambda _server: log, Deadlines(load_s=_LOAD_DEADLINE_S))
    try:
        async with TritonMeasuredServer(server, job.model, control, pids, metrics=metrics) as measured:
            yield measured
    finally:
        await control.close()


def _pids(server: EmbeddedServer) -> Iterable[int]:
    """Find the tritonserver, its stubs and whatever these started, as they are in this life of the server."""
    record = read_record(server.record_path)
    return () if record is None else processes_of(f"{RUN_VARIABLE}={record.run}")


def _installed() -> dict[str, str]:
    """Return the versions of what the embedded server's backends run on, of those that are installed."""
    found = {}
    for name in _RUNTIMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _items(version: Path, given: Path | None, max_batch_size: int) -> tuple[tuple[Item, ...], str]:
    """Return the items of the file that was given, or of the version's probes, and where they are from."""
    probes = version / PROBES_FILENAME
    if given is not None:
        if items := read_items(given, max_batch_size):
            return items, f"from {given.name}"
        raise SourceError(f"{given}: holds no request; expected KServe v2 inference requests in JSON")
    if probes.is_file() and (items := read_items(probes, max_batch_size)):
        return items, "from the version's probes"
    return (), "generated"


def _target_of(filename: str) -> str:
    """Return the target that an artifact's file name says it is for, or "" where it says none."""
    stem = filename.rpartition(".")[0]
    return stem if stem.split("-", 1)[0] in RUNTIMES and stem.count("-") == 2 else ""  # noqa: PLR2004 - three parts
