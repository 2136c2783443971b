"""`narwhal up`: starts the parts of one home in order, keeps them running, stops them in order."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from narwhal.errors import NarwhalError
from narwhal.local import rest
from narwhal.local.bootstrap import bootstrap, set_passwords
from narwhal.local.home import DEFAULT_PORT, WORKER_ROLE, Home
from narwhal.local.migrate import migrate
from narwhal.local.postgres import (
    LOGIN_ROLES,
    LOW_BYTES,
    SUPERUSER,
    EmbeddedPostgres,
    require_space,
)
from narwhal.local.probe import probe
from narwhal.local.process import Service, end_leftovers, spawn
from narwhal.local.state import StackState, State, read_state, write_state

HOST = "127.0.0.1"
FD_VARIABLE = "NARWHAL_GATEWAY_FD"  # the listening socket that the gateway inherits
TICK_S = 0.1
WORKER_SETTLES_S = 1.0


class Supervisor:
    """Everything that runs for one home. `run` holds the home's lock until it is told to stop."""

    def __init__(
        self,
        home: Home,
        *,
        port: int | None = None,
        workers: int | None = None,
        durable: bool = True,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = home
        self.wanted_port = port
        self.wanted_workers = workers
        self.durable = durable
        self.progress = progress
        self.services: list[Service] = []
        self.state = StackState()
        self.stopping = False
        self._listener: socket.socket | None = None

    def run(self, on_ready: Callable[[StackState], None] = lambda _: None) -> None:
        """Start the stack, call `on_ready` once it is healthy, and supervise it until stopped.

        Raises NarwhalError when it cannot start (what was started is stopped again), with
        ALREADY_RUNNING when another supervisor holds the home.
        """
        self.home.make()
        with self.home.locked() as held:
            if not held:
                raise already_running(self.home)
            self._stop_on_signals()
            try:
                self._start()
                if not self.stopping:
                    on_ready(self.state)
                while not self.stopping:
                    self._tick()
            except BaseException as error:
                self.state.error = str(error) or type(error).__name__
                raise
            finally:
                self._stop()

    # -- starting

    def _start(self) -> None:
        self.state = self.home.load_or_make_state()
        leftovers = end_leftovers(self.home.root, self.home.pgdata, self.state.services)
        if leftovers:
            self.progress(f"ended what a crash had left running: {', '.join(leftovers)}")
        if self.home.pgdata.exists():
            require_space(self.home.root, LOW_BYTES)  # a new cluster asks for more, at `init`
        self._listener = self._bind()
        self.state.port = self._listener.getsockname()[1]
        self.state.api_url = f"http://{HOST}:{self.state.port}"
        if self.wanted_workers is not None:
            self.state.workers = self.wanted_workers
        self.state.supervisor_pid = os.getpid()
        postgres = EmbeddedPostgres(
            self.home.pgdata,
            self.state.passwords,
            socket_dir=self.home.run,
            log=self.home.log("postgres"),
            durable=self.durable,
        )
        self.state.database_url = postgres.url("postgres")
        self.state.worker_database_url = postgres.url(WORKER_ROLE)
        self._publish("starting")

        binary = rest.find_postgrest(self.home.root)
        if not postgres.initialised:
            self.progress("making the database")
            postgres.init()
        self.progress("starting Postgres")
        database = self._add(self._postgres(postgres))
        self._wait_for([database], failure=postgres.failure)
        prepare_database(postgres, self.progress)
        self.progress("starting PostgREST and the gateway")
        parts = [self._add(self._rest(binary, postgres)), self._add(self._gateway())]
        self._wait_for(parts)
        workers = [self._add(self._worker(number)) for number in range(1, self.state.workers + 1)]
        if workers:
            self.progress(f"starting {len(workers)} worker{'s' if len(workers) > 1 else ''}")
        self._wait_for(workers, required=False)
        self._publish()

    def _bind(self) -> socket.socket:
        port = self.state.port or DEFAULT_PORT
        if self.wanted_port is not None:
            port = self.wanted_port
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(1024)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise NarwhalError(
                    f"Port {port} is taken by another program.",
                    "Choose another one with --port, or any free one with --port 0.",
                    error="PORT_TAKEN",
                    details={"port": port},
                ) from error
            raise NarwhalError(
                f"Port {port} cannot be used: {error.strerror}.",
                "Choose another one with --port (1024 to 65535, 0 for any).",
                error="PORT_UNUSABLE",
                details={"port": port},
            ) from error
        return listener

    def _add(self, service: Service) -> Service:
        self.services.append(service)
        service.start()
        self._publish(self.state.state)
        return service

    def _postgres(self, postgres: EmbeddedPostgres) -> Service:
        return Service(
            "postgres",
            spawn=postgres.spawn,
            is_healthy=postgres.answers,
            log=postgres.log,
            stop_s=60.0,
            stop_signal=signal.SIGINT,  # a fast shutdown: sessions end, everything is written
        )

    def _rest(self, binary: Path, postgres: EmbeddedPostgres) -> Service:
        address = postgres.socket_dir / rest.SOCKET
        log = self.home.log("rest")
        # settings of some other PostgREST or database in the caller's environment stay out
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env = kept | rest.environment(
            database_url=postgres.url("authenticator"),
            socket=address,
            jwt_secret=self.state.jwt_secret,
            public_url=f"{self.state.api_url}/rest/v1",
        )
        return Service(
            "rest",
            spawn=lambda: spawn(
                [str(binary)], home=self.home.root, service="rest", log=log, env=env
            ),
            is_healthy=lambda: rest.answers(address),
            log=log,
            after_exit=self._sweep("rest"),
        )

    def _gateway(self) -> Service:
        assert self._listener is not None
        # the supervisor keeps the socket: while the gateway restarts, clients wait in its queue
        number = self._listener.fileno()
        log = self.home.log("gateway")
        command = [sys.executable, "-m", "narwhal.local.gateway", str(self.home.root)]
        return Service(
            "gateway",
            spawn=lambda: spawn(
                command,
                home=self.home.root,
                service="gateway",
                log=log,
                env=_python_environment() | {FD_VARIABLE: str(number)},
                pass_fds=(number,),
            ),
            is_healthy=lambda: probe((HOST, self.state.port), "/health") == 200,
            log=log,
            after_exit=self._sweep("gateway"),
        )

    def _worker(self, number: int) -> Service:
        name = f"worker-{number}"
        log = self.home.log(name)
        env = _python_environment() | {
            "NARWHAL_HOME": str(self.home.root),
            "NARWHAL_SUPABASE_URL": self.state.api_url,
            "NARWHAL_ANON_KEY": self.state.anon_key,
            "NARWHAL_SERVICE_ROLE_KEY": self.state.service_role_key,
            "NARWHAL_DATABASE_URL": self.state.database_url,
            "NARWHAL_WORKER_DATABASE_URL": self.state.worker_database_url,
            "NARWHAL_DEBUG": "1",  # a traceback helps in a log that only the owner reads
        }
        service = Service(
            name,
            spawn=lambda: spawn(
                [sys.executable, "-m", "narwhal", "worker"],
                home=self.home.root,
                service=name,
                log=log,
                env=env,
            ),
            is_healthy=lambda: service.age_s > WORKER_SETTLES_S,
            log=log,
            after_exit=self._sweep(name),
        )
        return service

    def _sweep(self, service: str) -> Callable[[], None]:
        """Return what ends the children that a dead part left behind."""
        return lambda: _ignore(end_leftovers(self.home.root, self.home.pgdata, [], service=service))

    def _wait_for(
        self,
        services: list[Service],
        *,
        required: bool = True,
        failure: Callable[[], NarwhalError] | None = None,
    ) -> None:
        """Wait until the parts are healthy; one that ends or takes too long is a failed start."""
        while not self.stopping and any(service.state == "starting" for service in services):
            self._tick()
        for service in services:
            if required and not self.stopping and service.state != "running":
                if failure is not None:
                    raise failure()
                raise NarwhalError(
                    f"{service.name} did not start: {service.last_exit}",
                    f"The whole story is in {service.log}.",
                    error="START_FAILED",
                    details={"service": service.name},
                )

    # -- supervising

    def _tick(self) -> None:
        changed = False
        for service in self.services:
            changed = service.step() or changed
        if changed:
            self._publish(self.state.state if self.state.state == "starting" else None)
        if not self.stopping:
            time.sleep(TICK_S if self.state.state != "starting" else 0.02)

    def _publish(self, state: State | None = None) -> None:
        """Write what is known to stack.json, where `narwhal status` reads it."""
        healthy = all(service.state == "running" for service in self.services)
        self.state.state = state or ("running" if healthy else "degraded")
        self.state.services = [service.status() for service in self.services]
        try:
            write_state(self.home.root, self.state)
        except OSError as error:
            if self.state.state == "starting":
                require_space(self.home.root)
                raise NarwhalError(
                    f"{self.home.root} cannot be written: {error.strerror}.",
                    "Free some space or choose another place with --home.",
                    error="HOME_UNUSABLE",
                ) from error
            self.progress(f"stack.json could not be written: {error}")  # a later change tries again

    # -- stopping

    def _stop_on_signals(self) -> None:
        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self.stopping = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)

    def _stop(self) -> None:
        if self.services:
            self.progress("stopping")
            with contextlib.suppress(NarwhalError):
                self._publish("stopping")
        for service in reversed(self.services):
            service.stop()
        if self._listener is not None:
            self._listener.close()
        if self.state.jwt_secret:  # nothing to remember when even the state could not be read
            self.state.supervisor_pid = None
            with contextlib.suppress(NarwhalError):
                self._publish("stopped")


