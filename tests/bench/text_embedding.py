"""`python -m tests.bench.text_embedding`: the ensemble against its limit, and the ways of batching mixed lengths.

Everything in one run, side by side, on the same texts (`tests/data/sentences.jsonl`), the same cores, and load from a
process of its own. The server has all cores but the last where there are more than two, else all; `--pin` splits two
cores between server and client. Prints sentences per second, p99, batch sizes reached, and each ratio to the limit.
"""

import argparse
import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tritonclient.grpc.aio
from rich.console import Console
from rich.table import Table

from builders.sources.stage import stage_files
from control_plane.embedded import EmbeddedFleet, ServerSpec
from control_plane.state import Server, ServerId
from tests.bench.common_ground import (
    ENCODER,
    GRAPH,
    MEMBERS,
    MODEL,
    REPOSITORY,
    TOKENIZER,
    admin,
    build_packages,
    corpus,
    encoder_checkpoint,
    newest,
    run_module,
)
from tests.bench.graphs import padding_graph, plain_graph, save
from tests.bench.in_process_limit import Limit, LimitPlan
from tests.bench.load_generator import LoadPlan, LoadReport

CONCURRENCIES = (1, 8, 32)
BATCHING = "dynamic_batching { }"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to serve: the published packages with `change` made to a copy of them."""

    name: str
    change: Callable[[Path], None]
    batcher: str = ENCODER


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. `mean_batch` and `largest_batch` are of the model that batches."""

    variant: str
    concurrency: int
    report: LoadReport
    mean_batch: float
    largest_batch: int


def unbatch(repository: Path, model: str) -> None:
    """Take dynamic batching out of a package's config; where there is none is an error: no variant is the base."""
    path = repository / model / "config.pbtxt"
    text, found = re.subn(r"\bdynamic_batching\s*\{\s*\}", "", path.read_text())
    if found != 1:
        raise ValueError(f"{path} does not hold {BATCHING!r}")
    path.write_text(text)


def put_stage(repository: Path, model: str, stage: str) -> None:
    """Have `model` served by another stage."""
    version = newest(repository / model)
    for name, content in stage_files(stage).items():
        path = version / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def variants(graphs: dict[str, Path]) -> list[Variant]:
    """Return what is measured: the ensemble as published, one request per call, and the other ways of batching."""

    def put_graph(repository: Path, name: str) -> None:
        target = newest(repository / ENCODER) / GRAPH
        target.unlink()
        shutil.copyfile(graphs[name], target)

    def fixed(repository: Path) -> None:
        put_graph(repository, "padding")
        put_stage(repository, TOKENIZER, "tests.bench.stages.fixed_length:FixedLengthTokenizer")

    def before(repository: Path) -> None:
        shutil.copyfile(graphs["plain"], newest(repository / TOKENIZER) / "model.onnx")
        put_stage(repository, TOKENIZER, "tests.bench.stages.embedder:Embedder")
        shutil.rmtree(repository / MODEL)
        (repository / TOKENIZER).rename(repository / MODEL)
        (repository / MODEL / "config.pbtxt").write_text(
            f'name: "{MODEL}" backend: "python" max_batch_size: 32 {BATCHING}\n'
            'input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
            'output [ { name: "embedding" data_type: TYPE_FP32 dims: [ 384 ] } ]\n'
            "instance_group [ { kind: KIND_CPU count: 2 } ]\n"
            'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'
        )

    def unbatched(repository: Path) -> None:
        for model in (TOKENIZER, "text_guard", ENCODER):
            unbatch(repository, model)

    return [
        Variant("ensemble as published (ragged, padding taken out)", lambda _repository: None),
        Variant("one request per call (no dynamic batching)", unbatched),
        Variant("ragged, padded inside the graph", lambda repository: put_graph(repository, "padding")),
        Variant("one padded length (256 tokens)", fixed),
        Variant("batched before the encoder (one Python model)", before, MODEL),
    ]


