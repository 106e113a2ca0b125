"""Kills and hangs of every process around an embedded tritonserver: it comes back, or all of it is gone."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from control_plane.embedded import EmbeddedFleet, EmbeddedServer, Ownership, ServerSpec, ServerState, Supervision, adopt
from control_plane.embedded.command import RUN_VARIABLE
from control_plane.embedded.reaper import processes_of
from control_plane.embedded.record import RuntimeRecord, read_record
from control_plane.errors import DeadlineExceededError, PortTakenError, ServerStartError
from control_plane.state import ServerId
from tests.embedded_triton import alive_of, infer, load, record_of, seconds_until, write_model, zombies_of_this_process

ROOT = Path(__file__).parents[2]
QUICK = Supervision(health_interval_s=0.2, probe_deadline_s=1.0, hang_after_s=3.0)
GONE_WITHIN_S = 5.0  # 0.1 to 0.3 s were measured; the rest is for a loaded machine

FLEET_SCRIPT = """\
import asyncio, signal, sys
from pathlib import Path
from control_plane.embedded import EmbeddedFleet, Ownership, ServerSpec
from control_plane.state import ServerId
from tests.embedded_triton import load

async def main(repository, runtime, ownership, graceful):
    spec = ServerSpec(ServerId("a"), Path(repository), ownership=Ownership(ownership))
    if graceful == "graceful":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with EmbeddedFleet([spec], Path(runtime) if runtime else None) as fleet:
        assert (await asyncio.to_thread(load, fleet.servers()[0].server, "echo"))[0] == 200
        print(fleet.servers()[0].record_path, flush=True)
        await asyncio.sleep(1000)

try:
    asyncio.run(main(*sys.argv[1:]))
except asyncio.CancelledError:
    pass
