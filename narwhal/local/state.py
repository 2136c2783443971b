"""What a home remembers in `stack.json`: addresses, keys, passwords, and which processes run."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from narwhal.errors import NarwhalError

STATE_FILE = "stack.json"

State = Literal["starting", "running", "degraded", "stopping", "stopped", "crashed"]
ServiceState = Literal["starting", "running", "restarting", "failed", "stopped"]


class ServiceStatus(BaseModel):
    """One process of the stack, as `narwhal status` shows it.

    `create_time` (seconds since the epoch, by the kernel) tells a recycled pid from ours.
    """

    name: str
    state: ServiceState = "stopped"
    pid: int | None = None
    create_time: float | None = None
    restarts: int = 0
    last_exit: str | None = None
    started_at: str | None = None


class StackState(BaseModel):
    """Everything about one home, secrets included: the file's mode is 0600."""

    state: State = "stopped"
    api_url: str = ""
    anon_key: str = ""
    service_role_key: str = ""
    database_url: str = ""
    worker_database_url: str = ""
    jwt_secret: str = ""
    version: str = ""
    services: list[ServiceStatus] = Field(default_factory=list)
    publishable_key: str = ""
    secret_key: str = ""
    port: int = 0
    workers: int = 1
    passwords: dict[str, str] = Field(default_factory=dict)
    supervisor_pid: int | None = None
    supervisor_create_time: float | None = None
    error: str | None = None

    def service(self, name: str) -> ServiceStatus | None:
        """Return the status of the process called `name`, if the stack has one."""
        return next((service for service in self.services if service.name == name), None)


def read_state(home: Path) -> StackState | None:
    """Return the state of a home; None when no stack was ever started there.

    Raises NarwhalError (STATE_UNREADABLE) when the file is not ours to read or is damaged.
    """
    path = home / STATE_FILE
    try:
        return StackState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise NarwhalError(
            f"The state of this stack cannot be read: {path}",
            "It holds the keys and passwords of this home: restore it from a copy, or move the "
            "home away and start a new one.",
            error="STATE_UNREADABLE",
            details={"reason": str(error).splitlines()[0]},
        ) from error


def write_state(home: Path, state: StackState) -> None:
    """Replace `stack.json` in one step, so that a reader or a crash never meets half a file."""
    path = home / STATE_FILE
    temporary = home / f".{STATE_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(state.model_dump_json(indent=2))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