def prepare_database(
    postgres: EmbeddedPostgres, progress: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Bring a running cluster's database up to date; return the migrations that were applied."""
    logins = {role: postgres.passwords[role] for role in LOGIN_ROLES}
    bootstrap(postgres.url(SUPERUSER), logins)
    applied = migrate(postgres.url("postgres"))
    if applied:
        progress(f"applied {len(applied)} migrations")
    # the migrations make the worker's role without a password
    set_passwords(postgres.url(SUPERUSER), {WORKER_ROLE: postgres.passwords[WORKER_ROLE]})
    return applied


def already_running(home: Home) -> NarwhalError:
    """Return the failure of a second supervisor on one home."""
    return NarwhalError(
        f"A stack already runs in {home.root}.",
        "See it with `narwhal status`, stop it with `narwhal down`.",
        error="ALREADY_RUNNING",
    )


def start_detached(
    home: Home,
    *,
    port: int | None = None,
    workers: int | None = None,
    durable: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> StackState:
    """Start a supervisor that outlives this process; return the state once it is healthy.

    Raises what the supervisor could not do. Interrupted, it stops the supervisor again.
    """
    home.make()
    request = {"port": port, "workers": workers, "durable": durable}
    command = [sys.executable, "-m", "narwhal.local.supervisor", str(home.root)]
    with home.log("supervisor").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - this very program
            [*command, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_python_environment(),
            cwd="/",
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if "progress" in event:
                progress(event["progress"])
            elif "error" in event:
                raise NarwhalError(
                    event["message"],
                    event["hint"],
                    error=event["error"],
                    details=event["details"],
                )
            elif "ready" in event:
                process.stdout.close()
                state = read_state(home.root)
                assert state is not None
                return state
    except BaseException:
        process.terminate()
        raise
    raise NarwhalError(
        f"The supervisor ended early with {process.wait()}.",
        f"The whole story is in {home.log('supervisor')}.",
        error="START_FAILED",
    )


def stop_stack(home: Home, timeout: float = 120.0) -> bool:
    """Stop whatever runs in a home; return whether anything did.

    Raises NarwhalError (STOP_FAILED) when the supervisor does not end in `timeout` seconds.
    """
    state = read_state(home.root)
    if state is None:
        return False
    pid = home.holder()
    if pid is not None:
        deadline = time.monotonic() + timeout
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while home.is_held():
            if time.monotonic() > deadline:
                raise NarwhalError(
                    f"The supervisor (process {pid}) does not stop.",
                    f"See {home.log('supervisor')}; kill it and run `narwhal down` again.",
                    error="STOP_FAILED",
                )
            time.sleep(0.05)
        return True
    with home.locked() as held:
        if not held:  # somebody starts it this moment
            raise already_running(home)
        leftovers = end_leftovers(home.root, home.pgdata, state.services)
        was_stopped = state.state == "stopped"
        if not was_stopped:
            state.state = "stopped"
            state.supervisor_pid = None
            for service in state.services:
                service.state, service.pid, service.create_time = "stopped", None, None
            write_state(home.root, state)
    return bool(leftovers) or not was_stopped


def _python_environment() -> dict[str, str]:
    """Return the environment for Python parts, which start in `/`: this package stays importable.

    A checkout may be run without being installed.
    """
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def _ignore(value: object) -> None:
    del value


def main(arguments: list[str]) -> int:
    """Run detached: `python -m narwhal.local.supervisor HOME REQUEST`, events as JSON lines."""
    home, request = Home(Path(arguments[0])), json.loads(arguments[1])
    events: Any = sys.stdout

    def tell(**event: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(json.dumps(event, default=str), file=events, flush=True)

    def progress(text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
        tell(progress=text)

    def ready(state: StackState) -> None:
        tell(ready=state.api_url)
        # the starter goes away now; nothing may be written to it any more
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.close(devnull)

    supervisor = Supervisor(home, progress=progress, **request)
    try:
        supervisor.run(ready)
    except NarwhalError as error:
        tell(error=error.error, message=error.message, hint=error.hint, details=error.details)
        return 1
    except psycopg.Error as error:
        tell(
            error="START_FAILED",
            message=f"The database could not be prepared: {error}",
            hint=f"The whole story is in {home.log('supervisor')}.",
            details={},
        )
        raise
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
