"""Closed-loop load from a process of its own: N workers, each sends its next request when its last was answered.

Requests are serialised beforehand and sent over one gRPC channel per four workers, so that the client costs as little
of the machine as Python allows; its own CPU time is in the report. Run by the benches as
`python -m tests.bench.load_generator`, with a JSON plan on standard input and a JSON report on standard output.
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from tests.percentiles import percentile

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CALL_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to send: `texts` in turn to `model` at `address` (`host:port`), for `seconds` after `warm_up_s`."""

    address: str
    model: str
    texts: list[str]
    concurrency: int
    seconds: float
    warm_up_s: float = 1.0
    input_name: str = "text"


@dataclass(slots=True)
class LoadReport:
    """What came back. Latencies in milliseconds, CPU time of this process in seconds."""

    completed: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


def request_bytes(model: str, input_name: str, text: str) -> bytes:
    """Return a serialised ModelInferRequest with one text."""
    raw = text.encode()
    request: Any = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add()
    tensor.name, tensor.datatype = input_name, "BYTES"
    tensor.shape.extend([1, 1])
    request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
    data: bytes = request.SerializeToString()
    return data


async def run_load(plan: LoadPlan) -> LoadReport:
    """Send the load and return what came back."""
    payloads = [request_bytes(plan.model, plan.input_name, text) for text in plan.texts]
    channels = [
        grpc.aio.insecure_channel(plan.address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range((plan.concurrency + 3) // 4)
    ]
    latencies: list[float] = []
    report = LoadReport()
    begin = time.perf_counter() + plan.warm_up_s
    end = begin + plan.seconds
    cpu = [0.0]

    async def worker(number: int) -> None:
        call = channels[number // 4].unary_unary(_METHOD)
        position = number * 31
        while (now := time.perf_counter()) < end:
            try:
                await call(payloads[position % len(payloads)], timeout=_CALL_DEADLINE_S)
            except grpc.aio.AioRpcError as exc:
                report.failures.append(f"{exc.code().name}: {exc.details()}")
            else:
                if now >= begin:
                    latencies.append((time.perf_counter() - now) * 1000)
            position += plan.concurrency

    async def mark_cpu() -> None:
        await asyncio.sleep(plan.warm_up_s)
        cpu[0] = _cpu_s()

    await asyncio.gather(mark_cpu(), *(worker(number) for number in range(plan.concurrency)))
    report.seconds, report.cpu_s = time.perf_counter() - begin, _cpu_s() - cpu[0]
    await asyncio.gather(*(channel.close() for channel in channels))
    report.completed, report.rate = len(latencies), len(latencies) / report.seconds
    if latencies:
        report.p50_ms, report.p99_ms = percentile(latencies, 50), percentile(latencies, 99)
        report.max_ms = float(np.max(latencies))
    return report


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(asyncio.run(run_load(LoadPlan(**json.load(sys.stdin)))))))
