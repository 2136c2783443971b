"""The command line against a running stack, as a person would use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narwhal.settings import VARIABLES

PASSWORD = "correct horse battery staple"


def environment() -> dict[str, str]:
    """Return the environment without settings of whoever runs the tests."""
    ours = {name for names in VARIABLES.values() for name in names} | {"NARWHAL_HOME"}
    return {name: value for name, value in os.environ.items() if name not in ours}


@dataclass(frozen=True)
class CommandLine:
    """Runs narwhal on one home, from a working folder of its own."""

    home: Path
    cwd: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        return subprocess.Popen(
            [sys.executable, "-m", "narwhal", *arguments, "--home", str(self.home)],
            cwd=self.cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "narwhal", *arguments, "--home", str(self.home)],
            cwd=self.cwd,
            env=environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> Any:
        """Run a command with --json; return what it printed."""
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def new_user(self) -> str:
        """Create an account and return its address."""
        email = f"{uuid.uuid4().hex[:12]}@example.com"
        self.json("users", "create", email, "--password-stdin", stdin=PASSWORD + "\n")
        return email
