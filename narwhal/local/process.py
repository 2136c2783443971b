"""One supervised process: started, watched, restarted with growing pauses, stopped in order."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from narwhal.local.state import ServiceState, ServiceStatus

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
STABLE_AFTER_S = 60.0
CHECK_EVERY_S = 5.0
CHECKS_BEFORE_RESTART = 6  # a busy machine may be slow to answer; a dead one is noticed at once
TELLING = re.compile(r"error|fatal|panic", re.IGNORECASE)

# every process of a stack carries these, so that leftovers are recognised whatever happened
HOME_MARK = "NARWHAL_STACK_HOME"
SERVICE_MARK = "NARWHAL_STACK_SERVICE"


@dataclass
class Service:
    """A part of the stack and what is known about its process.

    `spawn` starts it; `is_healthy` asks it whether it works (called often while it starts, every
    few seconds afterwards); `startup_s` is how long it may take before it counts as failed.
    """

    name: str
    spawn: Callable[[], subprocess.Popen[bytes]]
    is_healthy: Callable[[], bool]
    log: Path
    startup_s: float = 60.0
    stop_s: float = 20.0
    stop_signal: signal.Signals = signal.SIGTERM
    after_exit: Callable[[], None] = lambda: None
    state: ServiceState = "stopped"
    process: subprocess.Popen[bytes] | None = None
    create_time: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    started_at: str | None = None
    _since: float = field(default=0.0)
    _pause: float = field(default=FIRST_PAUSE_S)
    _next_start: float = field(default=0.0)
    _next_check: float = field(default=0.0)
    _failed_checks: int = field(default=0)

    @property
    def age_s(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._since

    def start(self) -> None:
        """Start the process; `step` sees it become healthy."""
        self.process = self.spawn()
        with contextlib.suppress(psutil.Error):
            self.create_time = psutil.Process(self.process.pid).create_time()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._since = time.monotonic()
        self._failed_checks = 0
        self.state = "starting"

    def step(self) -> bool:
        """Look after the process; return whether anything about it changed."""
        before = (self.state, self.restarts, self.process)
        now = time.monotonic()
        if self.state == "restarting":
            if now >= self._next_start:
                self._restart()
        elif self.process is not None and self.process.poll() is not None:
            self._gone(_describe_exit(self.process.returncode))
        elif self.state == "starting":
            if self.is_healthy():
                self.state = "running"
                self._next_check = now + CHECK_EVERY_S
            elif self.age_s > self.startup_s:
                self._give_up(f"did not become healthy within {self.startup_s:.0f} s")
        elif self.state == "running" and now >= self._next_check:
            self._next_check = now + CHECK_EVERY_S
            self._failed_checks = 0 if self.is_healthy() else self._failed_checks + 1
            if self._failed_checks >= CHECKS_BEFORE_RESTART:
                self._give_up("stopped answering")
        return before != (self.state, self.restarts, self.process)

    def stop(self) -> None:
        """Ask the process to end, and make it end when it does not."""
        process, self.process = self.process, None
        self.state = "stopped"
        if process is None:
            return
        for number, patience in ((self.stop_signal, self.stop_s), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
                break
        self.after_exit()

    def status(self) -> ServiceStatus:
        """Return what `narwhal status` shows."""
        alive = self.process is not None and self.process.poll() is None
        return ServiceStatus(
            name=self.name,
            state=self.state,
            pid=self.process.pid if self.process and alive else None,
            create_time=self.create_time if alive else None,
            restarts=self.restarts,
            last_exit=self.last_exit,
            started_at=self.started_at,
        )

    def _restart(self) -> None:
        self.restarts += 1
        try:
            self.start()
        except Exception as error:  # no disk, no memory: try again later, and say so
            self.last_exit = str(error)
            self._wait()

    def _give_up(self, reason: str) -> None:
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self._gone(reason)

    def _gone(self, reason: str) -> None:
        last = _last_line(self.log)
        self.last_exit = f"{reason}: {last}" if last else reason
        self.after_exit()
        self._wait()

    def _wait(self) -> None:
        if self.age_s > STABLE_AFTER_S:
            self._pause = FIRST_PAUSE_S
        self._next_start = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        self.state = "restarting"
        self.process = None


def spawn(
    command: list[str],
    *,
    home: Path,
    service: str,
    log: Path,
    env: Mapping[str, str],
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a part of the stack in a session of its own, its output going to `log`."""
    marks = {HOME_MARK: str(home), SERVICE_MARK: service}
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - parts of the stack
            command,
            env=dict(env) | marks,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=pass_fds,
        )


def end_leftovers(
    home: Path, pgdata: Path, recorded: list[ServiceStatus], service: str | None = None
) -> list[str]:
    """End processes of this home that nobody supervises any more; return what was ended.

    Only what is surely ours: a process with the mark of this home in its environment, or the
    postmaster whose working folder is our cluster. Postgres is asked to shut down first, so that
    nothing needs recovery. With `service`, only that part's.
    """
    found: list[tuple[psutil.Process, str, bool]] = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        name = _service_of(process, home)
        if name is not None and service in (None, name):
            found.append((process, name, False))
    postmaster = None if service not in (None, "postgres") else _postmaster(pgdata, recorded)
    if postmaster is not None:
        found.append((postmaster, "postgres", True))
    # what uses the database goes first
    found.sort(key=lambda entry: entry[2])
    for process, _, is_postgres in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGINT if is_postgres else signal.SIGTERM)
    processes = [process for process, _, _ in found]
    _, alive = psutil.wait_procs(processes, timeout=10 if service is None else 1)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            # SIGQUIT is Postgres's own emergency stop: its backends end with it
            process.send_signal(signal.SIGQUIT if process is postmaster else signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)
    return [f"{name} ({process.pid})" for process, name, _ in found]


def is_alive(status: ServiceStatus) -> bool:
    """Whether the recorded process still runs, and is not another one with the same pid."""
    if status.pid is None or status.create_time is None:
        return False
    try:
        process = psutil.Process(status.pid)
        # the clock may have been set since: boot time, and with it every start, moves along
        same = abs(process.create_time() - status.create_time) < 2.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _service_of(process: psutil.Process, home: Path) -> str | None:
    try:
        environment = process.environ()
        if environment.get(HOME_MARK) != str(home) or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (psutil.Error, OSError):
        return None
    return environment.get(SERVICE_MARK) or "unknown"


def _postmaster(pgdata: Path, recorded: list[ServiceStatus]) -> psutil.Process | None:
    pids = [status.pid for status in recorded if status.name == "postgres" and status.pid]
    with contextlib.suppress(OSError, ValueError, IndexError):
        pids.append(int((pgdata / "postmaster.pid").read_text().splitlines()[0]))
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            # Postgres overwrites its environment, but works inside its cluster
            if process.name() == "postgres" and Path(process.cwd()) == pgdata.resolve():
                return process
    return None


def _describe_exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exited with {code}"


def _last_line(log: Path) -> str:
    """Return the line of a log's end that most likely says why: the last error, else the last."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
        telling = [line for line in lines[-10:] if TELLING.search(line)]
        return (telling or lines or [""])[-1].strip()[:300]
    return ""
