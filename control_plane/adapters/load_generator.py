"""Closed-loop load on one model over gRPC, in a process of its own: so that neither side's Python slows the other.

A script of the standard library and gRPC alone, run by `measured_server`: a JSON plan and ready-made request bytes on
standard input, a JSON report on standard output. Answers are not decoded. It ends when its standard input does, so it
never outlives the one who asked.
"""

import asyncio
import json
import os
import resource
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from itertools import count

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_WORKERS_PER_CHANNEL = 4
_AFTER_FAILURE_S = 0.05
_STDIN = 0
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Send to `address` (`host:port`) for `seconds` after `warm_up_s`; a request may take `deadline_s`."""

    address: str
    concurrency: int
    seconds: float
    warm_up_s: float
    deadline_s: float


@dataclass(slots=True)
class LoadReport:
    """What came back after the warm-up, over `seconds`; `cpu_s` is what this process used in that time."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    reason: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0


async def run_load(plan: LoadPlan, requests: list[bytes]) -> LoadReport:
    """Send `requests` in turn, and count what is answered after the warm-up, whenever it was sent.

    What is answered after the last second does not count, since the load falls off then; unless requests take so long
    that not every worker had an answer by that time: then all of them count, over the time they took.
    """
    channels = [
        grpc.aio.insecure_channel(plan.address, options=_OPTIONS)
        for _ in range(-(-plan.concurrency // _WORKERS_PER_CHANNEL))
    ]
    report = LoadReport()
    numbers = count()
    answered: list[tuple[float, float]] = []
    begin = time.perf_counter() + plan.warm_up_s
    end = begin + plan.seconds
    cpu_before = [0.0]

    async def worker(number: int) -> None:
        call = channels[number // _WORKERS_PER_CHANNEL].unary_unary(METHOD)
        seen = 0
        while (sent := time.perf_counter()) < end or not seen:
            try:
                await call(requests[next(numbers) % len(requests)], timeout=plan.deadline_s)
            except grpc.aio.AioRpcError as exc:
                if time.perf_counter() >= begin:
                    seen += 1
                    report.failed += 1
                    report.reason = report.reason or f"{exc.code().name}: {exc.details()}"
                await asyncio.sleep(_AFTER_FAILURE_S)
            else:
                if (now := time.perf_counter()) >= begin:
                    seen += 1
                    answered.append((now, round((now - sent) * 1000, 4)))

    async def mark_cpu() -> None:
        await asyncio.sleep(plan.warm_up_s)
        cpu_before[0] = _cpu_s()

    await asyncio.gather(mark_cpu(), *(worker(number) for number in range(plan.concurrency)))
    elapsed, cpu_s = time.perf_counter() - begin, _cpu_s() - cpu_before[0]
    await asyncio.gather(*(channel.close() for channel in channels))
    in_time = [latency for at, latency in answered if at <= end]
    enough = len(in_time) >= plan.concurrency
    report.latencies_ms = in_time if enough else [latency for _, latency in answered]
    report.seconds = plan.seconds if enough else elapsed
    report.cpu_s = cpu_s / elapsed * report.seconds
    return report


def frames(plan: LoadPlan, requests: list[bytes]) -> list[bytes]:
    """Return what to write to the script's standard input: lengths of 8 bytes, each before its part."""
    parts = [json.dumps({**asdict(plan), "requests": len(requests)}).encode(), *requests]
    return [piece for part in parts for piece in (len(part).to_bytes(8, "little"), part)]


def _read_frame() -> bytes:
    return _read(int.from_bytes(_read(8), "little"))


def _read(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(_STDIN, min(size, 1 << 20))
        if not part:
            raise SystemExit("the load generator's input ended early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _end_with_stdin() -> None:
    os.read(_STDIN, 1)  # nothing more comes: this returns when the one who asked has closed it, or is dead
    os._exit(1)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Read the plan, carry it out, print the report."""
    data = json.loads(_read_frame())
    requests = [_read_frame() for _ in range(data.pop("requests"))]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    report = asyncio.run(run_load(LoadPlan(**data), requests))
    sys.stdout.write(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
