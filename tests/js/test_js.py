"""Runs the JavaScript tests: the official clients against the running stack."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from narwhal.local.state import StackState

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def packages() -> None:
    """Install the pinned clients, unless scripts/setup or an earlier run has done it."""
    installed = HERE / "node_modules" / ".package-lock.json"
    lock = HERE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=HERE, check=True, timeout=300)


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.js")))
def test_the_official_clients_work_unmodified(stack: StackState, name: str) -> None:
    done = subprocess.run(
        ["node", "--test", "--test-reporter=spec", name],
        cwd=HERE,
        env=os.environ | {"SUPABASE_URL": stack.api_url, "SUPABASE_ANON_KEY": stack.anon_key},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
