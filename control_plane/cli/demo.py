"""`tritonfleet demo`: the main job on this machine, start to end, through the same doors that users have.

Builds the packages, starts a real Triton and the control plane, deploys the ensemble through REST, asks it with
unchanged `tritonclient` programs over both protocols, measures, and stops everything.
"""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import numpy as np
import numpy.typing as npt
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import typer

from builders.pipeline import BuildResult
from control_plane.cli import output
from control_plane.cli.build import Repository, build_model
from control_plane.cli.completion import DEFAULT_REPOSITORY
from control_plane.errors import LoadFailedError, PermanentError
from control_plane.settings import Settings

if TYPE_CHECKING:
    from control_plane.bootstrap import RunningControlPlane

MODEL = "text_embedding"
CONCURRENCY = 8
DEADLINE_S = 60.0
SENTENCES = (
    "How do I reset my password?",
    "I forgot my login.",
    "The market fell on Monday.",
    "Shares dropped as rates rose.",
    "A cat sleeps on the sofa.",
    "The kitten naps on the couch.",
    "Leaves turn light into sugar.",
    "Plants make food from sunlight.",
    "The train to Paris is at nine.",
    "When does the Paris train go?",
    "She plays the violin.",
    "He is a cellist in an orchestra.",
)

Embeddings = npt.NDArray[np.float32]


class WrongAnswerError(PermanentError):
    """The two protocols do not agree: the demo shows no figures then."""


@dataclass(slots=True)
class Measured:
    """What the demo's clients saw. Latencies in milliseconds."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        """Latency below which `q` percent of the requests were."""
        return float(np.percentile(self.latencies, q, method="higher"))


def command(
    repository: Repository = DEFAULT_REPOSITORY,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="How long to measure.")] = 5.0,
    as_json: output.AsJson = False,
) -> None:
    """Show the main job on this machine: build, serve, deploy, ask, measure, stop.

    Needs no GPU and changes nothing but the versions in the model repository. Takes about a minute the first time.

    Example: tritonfleet demo --seconds 2
    """
    results = build_model(repository, MODEL)
    with tempfile.TemporaryDirectory(prefix="tritonfleet-demo-") as folder:
        settings = _settings(repository, Path(folder) / "state.db")
        report = asyncio.run(_run(settings, seconds))
    report["built"] = [
        {"package": it.plan.package, "version": it.plan.version, "bytes": it.manifest.total_bytes}
        for it in results
        if it.manifest is not None
    ]
    if as_json:
        output.print_json(report)
    else:
        _print_report(report, results)


def _settings(repository: Path, state: Path) -> Settings:
    """Return the demo's own settings: those of `serve` in the environment are not meant for it."""
    return Settings(
        host="127.0.0.1",
        port=0,
        token=None,
        model_repository=repository,
        state_path=state,
        servers=1,
        load_deadline_s=300,
        reconcile_interval_s=5,
        triton_http_port=None,
        triton_grpc_port=None,
        triton_metrics_port=None,
    )


async def _run(settings: Settings, seconds: float) -> dict[str, Any]:
    # Not at the top: it takes more than a second, which every other command would wait for too.
    from control_plane.bootstrap import running_control_plane  # noqa: PLC0415

    with output.Spinner("starting tritonserver and the control plane") as spinner:
        async with running_control_plane(settings) as running:
            spinner.update(f"deploying {MODEL} through {running.url}/v1/deployments")
            deployment, deploy_s = await _deploy(running)
            endpoints = running.fleet.servers()[0].server.endpoints
            spinner.update("asking over gRPC and HTTP")
            over_grpc = await asyncio.to_thread(embed, tritonclient.grpc, endpoints.grpc, SENTENCES)
            over_http = await asyncio.to_thread(embed, tritonclient.http, endpoints.http, SENTENCES)
            difference = float(np.abs(over_grpc - over_http).max())
            if not difference < 1e-5:  # noqa: PLR2004 - FP32 noise between batches; also catches NaN
                raise WrongAnswerError(f"gRPC and HTTP differ by {difference:.2e}")
            spinner.update(f"measuring for {seconds:g} s at concurrency {CONCURRENCY}")
            measured = await _measure(endpoints.grpc, seconds)
            spinner.update("stopping everything")
    return {
        "deployment": {"name": deployment["name"], "pins": deployment["pins"], "seconds": round(deploy_s, 2)},
        "endpoints": {"control_plane": running.url, "http": endpoints.http, "grpc": endpoints.grpc},
        "neighbours": neighbours(over_grpc),
        "grpc_http_difference": difference,
        "concurrency": CONCURRENCY,
        "requests": len(measured.latencies),
        "requests_per_s": round(measured.rate, 1),
        "p50_ms": round(measured.percentile(50), 1),
        "p99_ms": round(measured.percentile(99), 1),
    }


