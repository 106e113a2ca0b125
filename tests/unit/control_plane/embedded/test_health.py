"""Probing a server's health over a plain connection."""

import asyncio
from collections.abc import Awaitable, Callable

from control_plane.embedded.health import LIVE, is_up, status_of, until_hung
from control_plane.embedded.spec import Supervision
from control_plane.state import Endpoints


async def with_answers(answers: Callable[[bytes], bytes | None], scenario: Callable[[str], Awaitable[None]]) -> None:
    """Serve HTTP answers (None: silence) on a loopback port while `scenario` runs."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        answer = answers(await reader.readline())
        if answer is not None:
            writer.write(answer)
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await scenario(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for writer in writers:
            writer.transport.abort()


def test_the_status_is_read() -> None:
    async def scenario(endpoint: str) -> None:
        assert await status_of(endpoint, LIVE, 5) == 503

    asyncio.run(with_answers(lambda _: b"HTTP/1.1 503 Service Unavailable\r\n\r\n", scenario))


def test_silence_garbage_and_refusal_are_no_answer() -> None:
    async def scenario(endpoint: str) -> None:
        assert await status_of(endpoint, LIVE, 0.05) is None

    asyncio.run(with_answers(lambda _: None, scenario))
    asyncio.run(with_answers(lambda _: b"what?\r\n", scenario))
    asyncio.run(with_answers(lambda _: b"", scenario))
    assert asyncio.run(status_of("127.0.0.1:1", LIVE, 1)) is None


def test_up_means_ready_and_metrics_too() -> None:
    async def scenario(endpoint: str) -> None:
        assert not await is_up(Endpoints(http=endpoint, grpc=endpoint, metrics="127.0.0.1:1"), 1)
        assert await is_up(Endpoints(http=endpoint, grpc=endpoint, metrics=endpoint), 1)

    asyncio.run(with_answers(lambda _: b"HTTP/1.1 200 OK\r\n\r\n", scenario))


def test_hung_is_two_failures_in_a_row_and_the_whole_deadline() -> None:
    times = Supervision(health_interval_s=0.01, probe_deadline_s=0.05, hang_after_s=0.2)
    told: list[float] = []
    script = iter([True, False, True])  # answers once more after one failure, then never again

    async def scenario(endpoint: str) -> None:
        reason = await until_hung(Endpoints(http=endpoint, grpc=endpoint, metrics=endpoint), times, told.append)
        assert "did not answer its health check" in reason

    asyncio.run(with_answers(lambda _: b"HTTP/1.1 200 OK\r\n\r\n" if next(script, False) else None, scenario))
    assert told[0] == 0.0
    assert told[1] > 0.0
    assert told[2] == 0.0
    assert all(silent > 0.0 for silent in told[3:])
    assert len(told) >= 4
