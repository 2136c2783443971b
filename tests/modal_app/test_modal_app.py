"""The Modal app without an account and without a network: what it declares, and .local()."""

from __future__ import annotations

import subprocess
import sys

import modal
import pytest
from starlette.testclient import TestClient

import modal_app
from modal_app.resources import requirements

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
    assert any(line.startswith("kreuzberg==") for line in wanted)
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