"""


@contextmanager
def supervised_elsewhere(
    folder: Path, ownership: Ownership, *, graceful: bool = True, temporary: bool = False
) -> Iterator[tuple[subprocess.Popen[str], RuntimeRecord]]:
    """Run a fleet in a process of its own, with a model loaded that has left a child in another session."""
    write_model(folder / "repository", spawns_child=True)
    script = folder / "fleet.py"
    script.write_text(FLEET_SCRIPT)
    argv = [
        sys.executable,
        str(script),
        str(folder / "repository"),
        "" if temporary else str(folder / "run"),
        ownership,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv.append("graceful" if graceful else "default")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as supervisor:
        try:
            assert supervisor.stdout is not None
            record = read_record(Path(supervisor.stdout.readline().strip()))
            assert record is not None
            mark = f"{RUN_VARIABLE}={record.run}"
            # The server, the stub and the model's child, whose environment shows a moment after it was spawned.
            seconds_until(lambda: len(list(processes_of(mark))) >= 3, GONE_WITHIN_S)
            yield supervisor, record
        finally:
            supervisor.kill()


def run_with_model(
    folder: Path, scenario: Callable[[EmbeddedServer, RuntimeRecord], Awaitable[None]], times: Supervision | None = None
) -> None:
    """Run `scenario` on a server with a loaded model, and see that nothing is left of its first life afterwards."""
    write_model(folder / "repository", spawns_child=True)

    async def main() -> RuntimeRecord:
        async with EmbeddedFleet([ServerSpec(ServerId("a"), folder / "repository")], supervision=times) as fleet:
            server = fleet.servers()[0]
            assert (await asyncio.to_thread(load, server.server, "echo"))[0] == 200
            record = record_of(server)
            await scenario(server, record)
        return record

    record = asyncio.run(main())
    assert alive_of(record) == []
    assert zombies_of_this_process() == []


async def restarted(server: EmbeddedServer, times: int) -> None:
    """Wait until the server was started again this many times."""
    changed = asyncio.Event()
    forget = server.listen(lambda _: changed.set())
    async with asyncio.timeout(60):
        while server.restarts < times:
            changed.clear()
            await changed.wait()
    forget()


async def came_back(server: EmbeddedServer, before: RuntimeRecord) -> None:
    """Wait for the second life: same address and key, none of the first left, usable."""
    address = server.server
    await restarted(server, 1)
    await server.wait_ready(deadline_s=30)
    assert server.restarts == 1
    assert server.server == address
    assert alive_of(before) == []
    assert (await asyncio.to_thread(load, server.server, "echo"))[0] == 200
    assert (await asyncio.to_thread(infer, server.server, "echo"))[0] == 200


def test_a_killed_server_comes_back(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        states: list[ServerState] = []
        server.listen(lambda change: states.append(change.state))
        os.kill(record.server_pid, signal.SIGKILL)
        await came_back(server, record)
        since = [it for it in states if it is not ServerState.UNHEALTHY]  # a health check may notice it first
        assert since[:3] == [ServerState.BACKING_OFF, ServerState.STARTING, ServerState.READY]

    run_with_model(tmp_path, scenario)


def test_a_hung_server_is_noticed_and_comes_back(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        reasons: list[str] = []
        server.listen(lambda change: reasons.append(f"{change.state}: {change.reason}"))
        os.kill(record.server_pid, signal.SIGSTOP)
        await came_back(server, record)
        assert any(reason.startswith("unhealthy") for reason in reasons), reasons
        assert any("did not answer its health check" in reason for reason in reasons), reasons

    run_with_model(tmp_path, scenario, QUICK)


def test_a_killed_reaper_takes_the_server_with_it_and_it_comes_back(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        os.kill(record.reaper_pid, signal.SIGKILL)
        await came_back(server, record)

    run_with_model(tmp_path, scenario)


def test_a_stopped_reaper_is_killed_at_the_end(tmp_path: Path) -> None:
    async def scenario(_: EmbeddedServer, record: RuntimeRecord) -> None:
        os.kill(record.reaper_pid, signal.SIGSTOP)

    run_with_model(tmp_path, scenario, Supervision(stop_deadline_s=0.5))


def test_a_restart_that_was_asked_for(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        await server.restart("A load hangs.")
        await came_back(server, record)

    run_with_model(tmp_path, scenario)


def test_a_stop_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.1)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert alive_of(record) == []
        assert server.state is ServerState.STOPPED

    run_with_model(tmp_path, scenario)


def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()

    async def scenario() -> None:
        server = EmbeddedServer(ServerSpec(ServerId("a"), tmp_path / "repository"), tmp_path / "run")
        starting = asyncio.create_task(server.start())
        await asyncio.to_thread(seconds_until, server.record_path.exists, 20)
        record = record_of(server)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert alive_of(record) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_supervisor_takes_everything_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with supervised_elsewhere(tmp_path, Ownership.BOUND, graceful=False) as (supervisor, record):
        supervisor.send_signal(number)
        seconds_until(lambda: alive_of(record) == [], GONE_WITHIN_S)
        assert supervisor.wait(10) == -number
        left = sorted(path.name for path in (tmp_path / "run" / "a").iterdir())
        assert left == ["supervisor.lock", "tritonserver.log"]


def test_a_killed_supervisors_temporary_folder_goes_too(tmp_path: Path) -> None:
    with supervised_elsewhere(tmp_path, Ownership.BOUND, temporary=True) as (supervisor, record):
        folder = Path(psutil.Process(record.server_pid).environ()["TMPDIR"]).parents[1]
        assert folder.name.startswith("tritonfleet-")
        supervisor.kill()
        seconds_until(lambda: alive_of(record) == [] and not folder.exists(), GONE_WITHIN_S)


def test_sigterm_to_an_application_that_cancels_its_main_task(tmp_path: Path) -> None:
    with supervised_elsewhere(tmp_path, Ownership.BOUND) as (supervisor, record):
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 0
        assert alive_of(record) == []


def test_supervisor_and_reaper_killed_together_leave_what_the_next_start_clears(tmp_path: Path) -> None:
    with supervised_elsewhere(tmp_path, Ownership.BOUND) as (supervisor, record):
        os.kill(record.reaper_pid, signal.SIGSTOP)  # so that it cannot clear up before it dies
        supervisor.kill()
        supervisor.wait(10)
        os.kill(record.reaper_pid, signal.SIGKILL)
        seconds_until(lambda: not psutil.pid_exists(record.server_pid), GONE_WITHIN_S)

        async def next_start() -> None:
            async with EmbeddedFleet([ServerSpec(ServerId("a"), tmp_path / "repository")], tmp_path / "run"):
                assert alive_of(record) == []

        asyncio.run(next_start())


def test_an_adoptable_server_outlives_its_supervisor_and_is_adopted(tmp_path: Path) -> None:
    with supervised_elsewhere(tmp_path, Ownership.ADOPTABLE) as (supervisor, record):
        path = tmp_path / "run" / "a" / "server.json"

        async def next_supervisor() -> None:
            with pytest.raises(ServerStartError, match="supervised by another process"):
                await adopt(path)
            supervisor.kill()
            supervisor.wait(10)
            server = await adopt(path)
            try:
                assert server.server.endpoints == record.endpoints
                assert (await asyncio.to_thread(infer, server.server, "echo"))[0] == 200  # the model stayed loaded
                os.kill(record.server_pid, signal.SIGKILL)
                await came_back(server, record)
                second = record_of(server)
            finally:
                await server.stop()
            assert alive_of(second) == []

        asyncio.run(next_supervisor())
        assert alive_of(record) == []
        with pytest.raises(ServerStartError, match="no record"):
            asyncio.run(_adopt(path))


async def _adopt(path: Path) -> None:
    await adopt(path)


def test_a_fleet_leaves_adoptable_servers_running_and_finds_them_again(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    spec = ServerSpec(ServerId("a"), tmp_path / "repository", ownership=Ownership.ADOPTABLE)

    async def supervise(*, last: bool) -> RuntimeRecord:
        async with EmbeddedFleet([spec], tmp_path / "run") as fleet:
            if last:
                await fleet.servers()[0].stop()
                return first
            return record_of(fleet.servers()[0])

    first = asyncio.run(supervise(last=False))
    assert first.is_running()
    assert asyncio.run(supervise(last=True)) == first
    assert alive_of(first) == []


def test_a_fixed_port_that_is_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]

        async def start() -> None:
            async with EmbeddedFleet([ServerSpec(ServerId("a"), tmp_path / "repository", grpc_port=port)]):
                pytest.fail("it started")

        with pytest.raises(PortTakenError, match=f"Port {port} on 127.0.0.1 is in use"):
            asyncio.run(start())


def test_tritons_own_bind_error_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        # Given past the check, as if it had been taken just after it.
        spec = ServerSpec(ServerId("a"), tmp_path / "repository", http_port=None, extra_args=(f"--grpc-port={port}",))

        async def start() -> None:
            async with EmbeddedFleet([spec], supervision=Supervision(port_attempts=2)):
                pytest.fail("it started")

        with pytest.raises(PortTakenError, match=f"Port {port} "):
            asyncio.run(start())


def test_a_server_that_ends_before_it_is_ready_tells_why(tmp_path: Path) -> None:
    spec = ServerSpec(ServerId("a"), tmp_path / "nowhere")

    async def start() -> None:
        async with EmbeddedFleet([spec], tmp_path / "run"):
            pytest.fail("it started")

    with pytest.raises(ServerStartError, match="ended with status 1 before it was ready") as caught:
        asyncio.run(start())
    assert "failed to stat" in str(caught.value)
    assert zombies_of_this_process() == []


def test_a_server_that_cannot_come_back_keeps_trying_and_says_so(tmp_path: Path) -> None:
    async def scenario(server: EmbeddedServer, record: RuntimeRecord) -> None:
        (tmp_path / "repository").rename(tmp_path / "elsewhere")
        os.kill(record.server_pid, signal.SIGKILL)
        await restarted(server, 2)
        with pytest.raises(DeadlineExceededError, match="not ready"):
            await server.wait_ready(deadline_s=0.3)
        (tmp_path / "elsewhere").rename(tmp_path / "repository")
        await server.wait_ready(deadline_s=30)

    run_with_model(tmp_path, scenario)
