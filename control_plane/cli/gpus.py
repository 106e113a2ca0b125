"""`tritonfleet gpus`: the GPUs of this machine by their driver, and how each is cut. Reads, never changes."""

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from control_plane.adapters.nvml import NvmlHost
from control_plane.cli import output
from control_plane.mig import illegality
from control_plane.mig.geometry import Placement
from control_plane.mig.host import HostGpu
from control_plane.mig.products import gpu_counts
from control_plane.mig.simulated import SimulatedNvml, installed

_GIB = 2**30


def gpus(
    simulate: Annotated[
        str | None,
        typer.Option(
            "--simulate",
            metavar="PRODUCT:COUNT[,...]",
            help="Made-up GPUs in place of this machine's.",
            show_default=False,
        ),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show each GPU with its MIG slices: where they are, how large, who uses them, and what still fits beside them.

    Example: tritonfleet gpus --simulate h100-80gb:2
    """
    host = NvmlHost()
    with installed(SimulatedNvml(_simulated(simulate))) if simulate is not None else nullcontext():
        found = host.gpus()
    if as_json:
        output.print_json([_data(gpu) for gpu in found])
        return
    if not found:
        output.show("the driver knows no GPU")
    for gpu in found:
        _show(gpu)


def _simulated(text: str) -> dict[str, int]:
    try:
        return gpu_counts(text)
    except ValueError as exc:
        raise typer.BadParameter(f"--simulate: {exc}") from exc


def _fits(gpu: HostGpu) -> list[Placement]:
    """Return every placement that is free now, the largest profiles first."""
    free = [
        Placement(start, profile.key)
        for profile in gpu.product.profiles.values()
        for start in profile.starts
        if gpu.mig and not illegality(gpu.product, [*gpu.geometry, Placement(start, profile.key)])
    ]
    return sorted(free, key=lambda it: (-gpu.product.profiles[it.profile].memory_slices, it.profile, it.start))


def _data(gpu: HostGpu) -> dict[str, Any]:
    profiles = gpu.product.profiles
    return {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "compute_capability": gpu.product.compute_capability,
        "memory_bytes": max((it.memory_bytes for it in profiles.values()), default=0),
        "mig": gpu.mig,
        "mig_pending": gpu.mig_pending,
        "processes": list(gpu.processes),
        "instances": [
            {
                "id": it.id,
                "uuid": it.uuid,
                "profile": profiles[it.placement.profile].name,
                "start": it.placement.start,
                "memory_slices": it.memory_slices,
                "processes": list(it.processes),
            }
            for it in gpu.instances
        ],
        "free": [{"profile": profiles[it.profile].name, "start": it.start} for it in _fits(gpu)],
    }


def _show(gpu: HostGpu) -> None:
    profiles = gpu.product.profiles
    memory = max(it.memory_bytes for it in profiles.values()) / _GIB
    mode = "whole"
    if gpu.mig:
        mode = "MIG"
    elif gpu.mig_pending:
        mode = "whole; MIG after its next reset"
    output.show(f"{gpu.name} {gpu.uuid}: compute capability {gpu.product.compute_capability}, {memory:.0f} GiB, {mode}")
    rows = [
        (
            str(it.placement.start),
            str(it.memory_slices),
            profiles[it.placement.profile].name,
            it.uuid or "no compute instance",
            ", ".join(map(str, it.processes)),
        )
        for it in gpu.instances
    ]
    if rows:
        output.show(output.table([">start", ">slices", "profile", "device", "processes"], rows))
    if gpu.mig:
        free = ", ".join(f"{profiles[it.profile].name}@{it.start}" for it in _fits(gpu)) or "nothing"
        output.show(f"  still fits: {free}")
