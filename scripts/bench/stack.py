"""A stack of its own for a benchmark: started, handed over, and taken away."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from narwhal.evaluation.asking import User
from narwhal.local.state import StackState, read_state
from narwhal.session import admin_client
from narwhal.settings import Settings


@contextmanager
def stack() -> Iterator[tuple[StackState, Settings]]:
    """Start a stack without workers; yield where it is, and the settings to reach it."""
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as home:
        try:
            _narwhal("up", "--detach", "--port", "0", "--workers", "0", "--home", home)
            state = read_state(Path(home))
            assert state is not None
            yield (
                state,
                Settings(
                    home=Path(home),
                    supabase_url=state.api_url,
                    anon_key=state.anon_key,
                    service_role_key=state.service_role_key,
                    database_url=state.database_url,
                    worker_database_url=state.worker_database_url,
                ),
            )
        finally:
            _narwhal("down", "--home", home)


def new_user(settings: Settings) -> User:
    """Make an account, which signs in by password."""
    email, password = f"{uuid.uuid4().hex}@example.test", uuid.uuid4().hex
    made = admin_client(settings).auth.admin.create_user(
        {"email": email, "password": password, "email_confirm": True}
    )
    return User(uuid.UUID(made.user.id), email, password)


def _narwhal(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments], check=True, stdout=subprocess.DEVNULL
    )
