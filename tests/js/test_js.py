"""Runs the JavaScript tests: the official clients against the running stack."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from narwhal.cli.database import execute
from narwhal.local.state import StackState
from narwhal.session import admin_client
from tests.cli.running import PASSWORD, settings_of

HERE = Path(__file__).parent
ADMIN = "admin-of-js@example.com"


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
def environment(stack: StackState, stack_home: Path) -> dict[str, str]:
    """Return what the tests are told of the stack, with an account of the role admin."""
    settings = settings_of(stack, stack_home)
    made = admin_client(settings).auth.admin.create_user(
        {"email": ADMIN, "password": PASSWORD, "email_confirm": True}
    )
    execute(stack.database_url, "users_set_role", {"user_id": made.user.id, "role": "admin"})
    return os.environ | {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_ANON_KEY": stack.anon_key,
        "JWT_SECRET": stack.jwt_secret,
        "ADMIN_EMAIL": ADMIN,
        "STACK_HOME": str(stack_home),
    }


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.js")))
def test_the_official_clients_work_unmodified(environment: dict[str, str], name: str) -> None:
    done = subprocess.run(
        ["node", "--test", "--test-reporter=spec", name],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
