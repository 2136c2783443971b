"""Runs the JavaScript tests: the official clients against the running stack."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narwhal.settings import load_settings

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


@pytest.fixture(scope="module")
def worker(stack: Any) -> Iterator[None]:
    """Read what the tests upload."""
    command = [sys.executable, "-m", "narwhal", "worker", "--home", str(stack.home)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield
    process.terminate()
    process.wait(30)


@pytest.mark.usefixtures("packages", "worker")
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.js")))
def test_the_official_clients_work_unmodified(stack: Any, name: str) -> None:
    settings = load_settings(stack.home)
    done = subprocess.run(
        ["node", "--test", "--test-reporter=spec", name],
        cwd=HERE,
        env=os.environ
        | {
            "SUPABASE_URL": settings.require("supabase_url"),
            "SUPABASE_ANON_KEY": settings.require("anon_key"),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
