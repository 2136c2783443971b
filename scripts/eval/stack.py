"""A stack of an evaluation's own, and a user who puts files in it with the official client."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supabase import Client, ClientOptions, create_client

from narwhal.evaluation.manifest import path_of
from narwhal.local.state import StackState, read_state

PASSWORD = "correct horse battery staple"  # of an account that lives as long as the run
SETTLED = {"ready", "failed", "skipped", "rejected"}


@contextmanager
def running(workers: int) -> Iterator[Path]:
    """Start a stack in a temporary home; stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="narwhal-eval-") as home:
        try:
            _narwhal("up", "--detach", "--port", "0", "--workers", str(workers), "--home", home)
            yield Path(home)
        finally:
            _narwhal("down", "--home", home)


def state_of(home: Path) -> StackState:
    """Return what the stack says of itself."""
    state = read_state(home)
    assert state is not None
    return state


def sign_up(home: Path) -> Client:
    """Return a client that is signed in to a new account."""
    state = state_of(home)
    client = create_client(state.api_url, state.anon_key, ClientOptions(auto_refresh_token=False))
    client.auth.sign_up({"email": "reader@example.test", "password": PASSWORD})
    client.auth.sign_in_with_password({"email": "reader@example.test", "password": PASSWORD})
    return client


def upload(client: Client, folder: Path, entry: dict[str, Any]) -> str:
    """Upload the file of one line of a manifest; return its file_id."""
    path = path_of(folder, entry)
    data = path.read_bytes()
    mime = entry.get("mime")
    arguments = {"name": path.name, "size": len(data), "mime": mime, "on_conflict": "rename"}
    if entry.get("password"):
        arguments["options"] = {"password": entry["password"]}
    ticket: Any = client.rpc("begin_upload", arguments).execute().data
    client.storage.from_(ticket["bucket"]).upload(
        ticket["key"], data, {"content-type": mime or "application/octet-stream"}
    )
    return str(ticket["file_id"])


def wait(client: Client, limit_s: float) -> dict[str, dict[str, Any]]:
    """Wait until every file has settled, or the time is over; return the nodes by id."""
    deadline = time.monotonic() + limit_s
    while True:
        rows: Any = client.table("nodes").select("id,name,status").execute().data
        left = sum(row["status"] not in SETTLED for row in rows)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{len(rows) - left} of {len(rows)} files settled ")
            sys.stderr.flush()
        if not left or time.monotonic() > deadline:
            return {row["id"]: row for row in rows}
        time.sleep(1)


def _narwhal(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments], check=True, stdout=subprocess.DEVNULL
    )
