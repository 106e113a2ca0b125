"""`tritonfleet measure`: what a version costs and gives on this machine's device, through a real tritonserver.

The sweep is `builders.measure`'s, carried out by `control_plane.measuring` on the server of `measure_job`; here the
HardwareProfile is made, shown, drawn and kept.
"""

import asyncio
import json
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from builders.measure.curves import curves_svg
from builders.measure.profile import HardwareProfile
from builders.measure.report import COST_COLUMNS, POINT_COLUMNS, cost_rows, device_text, point_rows, skipped_lines
from builders.measure.sweep import AS_CONFIGURED, Grid, Point
from control_plane.cli import output
from control_plane.cli.build import Repository, Versioned
from control_plane.cli.completion import DEFAULT_REPOSITORY
from control_plane.cli.files import write_text
from control_plane.measuring import Circumstances, profile_of

DEFAULT_PROFILES = Path(".tritonfleet/profiles")
DEFAULT_INSTANCES = (1, 2)
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True, slots=True)
class Ended:
    """How the job ended: by itself, by a signal, or with an error. What was measured until then counts either way."""

    stopped_by: signal.Signals | None = None
    error: BaseException | None = None


def command(
    model: Versioned,
    repository: Repository = DEFAULT_REPOSITORY,
    target: Annotated[
        str, typer.Option(help="Which of the version's targets, such as onnxruntime-cpu-int8 (default: its own).")
    ] = "",
    batch_sizes: Annotated[str, typer.Option(help="Items per request.")] = "1,8,32",
    instances: Annotated[str, typer.Option(help="Instances to load (default: 1,2; not for an ensemble).")] = "",
    concurrency: Annotated[str, typer.Option(help="Requests in flight.")] = "1,2,4,8,16,32",
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to measure each point.")] = 5.0,
    requests: Annotated[
        Path | None,
        typer.Option(help="File of KServe v2 requests in JSON (default: the version's probes, else generated)."),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--shape", help="NAME:DIM,DIM of an input without a fixed shape, the batch left out."),
    ] = None,
    url: Annotated[
        str, typer.Option("--url", help="gRPC address of a running Triton on this repository that serves nothing.")
    ] = "",
    metrics: Annotated[str, typer.Option(help="With --url: address of its metrics, for device memory.")] = "",
    admin_key: Annotated[
        str | None, typer.Option(envvar="TRITON_ADMIN_KEY", help="With --url: the key of its restricted APIs.")
    ] = None,
    profiles: Annotated[Path, typer.Option(help="Folder to keep the profile in.")] = DEFAULT_PROFILES,
    out: Annotated[Path | None, typer.Option("--output", help="Keep the profile in this file instead.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    as_json: output.AsJson = False,
) -> None:
    """Measure latency, throughput, load time and memory of a version over batch size, instances and concurrency.

    Stops early where a curve is flat. The HardwareProfile is kept as a file, which placement and scaling do not read
    yet. Ctrl-C ends it with what was measured until then.

    Example: tritonfleet measure text_embedding --seconds 2 --svg curves.svg
    """
    # Not at the top: it takes a second, which every other command would wait for too.
    from control_plane.cli import measure_job  # noqa: PLC0415

    grid_of = _grid_options(batch_sizes, instances, concurrency)
    job = measure_job.find_job(repository, model, target, requests, _shapes(shapes or []))
    grid = _grid(grid_of, job.max_batch_size, is_ensemble=job.is_ensemble)
    running = measure_job.RunningTriton(url, metrics, admin_key) if url else None
    found = measure_job.Findings()
    with output.Spinner("reaching Triton" if url else "starting tritonserver") as spinner:

        def report(point: Point) -> None:
            last = f"; last: {found.seen.points[-1].throughput:.1f} items/s" if found.seen.points else ""
            spinner.update(f"{job.model.name}:{job.version}: {point}{last}")

        ended = _until_stopped(measure_job.run_job(job, (grid, seconds), running, found, report))
    if found.seen.points:
        profile = profile_of(
            found.seen,
            grid,
            measure_job.observe_device(running, on_gpu=found.seen.on_gpu),
            found.software,
            Circumstances(
                model=job.model.name,
                version=job.version,
                target=job.target,
                measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
                requests=found.requests,
                seconds_per_point=seconds,
            ),
        )
        path = out or profiles / profile.filename
        write_text(path, profile.to_json())
        if svg is not None:
            write_text(svg, curves_svg(profile))
        _show(profile, path, as_json=as_json)
    if ended.error is not None:
        raise ended.error
    if ended.stopped_by is not None:
        raise typer.Exit(_EXIT_CODES[ended.stopped_by])


def _until_stopped(job: Coroutine[Any, Any, None]) -> Ended:
    """Run `job` until its end, Ctrl-C or SIGTERM; what it started is gone afterwards."""
    caught: list[signal.Signals] = []

    async def run() -> Ended:
        task = asyncio.create_task(job, name="measure")
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            if not caught:  # a second signal must not cut the clearing up short
                caught.append(number)
                task.cancel()

        for number in _EXIT_CODES:
            loop.add_signal_handler(number, stop, number)
        try:
            await asyncio.wait({task})
        finally:
            for number in _EXIT_CODES:
                loop.remove_signal_handler(number)
        if task.cancelled():
            return Ended(stopped_by=caught[0] if caught else signal.SIGINT)
        return Ended(error=task.exception())

    return asyncio.run(run())


def _show(profile: HardwareProfile, path: Path, *, as_json: bool) -> None:
    if as_json:
        output.print_json(json.loads(profile.to_json()))
    else:
        target = f", {profile.target}" if profile.target else ""
        output.show(f"{profile.model}:{profile.version}{target} on {device_text(profile)}; requests {profile.requests}")
        output.show(output.table(POINT_COLUMNS, point_rows(profile)))
        output.show(output.table(COST_COLUMNS, cost_rows(profile)))
        for line in skipped_lines(profile):
            output.show(line)
    if not profile.complete:
        output.err.print("stopped early: what was measured until then is kept")
    output.err.print(f"kept in {path}", soft_wrap=True)


def _grid(axes: tuple[tuple[int, ...], ...], max_batch_size: int, *, is_ensemble: bool) -> Grid:
    """Return the grid of the three axes; an ensemble's instances are its members' own."""
    batch_sizes, instances, concurrency = axes
    if is_ensemble and instances:
        raise typer.BadParameter(
            "an ensemble has no instances of its own; measure its members for that", param_hint="--instances"
        )
    counts = (AS_CONFIGURED,) if is_ensemble else instances or DEFAULT_INSTANCES
    return Grid(batch_sizes, counts, concurrency, max_batch_size)


def _grid_options(batch_sizes: str, instances: str, concurrency: str) -> tuple[tuple[int, ...], ...]:
    return (
        _numbers(batch_sizes, "--batch-sizes"),
        _numbers(instances, "--instances") if instances else (),
        _numbers(concurrency, "--concurrency"),
    )


def _shapes(given: list[str]) -> dict[str, tuple[int, ...]]:
    """Read NAME:DIM,DIM; a name may hold colons itself."""
    shapes = {}
    for text in given:
        name, colon, dims = text.rpartition(":")
        if not (colon and name):
            raise typer.BadParameter(f"'{text}': expected NAME:DIM,DIM such as ids:128", param_hint="--shape")
        shapes[name] = _numbers(dims, "--shape")
    return shapes


def _numbers(text: str, option: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"'{text}': expected numbers of at least 1, such as 1,8,32", param_hint=option)
    return tuple(map(int, parts))
