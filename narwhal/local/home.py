"""A home: the folder that holds everything of one local stack, and who may use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt

from narwhal import __version__
from narwhal.errors import NarwhalError
from narwhal.local.postgres import LOGIN_ROLES
from narwhal.local.state import StackState, read_state

DEFAULT_PORT = 54321
KEY_LIFETIME_S = 10 * 365 * 24 * 3600
WORKER_ROLE = "narwhal_worker"
LOG_LIMIT = 10 * 1024**2


@dataclass(frozen=True)
class Home:
    """The places inside a home."""

    root: Path

    @property
    def pgdata(self) -> Path:
        """The cluster of PostgreSQL."""
        return self.root / "pgdata"

    @property
    def run(self) -> Path:
        """Sockets of Postgres and PostgREST."""
        return self.root / "run"

    @property
    def storage(self) -> Path:
        """The bytes of Storage's objects."""
        return self.root / "storage"

    @property
    def logs(self) -> Path:
        """One log a service."""
        return self.root / "logs"

    def log(self, service: str) -> Path:
        """Return the log file of one service."""
        return self.logs / f"{service}.log"

    def make(self) -> None:
        """Make the folders, closed to other users, and put large logs aside."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.storage, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise NarwhalError(
                f"The home {self.root} cannot be made: {error.strerror}.",
                "Choose another place with --home.",
                error="HOME_UNUSABLE",
            ) from error
        for log in self.logs.glob("*.log"):
            if log.stat().st_size > LOG_LIMIT:
                log.replace(log.with_suffix(".log.1"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the home while the block runs; gives False when another process holds it.

        The kernel drops the lock with its holder, so a crash leaves nothing stale behind; what
        the file says is only for people.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for attempt in range(10):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == 9:
                        yield False
                        return
                    time.sleep(0.02)  # `is_held` takes it for an instant
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield True
        finally:
            os.close(descriptor)

    def holder(self) -> int | None:
        """Return the process id of whoever holds the home; None when nobody does."""
        while self.is_held():
            with contextlib.suppress(OSError, ValueError):
                return int((self.root / "lock").read_text())
            time.sleep(0.02)  # it holds the lock and has not signed yet
        return None

    def is_held(self) -> bool:
        """Whether a supervisor runs on this home."""
        if not (self.root / "lock").exists():
            return False
        descriptor = os.open(self.root / "lock", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def load_or_make_state(self) -> StackState:
        """Return the home's state; a new home gets its keys and passwords here, once."""
        state = read_state(self.root)
        if state is None:
            if self.pgdata.exists():
                raise NarwhalError(
                    f"{self.root} holds a database but its keys (stack.json) are gone.",
                    "Restore stack.json from a copy, or move the home away and start a new one.",
                    error="STATE_UNREADABLE",
                )
            secret = secrets.token_urlsafe(48)
            state = StackState(
                jwt_secret=secret,
                anon_key=_api_key(secret, "anon"),
                service_role_key=_api_key(secret, "service_role"),
                publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
                secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
                passwords={role: secrets.token_urlsafe(24) for role in (*LOGIN_ROLES, WORKER_ROLE)},
            )
        state.version = __version__
        state.error = None
        return state


def _api_key(secret: str, role: str) -> str:
    now = int(time.time())
    claims = {"iss": "narwhal-local", "role": role, "iat": now, "exp": now + KEY_LIFETIME_S}
    return jwt.encode(claims, secret, algorithm="HS256")
