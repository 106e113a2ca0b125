"""The parent process of one tritonserver: whatever ends, nothing of the server is left behind.

A standalone script (`python -I -S reaper.py < config.json`; standard library only, one thread), started by `launch` in
a session of its own. It is what survives when the supervisor is killed -9. Its functions that find, kill and sweep are
also called by `launch`, for the case that the reaper itself was killed.

Signals: SIGTERM ends the server gracefully, then by force after `grace_s`; SIGUSR1 kills everything at once. The exit
status is the server's, 128 + n when a signal n ended it, 127 when it could not be run.
"""

import ctypes
import json
import os
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - not a temporary file: where Triton's Python backend puts its regions
LOG_PART_HEADER = b"# tritonfleet log part "
EXIT_NOT_RUN = 127
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_END_DEADLINE_S = 5.0
_READ_BYTES = 65536
_EMPTY_LOOKS = 2


def stat_of(pid: int) -> list[str] | None:
    """Fields 3 and up of `/proc/<pid>/stat` (state, parent, group, ...), or None when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return text.rpartition(")")[2].split()


def start_time_of(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with the pid it names one process for good. None: gone."""
    stat = stat_of(pid)
    return None if stat is None or stat[0] in "ZX" else int(stat[19])


def processes_of(mark: str, reaper: int | None = None) -> Iterator[int]:
    """Living processes with `mark` (`NAME=value`) in their environment, and the children of the pid `reaper`."""
    wanted = b"\0" + mark.encode() + b"\0"
    for entry in os.listdir(PROC):  # noqa: PTH208 - Path.iterdir costs three times as much on a full /proc
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        stat = stat_of(int(entry))
        if stat is None or stat[0] in "ZX":
            continue
        if (reaper is not None and int(stat[1]) == reaper) or wanted in _environment(int(entry)):
            yield int(entry)