async def measure(
    variant: Variant, repository: Path, cpus: frozenset[int], client_cpus: frozenset[int], plan: LoadPlan
) -> list[Row]:
    """Serve one variant and load it at each concurrency."""
    rows = []
    async with EmbeddedFleet([ServerSpec(ServerId("bench"), repository, cpus=cpus)]) as fleet:
        server = fleet.servers()[0].server
        async with tritonclient.grpc.aio.InferenceServerClient(server.endpoints.grpc) as client:
            for model in MEMBERS:
                if (repository / model).is_dir():
                    await client.load_model(model, headers=admin(server), client_timeout=120)
            for concurrency in CONCURRENCIES:
                before = await _batches(client, variant.batcher, server)
                load = LoadPlan(**{**asdict(plan), "address": server.endpoints.grpc, "concurrency": concurrency})
                report = LoadReport(**await asyncio.to_thread(run_module, "load_generator", asdict(load), client_cpus))
                if report.failures:
                    raise RuntimeError(f"{variant.name}: {len(report.failures)} failed: {report.failures[0]}")
                after = await _batches(client, variant.batcher, server)
                counts = {size: after[size] - before.get(size, 0) for size in after}
                calls = sum(counts.values())
                mean = sum(size * count for size, count in counts.items()) / max(calls, 1)
                rows.append(Row(variant.name, concurrency, report, mean, max(s for s, c in counts.items() if c)))
    return rows


async def _batches(client: Any, model: str, server: Server) -> dict[int, int]:
    """Return `{batch size: executions}` since the model was loaded."""
    statistics = await client.get_inference_statistics(model, headers=admin(server))
    return {entry.batch_size: entry.compute_infer.count for entry in statistics.model_stats[0].batch_stats}


def cores(*, pin: bool) -> tuple[frozenset[int], frozenset[int]]:
    """Return the server's and the client's cores."""
    mine = sorted(os.sched_getaffinity(0))
    if pin or len(mine) > 2:
        return frozenset(mine[:-1]), frozenset(mine[-1:])
    return frozenset(mine), frozenset(mine)


def print_table(limit: Limit, rows: Sequence[Row]) -> None:
    """Print every row with its ratio to the limit."""
    console = Console(width=150, highlight=False)
    console.print(
        f"limit in process: {limit.rate:.1f} sentences/s ({limit.graph} graph, sorted by length, batch "
        f"{limit.batch_size}, {limit.threads} threads, tokenizing included)"
    )
    table = Table(box=None)
    headings = ("variant", "concurrency", "sentences/s", "of limit", "p50 ms", "p99 ms", "mean batch", "largest")
    for heading in (*headings, "client CPU %"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in rows:
        report = row.report
        table.add_row(
            row.variant,
            str(row.concurrency),
            f"{report.rate:.1f}",
            f"{report.rate / limit.rate:.0%}",
            f"{report.p50_ms:.1f}",
            f"{report.p99_ms:.1f}",
            f"{row.mean_batch:.1f}",
            str(row.largest_batch),
            f"{100 * report.cpu_s / report.seconds:.0f}",
        )
    console.print(table)


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="per measurement")
    parser.add_argument("--pin", action="store_true", help="give the client a core of its own")
    parser.add_argument("--only", type=int, default=None, help="measure the first N variants alone")
    arguments = parser.parse_args()
    server_cpus, client_cpus = cores(pin=arguments.pin)
    texts = corpus()
    build_packages()
    checkpoint = encoder_checkpoint()
    with tempfile.TemporaryDirectory(prefix="tritonfleet-bench-") as folder:
        graphs = {"packed": newest(REPOSITORY / ENCODER) / GRAPH}
        plain = plain_graph(checkpoint)
        for name, model in (("plain", plain), ("padding", padding_graph(plain))):
            graphs[name] = Path(folder) / f"{name}.onnx"
            save(model, graphs[name])
        limit_plan = LimitPlan(
            graphs={name: str(graphs[name]) for name in ("plain", "packed")},
            tokenizer=str(checkpoint.path / "tokenizer.json"),
            max_seq_length=checkpoint.max_seq_length,
            texts=texts,
            cpus=sorted(server_cpus),
        )
        limit = Limit(**run_module("in_process_limit", asdict(limit_plan), server_cpus))
        load = LoadPlan("", MODEL, texts, 1, arguments.seconds)
        rows: list[Row] = []
        for number, variant in enumerate(variants(graphs)[: arguments.only]):
            repository = Path(folder) / f"repository-{number}"
            shutil.copytree(REPOSITORY, repository)
            variant.change(repository)
            rows += asyncio.run(measure(variant, repository, server_cpus, client_cpus, load))
            shutil.rmtree(repository)
    print_table(limit, rows)


if __name__ == "__main__":
    main()
