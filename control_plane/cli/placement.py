"""`tritonfleet placement ...`: what goes where on GPUs that can be cut. `size`: how many GPUs demands need.

What concerns the GPUs of a fleet that runs is in `slices`.

The answers are made in `sizing`; here they are read, shown and drawn.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli import completion, output, slices, values
from control_plane.cli.files import write_text
from control_plane.errors import MissingExtraError
from control_plane.mig import Product, products
from control_plane.mig.drawing import Bar, Row, svg, text_line
from control_plane.sizing import Admission, Demand, Gpu, Offer, Sizing, tables
from control_plane.sizing.layout import mix_counts

placement = typer.Typer(no_args_is_help=True, help="What goes where on GPUs that can be cut into slices.")
placement.command()(slices.show)
placement.command()(slices.plan)
placement.command()(slices.apply)
placement.command()(slices.explain)
placement.command()(slices.defrag)


@placement.command()
def size(
    scenarios: Annotated[
        Path, typer.Option("--scenarios", help="CSV: scenario, model, slo_latency_ms, request_rate_per_s[, replicas].")
    ],
    profiles: Annotated[
        Path,
        typer.Option(
            "--profiles",
            help="Folder of <model>.csv: Mig instance, Batch size, Workload Number, Throughput (a process's), Latency.",
        ),
    ],
    product: Annotated[
        str, typer.Option("--product", help="The GPUs, such as a100-80gb.", autocompletion=completion.gpu_products)
    ],
    latency_part: Annotated[
        float,
        typer.Option("--latency-part", min=0.01, max=1, help="A measured latency may take this part of the objective."),
    ] = 0.45,
    any_start: Annotated[
        bool, typer.Option("--any-start", help="Place 3g wherever it is legal (default: at memory slice 4 alone).")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--scenario", help="Only this scenario. Repeatable.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=3600, help="Time for each scenario.")] = 10,
    drawing: Annotated[
        Path | None, typer.Option("--svg", help="Write a drawing of the GPUs there.", show_default=False)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Tell how few GPUs serve each scenario, cut how, with what on which slice, and the bound that proves it.

    Ends with 1 where a demand cannot be served at all.

    Example: tritonfleet placement size --scenarios scenarios.csv --profiles prof_data --product a100-80gb
    """
    try:
        from control_plane.sizing.solving import size as sized  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("Sizing needs OR-Tools: pip install 'tritonfleet[placement]'") from exc
    gpu = values.gpu_product(product)
    asked = _asked(tables.read_scenarios(scenarios), only)
    measured = tables.read_profiles(profiles, gpu)
    admission = Admission(latency_part) if any_start else tables.parva_admission(gpu, latency_part)
    found: list[tuple[str, Sizing, float]] = []
    for name, demands in asked.items():
        with output.Spinner(f"{name}: {len(demands)} demands"):
            begun = time.monotonic()
            found.append((name, sized(demands, measured, [Offer(gpu)], admission, seconds), time.monotonic() - begun))
    if drawing is not None:
        rows = [_row(gpus, gpu) for _, it, _ in found for gpus in _alike(it.gpus)]
        write_text(drawing, svg([(f"{', '.join(asked)} on {gpu.name}", rows)]))
    if as_json:
        output.print_json([_data(name, it, took) for name, it, took in found])
    else:
        for name, it, took in found:
            _show(name, it, took, gpu)
    refused = [f"{name}: {it.demand}: {it.reason}" for name, sizing, _ in found for it in sizing.refused]
    if refused:
        output.print_error("some demands cannot be served", refused, "relax their objectives, or measure more points")
        raise typer.Exit(1)


def _asked(there: dict[str, tuple[Demand, ...]], only: list[str] | None) -> dict[str, tuple[Demand, ...]]:
    unknown = [name for name in only or () if name not in there]
    if unknown:
        raise typer.BadParameter(f"there is no scenario {', '.join(unknown)}; there are {', '.join(there)}")
    return {name: demands for name, demands in there.items() if not only or name in only}


def _alike(gpus: tuple[Gpu, ...]) -> list[list[Gpu]]:
    """Group the GPUs that are cut alike and hold the same models."""
    groups: dict[tuple[object, ...], list[Gpu]] = {}
    for gpu in gpus:
        groups.setdefault((gpu.product, *((it.placement, it.model) for it in gpu.replicas)), []).append(gpu)
    return list(groups.values())


def _row(gpus: list[Gpu], product: Product) -> Row:
    """Return GPUs that are alike as one row."""
    bars = (
        Bar(it.placement, it.model, f"x{it.point.processes}" if it.point.processes > 1 else "")
        for it in gpus[0].replicas
    )
    return Row(f"{len(gpus)} x {product.name}", product, tuple(bars))


def _data(name: str, sizing: Sizing, seconds: float) -> dict[str, Any]:
    known = products()
    return {
        "scenario": name,
        "gpus": len(sizing.gpus),
        "geometries": [
            {
                "product": product,
                "count": count,
                "slices": [
                    {"profile": known[product].profiles[it.profile].name, "start": it.start} for it in placements
                ],
            }
            for (product, placements), count in mix_counts(sizing.gpus).most_common()
        ],
        "assignments": [
            {
                "gpu": number,
                "profile": known[gpu.product].profiles[it.placement.profile].name,
                "start": it.placement.start,
                "model": it.model,
                "demand": it.demand,
                "batch_size": it.point.batch_size,
                "processes": it.point.processes,
                "throughput_per_s": round(it.point.throughput, 3),
                "latency_ms": round(it.point.latency_s * 1000, 3),
                "rate_per_s": round(it.rate, 3),
            }
            for number, gpu in enumerate(sizing.gpus)
            for it in gpu.replicas
        ],
        "bound": sizing.bound,
        "gap": round(sizing.gap, 6),
        "seconds": round(seconds, 3),
        "refused": [{"demand": it.demand, "reason": it.reason} for it in sizing.refused],
    }


def _show(name: str, sizing: Sizing, seconds: float, product: Product) -> None:
    proof = (
        "proved to be the least" if sizing.gap == 0 else f"at least {sizing.bound:g} are needed, gap {sizing.gap:.2%}"
    )
    if not sizing.gpus:
        output.show(f"{name}: nothing of it can be served")
        return
    output.show(f"{name}: {len(sizing.gpus)} x {product.name}, {proof} ({seconds:.2f} s)")
    for gpus in _alike(sizing.gpus):
        output.show(f"  {len(gpus)} x {text_line(_row(gpus, product))}")
