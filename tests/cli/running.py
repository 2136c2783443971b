"""The command line against a running stack, as a person would use it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from narwhal.cli import main
from narwhal.local.state import StackState
from narwhal.session import admin_client
from narwhal.settings import Settings

PASSWORD = "correct horse battery staple"


def environment(stack: StackState) -> dict[str, str]:
    """Return an environment that names this stack, whatever project the caller works on."""
    ours = ("NARWHAL_", "SUPABASE_", "DATABASE_URL")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return clean | {
        "SUPABASE_URL": stack.api_url,
        "SUPABASE_ANON_KEY": stack.anon_key,
        "SUPABASE_SERVICE_ROLE_KEY": stack.service_role_key,
        "DATABASE_URL": stack.database_url,
        "NARWHAL_WORKER_DATABASE_URL": stack.worker_database_url,
    }


def settings_of(stack: StackState, home: Path) -> Settings:
    """Return what `load_settings` would read for a stack, with a home of its own."""
    return Settings(
        home=home,
        supabase_url=stack.api_url,
        anon_key=stack.anon_key,
        service_role_key=stack.service_role_key,
        database_url=stack.database_url,
        worker_database_url=stack.worker_database_url,
    )


@dataclass(frozen=True)
class CommandLine:
    """Runs narwhal on one stack, with a session and a working folder of its own."""

    stack: StackState
    cwd: Path

    @property
    def home(self) -> Path:
        """The folder of session.json and uploads.json."""
        return self.cwd / "home"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "narwhal", *arguments, "--home", str(self.home)],
            cwd=self.cwd,
            env=environment(self.stack),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, inside this process: importing the SDK anew takes longer."""
        argv = ["narwhal", *arguments, "--home", str(self.home)]
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, environment(self.stack), clear=True),
            mock.patch.object(sys, "argv", argv),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.chdir(self.cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> Any:
        """Run a command with --json; return what it printed."""
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def new_user(self) -> str:
        """Create an account and return its address."""
        email = f"{uuid.uuid4().hex[:12]}@example.com"
        admin_client(settings_of(self.stack, self.home)).auth.admin.create_user(
            {"email": email, "password": PASSWORD, "email_confirm": True}
        )
        return email