async def _deploy(running: "RunningControlPlane") -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    async with httpx.AsyncClient(base_url=running.url, timeout=330, trust_env=False) as client:
        response = await client.post("/v1/deployments?wait=300", json={"name": "demo", "model": MODEL})
        body: dict[str, Any] = response.json()
    if not response.is_success:
        raise LoadFailedError(f"{body['title']}: {' '.join(body['causes'])}")
    if body["status"]["state"] != "serving":
        reasons = [*body["status"]["reasons"], *(it["reason"] for it in body["status"]["servers"])]
        raise LoadFailedError(f"{MODEL} is {body['status']['state']}: {' '.join(filter(None, reasons))}")
    return body, time.monotonic() - started


def embed(library: Any, address: str, texts: tuple[str, ...]) -> Embeddings:  # noqa: ANN401 - tritonclient.grpc or .http
    """Return FP32 [texts, 384] from one request, as any tritonclient program would send it."""
    deadline = {"client_timeout": DEADLINE_S} if library is tritonclient.grpc else {}  # HTTP has 60 s by itself
    with library.InferenceServerClient(address) as client:
        tensor = library.InferInput("text", [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=object))
        result: Embeddings = client.infer(MODEL, [tensor], **deadline).as_numpy("embedding")
    return result


def neighbours(embeddings: Embeddings) -> list[dict[str, Any]]:
    """Return each sentence's nearest other one with its cosine, pairs that name each other once, best first."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -1)
    nearest = scores.argmax(1)
    rows = [
        {"sentence": SENTENCES[one], "nearest": SENTENCES[other], "cosine": round(float(scores[one, other]), 3)}
        for one, other in enumerate(nearest)
        if not (nearest[other] == one and other < one)
    ]
    return sorted(rows, key=lambda row: -row["cosine"])


async def _measure(address: str, seconds: float) -> Measured:
    """Ask with `CONCURRENCY` closed-loop clients, one sentence a request."""
    measured = Measured()
    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
        end = time.monotonic() + seconds

        async def worker(number: int) -> None:
            while (now := time.monotonic()) < end:
                tensor = tritonclient.grpc.InferInput("text", [1, 1], "BYTES")
                text = SENTENCES[(number + len(measured.latencies)) % len(SENTENCES)]
                tensor.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
                await client.infer(MODEL, [tensor], client_timeout=DEADLINE_S)
                measured.latencies.append((time.monotonic() - now) * 1000)

        started = time.monotonic()
        await asyncio.gather(*(worker(number) for number in range(CONCURRENCY)))
        measured.seconds = time.monotonic() - started
    return measured


def _print_report(report: dict[str, Any], results: list[BuildResult]) -> None:
    rows = [
        (
            f"{result.plan.package}:{result.plan.version}",
            output.size(result.manifest.total_bytes),
            "built now" if result.built else "up to date",
            _parity(result),
        )
        for result in results
        if result.manifest is not None
    ]
    output.show(output.table(["built", ">size", "", "parity with PyTorch"], rows))
    endpoints = report["endpoints"]
    output.show("")
    output.show(output.labelled("served ", " + ".join(pin["model"] for pin in report["deployment"]["pins"])))
    output.show(f"        on a tritonserver, HTTP {endpoints['http']}, gRPC {endpoints['grpc']},")
    output.show(f"        deployed through REST in {report['deployment']['seconds']} s\n")
    pairs = [(f"{row['cosine']:.3f}", row["sentence"], row["nearest"]) for row in report["neighbours"]]
    output.show(output.table([">cosine", "sentence", "its nearest of the other 11"], pairs))
    speed = (
        f"{report['requests_per_s']} requests/s, p50 {report['p50_ms']} ms, "
        f"p99 {report['p99_ms']} ms at concurrency {report['concurrency']}"
    )
    check = f"gRPC and HTTP agree to {report['grpc_http_difference']:.1e}; everything is stopped"
    output.show("")
    for label, text in (("speed", speed), ("check", check), ("next", "make serve, and in another terminal:")):
        output.show(output.labelled(f"{label:<7}", text))
    output.show("        .venv/bin/tritonfleet deploy text_embedding")


def _parity(result: BuildResult) -> str:
    targets = {} if result.manifest is None else result.manifest.targets
    proven = [(name, target.parity) for name, target in targets.items() if target.parity is not None]
    return "; ".join(
        f"{name.removeprefix('onnxruntime-cpu-')}: cosine at least {parity.min_cosine:.6f}" for name, parity in proven
    )