def _environment(pid: int) -> bytes:
    try:
        return b"\0" + (PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or another user's: not ours either way
        return b""


def kill_run(mark: str, reaper: int | None = None, deadline_s: float = _END_DEADLINE_S) -> list[int]:
    """Kill every process of a run until two looks in a row find none. Returns those still alive after `deadline_s`."""
    end = time.monotonic() + deadline_s
    empty_looks = 0
    while empty_looks < _EMPTY_LOOKS:  # a process between fork and exec can be missed by one look
        alive = list(processes_of(mark, reaper))
        for pid in alive:
            _kill_if(pid, mark, reaper)
        empty_looks = 0 if alive else empty_looks + 1
        if reaper is not None:
            reap_children()
        if alive and time.monotonic() > end:
            return alive
        time.sleep(0.01)
    return []


def _kill_if(pid: int, mark: str, reaper: int | None) -> None:
    """Kill `pid` if, once its pidfd is held, it is still the process that was meant."""
    with suppress(ProcessLookupError, PermissionError):
        held = os.pidfd_open(pid)
        try:
            stat = stat_of(pid)
            is_child = reaper is not None and stat is not None and int(stat[1]) == reaper
            if is_child or b"\0" + mark.encode() + b"\0" in _environment(pid):
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def reap_children() -> dict[int, int]:
    """Take the status of every child that has ended: pid -> wait status."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def sweep_shared_memory(prefix: str) -> int:
    """Remove the regions of one run, whose processes are all gone. The prefix is that run's alone. Returns how many."""
    regions = list(SHARED_MEMORY.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    return len(regions)


class RotatingLog:
    """The server's output on disk: `path` and one older part beside it, each at most `cap` bytes.

    Each part opens with a line that numbers it, so that a place in the log stays findable after a rotation.
    """

    def __init__(self, path: Path, cap: int) -> None:
        self._path, self._cap, self._lost = path, cap, 0
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        if self._size == 0:
            older = log_part(self._path.with_suffix(".log.1"))
            self._put(LOG_PART_HEADER + b"%d\n" % (older + 1))

    def close(self) -> None:
        """Close the newest part."""
        os.close(self._file)

    def _put(self, data: bytes) -> None:
        try:
            self._size += os.write(self._file, data)
        except OSError:  # a full disk must not stop the server; what is lost is told once there is room
            self._lost += len(data)

    def write(self, data: bytes) -> None:
        """Append, turning to a new part where `data` does not fit."""
        if self._size + len(data) > self._cap:
            self.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._open()
        if self._lost:
            lost, self._lost = self._lost, 0
            self._put(b"(%d bytes of log were lost: the disk was full)\n" % lost)
        self._put(data)


def log_part(path: Path) -> int:
    """Read the number of the log part at `path`, from its first line; 0 when there is none."""
    try:
        with path.open("rb") as log:
            first = log.readline(64)
    except OSError:
        return 0
    number = first.removeprefix(LOG_PART_HEADER).strip()
    return int(number) if first.startswith(LOG_PART_HEADER) and number.isdigit() else 0


class Reaper:
    """One server from spawn to the last of its descendants. `config` is what `launch` writes."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._mark: str = config["mark"]
        self._log = RotatingLog(Path(config["log"]), config["log_bytes"])
        self._selector = selectors.DefaultSelector()
        self._kill_at: float | None = None
        self._server = 0
        self._status: int | None = None
        self._supervisor: int | None = None
        self._output = self._server_output = -1

    def run(self) -> int:
        """Run the server to its end and return the exit status."""
        if not self._hold_supervisor():
            return EXIT_NOT_RUN
        self._listen_to_signals()
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._spawn()
        self._write_record()
        while self._status is None:
            self._step()
        kill_run(self._mark, os.getpid())
        self._drain()
        self._tidy()
        return _exit_status(self._status)

    def _hold_supervisor(self) -> bool:
        """Hold a pidfd of the supervisor, if the server is bound to one. False when it is gone already."""
        supervisor = self._config["supervisor"]
        if supervisor is None:
            return True
        try:
            self._supervisor = os.pidfd_open(supervisor["pid"])
        except ProcessLookupError:
            return False
        self._selector.register(self._supervisor, selectors.EVENT_READ)
        return bool(start_time_of(supervisor["pid"]) == supervisor["start_time"])

    def _listen_to_signals(self) -> None:
        self._wake, wake_in = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_in, False)
        signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def _spawn(self) -> None:
        self._output, self._server_output = os.pipe()
        os.set_blocking(self._output, False)
        reaper = os.getpid()
        self._server = os.fork()
        if self._server == 0:
            self._become_server(reaper)
        os.close(self._server_output)
        self._selector.register(self._output, selectors.EVENT_READ)

    def _become_server(self, reaper: int) -> None:
        """In the child: a session of its own, bound to the reaper's life, then exec. Never returns."""
        try:
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != reaper:
                os._exit(EXIT_NOT_RUN)
            for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if self._config["cpus"] is not None:
                os.sched_setaffinity(0, self._config["cpus"])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._server_output, 1)
            os.dup2(self._server_output, 2)
            os.execve(self._config["argv"][0], self._config["argv"], self._config["env"])  # noqa: S606 - no shell is meant
        except (OSError, ValueError) as error:
            os.write(self._server_output, f"tritonfleet: cannot run {self._config['argv'][0]}: {error}\n".encode())
        finally:
            os._exit(EXIT_NOT_RUN)

    def _write_record(self) -> None:
        """Complete the record with the processes, and rename it into place: visible means durable and whole."""
        record = self._config["record"] | {
            "server_pid": self._server,
            "server_start_time": start_time_of(self._server) or 0,
            "reaper_pid": os.getpid(),
            "reaper_start_time": start_time_of(os.getpid()),
        }
        target = Path(self._config["record_path"])
        staged = target.with_suffix(".staged")
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(target)

    def _step(self) -> None:
        """Wait for one thing to happen, and do what it asks."""
        wait_s = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        ready = {key.fd for key, _ in self._selector.select(wait_s)}
        if self._output in ready:
            self._pump()
        if self._wake in ready:
            self._obey(os.read(self._wake, _READ_BYTES))
        if self._supervisor is not None and self._supervisor in ready:
            self._selector.unregister(self._supervisor)
            self._signal_group(signal.SIGKILL)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            self._signal_group(signal.SIGKILL)
        self._status = reap_children().get(self._server, self._status)

    def _obey(self, signals: bytes) -> None:
        if signal.SIGUSR1 in signals:
            self._signal_group(signal.SIGKILL)
        elif signal.SIGTERM in signals and self._kill_at is None:
            self._kill_at = time.monotonic() + self._config["grace_s"]
            with suppress(ProcessLookupError):
                os.kill(self._server, signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it never became a group: the exec failed
            os.killpg(self._server, number)

    def _pump(self) -> bool:
        """Move output to the log once. False when there is none for now, or no more."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._log.write(data)
        else:
            self._selector.unregister(self._output)
        return bool(data)

    def _drain(self) -> None:
        while self._output in self._selector.get_map() and self._pump():
            pass

    def _tidy(self) -> None:
        sweep_shared_memory(self._config["shared_memory_prefix"])
        Path(self._config["record_path"]).unlink(missing_ok=True)
        if self._supervisor is not None and start_time_of(self._config["supervisor"]["pid"]) is None:
            for leftover in self._config["leftovers"]:
                shutil.rmtree(leftover, ignore_errors=True)
            for parent in self._config["remove_if_empty"]:
                with suppress(OSError):  # another server's folder may still be in it
                    Path(parent).rmdir()


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    sys.exit(Reaper(json.load(sys.stdin)).run())
