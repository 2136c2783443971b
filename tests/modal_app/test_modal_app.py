"""The Modal app without an account and without a network: what it declares, and .local()."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
from starlette.testclient import TestClient

import modal_app
from modal_app.resources import requirements
from narwhal.local.state import StackState, read_state
from tests.cli.running import CommandLine, environment
from tests.conftest import narwhal

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("opened a socket")
socket.socket.connect = refuse
import modal_app
print(sorted(modal_app.app.registered_functions))
"""


def test_importing_it_needs_no_account_and_opens_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "['ai', 'drain']", done.stderr


def test_the_image_gets_what_pyproject_pins() -> None:
    wanted = requirements("extract", "modal")
    assert any(line.startswith("pypdfium2==") for line in wanted)
    assert any(line.startswith("postgrest==") for line in wanted)
    assert not any(line.startswith("pytest") for line in wanted)


def test_calling_modal_itself_needs_an_account() -> None:
    with pytest.raises(modal.exception.Error):
        modal_app.worker.drain.remote()


def test_the_service_answers_locally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("SUPABASE_ANON_KEY", "anon")
    with pytest.warns(UserWarning, match="Volume"), TestClient(modal_app.service.ai.local()) as c:
        answer = c.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["database"] == "unavailable"


@pytest.fixture
def idle_stack(tmp_path: Path) -> Iterator[StackState]:
    """Start a stack without a worker: only ours may take its jobs."""
    home = str(tmp_path / "stack")
    narwhal("up", "--detach", "--port", "0", "--workers", "0", "--home", home)
    try:
        state = read_state(Path(home))
        assert state is not None
        yield state
    finally:
        narwhal("down", "--home", home)


@pytest.fixture
def _signals() -> Iterator[None]:
    """Keep pytest's own handlers: a worker sets some for its process."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_the_worker_drains_a_stack_locally(
    idle_stack: StackState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = CommandLine(idle_stack, tmp_path)
    owner = cli.new_user()
    (tmp_path / "note.txt").write_text("The drain job reads this note.")
    cli.json("upload", "note.txt", "--as", owner)
    assert cli.json("search", "drain job", "--as", owner)["hits"] == []  # control

    for name, value in environment(idle_stack).items():
        if name.startswith(("SUPABASE_", "NARWHAL_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("NARWHAL_HOME", str(tmp_path))  # nothing but the environment
    with pytest.warns(UserWarning, match="Volume"):
        assert modal_app.worker.drain.local(concurrency=1) > 0
    [hit] = cli.json("search", "drain job", "--as", owner)["hits"]
    assert hit["name"] == "note.txt"
    with pytest.warns(UserWarning, match="Volume"):
        assert modal_app.worker.drain.local() == 0  # running it twice is harmless
